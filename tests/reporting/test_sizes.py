"""Sizes and costs against counting by hand."""

import pytest
import torch
from torch import nn

import report
from foodgen.core.errors import ConfigError
from foodgen.reporting.sizes import Size, multiply_adds, table, weights


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_costs_what_counting_says(groups):
    layer = nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    x = torch.randn(2, 8, 5, 5)
    forward = 2 * 16 * 25 * (8 // groups) * 9
    assert multiply_adds(lambda: layer(x)) == forward
    assert multiply_adds(lambda: layer(x).sum().backward()) == 2 * forward  # the gradient of the weights
    x.requires_grad_(True)
    assert multiply_adds(lambda: layer(x).sum().backward()) == 3 * forward  # and that of the input


def test_transposed_convolutions_and_matrices():
    layer = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1)
    x = torch.randn(1, 4, 5, 5, requires_grad=True)
    assert multiply_adds(lambda: layer(x)) == 4 * 25 * 6 * 16
    assert multiply_adds(lambda: layer(x).sum().backward()) == 3 * 4 * 25 * 6 * 16
    assert multiply_adds(lambda: nn.Linear(7, 3)(torch.randn(5, 7))) == 5 * 7 * 3


def test_weights_trained_and_not():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).requires_grad_(False))
    assert (weights(network, trained=True), weights(network, trained=False)) == (16, 10)


def test_the_table_has_a_row_a_configuration():
    size = Size("a", {"model": 2_500_000, "discriminator": 1_000_000}, 0, 3e9, 12.34e9)
    assert table([size], {"a": "2M"}).splitlines()[2] == "| a | 2.50M | 1.00M |  | 3G | 12.3G | 2M |"


def write_report(folder, configs):
    (folder / "README.md").write_text("<!-- sizes --><!-- /sizes -->\n")
    (folder / "r.yaml").write_text(
        f"target: {folder}\ngather: {{sizes.jsonl: {{name: sizes, classes: 8, configs: {configs}}}}}\n"
        f"tables: {{sizes: {{name: sizes, data: sizes.jsonl}}}}\n"
    )
    return [f"exp.config_path={folder}/r.yaml"]


def test_the_command_writes_the_table(tmp_path, capsys):
    report.main(write_report(tmp_path, "[configs/small/dcgan.yaml, configs/small/stylegan2.yaml]"))
    lines = (tmp_path / "README.md").read_text().split("\n\n")[1].splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| small/dcgan", "| small/stylegan2"]
    assert "wrote 1 tables" in capsys.readouterr().out


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"configs/nothing\.yaml is not a file"):
        report.main(write_report(tmp_path, "[configs/nothing.yaml]"))
