"""The package: the command `foodgen`, its help, configurations by name, and a wheel that works in an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import foodgen
import train
from foodgen.builders.models import make_model
from foodgen.builders.training import checkpoint_bytes, make_trainer
from foodgen.commands import cli, inference
from foodgen.core import config
from foodgen.core.errors import ConfigError, UserError
from foodgen.core.settings import Config
from tests.conftest import TINY
from tests.runs import last, score_by_colours

ROOT = Path(foodgen.__file__).parent.parent


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_every_key_with_its_meaning(command, capsys):
    assert cli.main([command, "--help"]) == 0
    found = capsys.readouterr().out
    if cli.COMMANDS[command][1] is Config:
        assert "train.steps: int = 100000  (of the whole training)\n" in found
        assert "train.precision: auto or fp32 or bf16 or fp16 = auto" in found
        assert "train.initial_weights: str or mapping or null = null" in found
    for line in found.splitlines()[2:]:
        assert line.endswith(")"), f"{line} has no meaning"


def test_usage_names_the_commands(capsys):
    assert cli.main([]) == 2
    capsys.readouterr()
    assert cli.main(["--help"]) == 0
    found = capsys.readouterr().out
    assert all(f"\n  {command} " in found for command in [*cli.COMMANDS, "list"])
    with pytest.raises(ConfigError, match="there is no command 'trian'; did you mean 'train'"):
        cli.main(["trian"])


def test_parts_are_listed_with_what_they_are(capsys):
    cli.main(["list", "samplers"])
    found = capsys.readouterr().out
    assert "  euler: First order: one evaluation a step.\n" in found
    assert "models:" not in found
    cli.main(["list"])
    found = capsys.readouterr().out
    assert "models:" in found
    assert "  hybrid: " in found
    with pytest.raises(ConfigError, match="there is no kind of part 'sampler'; did you mean 'samplers'"):
        cli.main(["list", "sampler"])


def test_every_part_says_what_it_is(capsys):
    cli.main(["list"])
    for line in capsys.readouterr().out.splitlines():
        assert line.endswith(":") or line.split(": ", 1)[1].strip(), line


def test_configurations_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.load(["exp.config_path=small/edm"], Config).exp.run == "small_edm"
    with pytest.raises(
        ConfigError, match="small/edn is neither a file nor a bundled configuration; did you mean 'small/edm'"
    ):
        config.load(["exp.config_path=small/edn"], Config)
    (tmp_path / "edm").write_text("extends: none.yaml")  # a file of one's own goes first
    with pytest.raises(ConfigError, match=r"none\.yaml is not a file"):
        config.load(["exp.config_path=edm"], Config)


def test_scoring_wants_a_folder(tiny, tmp_path, monkeypatch, dishes):
    with pytest.raises(ConfigError, match=r"inference\.images=FOLDER is missing"):
        cli.main(["score", *tiny])
    score_by_colours(monkeypatch)
    seen = []
    monkeypatch.setattr(inference, "main", seen.append)
    cli.main(["score", *tiny, f"inference.images={dishes / 'test'}"])
    assert seen[0][-1] == f"inference.images={dishes / 'test'}"


def test_every_room_is_packaged():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {f"foodgen.{path.parent.name}" for path in (ROOT / "foodgen").glob("*/__init__.py")}
    assert {*listed} == {"foodgen", "foodgen.configs", "foodgen.checkpoints", *rooms}


@pytest.mark.long
def test_a_wheel_trains_and_samples_in_an_empty_folder(tmp_path, dishes):
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path)]
    source = tmp_path / "source"  # a build leaves files beside its source
    source.mkdir()
    for name in ("foodgen", "configs", "checkpoints", "pyproject.toml", "README.md", "requirements.txt", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(source), *options], check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {"foodgen/configs/small/edm.yaml", "foodgen/checkpoints/gan/model.safetensors"} <= {*names}
    assert not [name for name in names if name.startswith(("tests", "runs", "data", "checkpoints"))]
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments):
        code = "from foodgen.commands.cli import entry; entry()"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=empty, env=environment, timeout=200, check=True
        )

    folders = [f"data.input_train_dir={dishes / 'train'}", f"data.input_val_dir={dishes / 'test'}"]
    shared = ["exp.config_path=small/edm", "dataset={name: folder}", "data.image_size=16", "exp.device=cpu", *folders]
    run("train", *shared, "train.steps=1", "data.train_batch_size=8", "train.grid_count=8")
    run(
        "sample",
        *shared,
        "train.checkpoint_path=latest",
        "inference.count=8",
        "inference.metrics=[]",
        "sampler.steps=2",
    )
    assert last(empty, "small_edm").name == "step-00000001"
    assert len([*(empty / "runs" / "small_edm" / "images").glob("*/*.png")]) == 8
    shipped = ["exp.config_path=checkpoints/diffusion/inference.yaml", "inference.metrics=[]"]
    run("sample", *shipped, "inference.classes=[pizza]", "inference.count=2")
    assert len([*(empty / "runs" / "shipped_diffusion" / "images").glob("pizza/*.png")]) == 2


@pytest.mark.parametrize(("name", "steps"), [("small/edm", 100000), ("small/projected_gan_slim", 7200)])
def test_a_dry_run_says_what_a_training_costs_and_leaves_nothing(name, steps, tmp_path, monkeypatch, capsys, dishes):
    monkeypatch.chdir(tmp_path)
    options = ["exp.device=cpu", "exp.dry_run=true", "data.train_batch_size=4", "train.precision=fp32"]
    assert cli.main(["train", f"exp.config_path={name}", *options]) == 0
    found = capsys.readouterr().out
    for line in (f"  steps: {steps}", "weights: model ", "multiply-adds: 0.", "speed: ", "memory: ", "disk: "):
        assert f"\n{line}" in found, line
    assert ("discriminator" in found.split("\nweights:")[1].splitlines()[0]) == ("gan" in name)
    assert not list(tmp_path.iterdir())
    shutil.copytree(dishes / "train", tmp_path / "train")
    own = [f"data.input_train_dir={tmp_path / 'train'}", "dataset={name: packed}", "exp.dry_run=true"]
    assert train.main([f"exp.config_path={TINY}", *own]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    with pytest.raises(UserError, match="there is no such folder"):
        train.main([f"exp.config_path={TINY}", "exp.dry_run=true", "data.input_train_dir=nowhere"])


def test_a_checkpoint_is_as_large_as_a_dry_run_says(tiny, tmp_path):
    train.main(tiny)
    loaded = config.load(tiny, Config)
    made = make_model(loaded, [str(number) for number in range(8)], torch.device("cpu"))
    expected = checkpoint_bytes(make_trainer(loaded, made, batches=None))
    found = sum(path.stat().st_size for path in last(tmp_path).iterdir())
    assert expected == pytest.approx(found, rel=0.25)


def test_a_disk_that_is_too_small_is_said_at_once(tiny, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("foodgen.builders.training.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"exp\.exp_dir: .* needs about \d+ MB for checkpoints, 0 MB are free"):
        train.main(tiny)
    assert not (tmp_path / "runs" / "tiny").exists()
