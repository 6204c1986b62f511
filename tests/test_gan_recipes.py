"""Every GAN's small recipe trains through the one loop, resumes to the bit, and draws."""

import sys

import pytest
import torch
from safetensors.torch import load_file

import export
import inference
import train
from foodgen.builders import training as builder
from foodgen.core import config
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.core.files import read_jsonl
from foodgen.core.settings import Config
from foodgen.training.checkpoint import read
from tests.conftest import ROOT
from tests.runs import digest, last, run_of, score_by_colours
from tests.test_recipes import stop_at

NAMES = ["dcgan", "sngan", "sagan", "stylegan2", "stylegan", "r3gan", "projected_gan", "projected_gan_slim"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.long
def test_trains_resumes_to_the_bit_and_samples(name, small, tmp_path, monkeypatch):
    assert train.main(small(f"small/{name}", "exp.run=whole", "train.val_step=100")) == 0
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        train.main(small(f"small/{name}", "exp.run=parts"))
    train.main(small(f"small/{name}", "exp.run=parts", "train.checkpoint_path=latest"))
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))
    rows = [read_jsonl(run_of(tmp_path, run) / "metrics.jsonl") for run in ("whole", "parts")]
    timing = ("minutes", "images_per_second")
    assert [{k: v for k, v in row.items() if k not in timing} for row in rows[0]] == [
        {k: v for k, v in row.items() if k not in timing} for row in rows[1]
    ]
    expected = ["discriminator/real_logit", "discriminator/fake_logit", "discriminator/loss", "model/loss"]
    expected += [
        "model/gradient_norm",
        "discriminator/gradient_norm",
        "discriminator/augment_probability",
        "model/fake_std",
    ]
    assert set(expected) <= rows[0][-1].keys()
    drawn = small(
        f"small/{name}", "exp.run=parts", "train.checkpoint_path=latest", "inference.count=4", "inference.metrics=[]"
    )
    inference.main([*drawn, f"exp.config_path={ROOT / 'configs' / 'inference' / f'{name}.yaml'}", "exp.run=parts"])
    assert len(list((run_of(tmp_path, "parts") / "images").glob("*/*.png"))) == 4


def small_config(name):
    return config.load([f"exp.config_path={ROOT / 'configs' / 'small' / f'{name}.yaml'}"], Config)


@pytest.mark.parametrize("name", NAMES)
def test_the_small_recipe_is_the_papers_but_for_its_size(name):
    def shape(part):
        """Names of all parts within a part."""
        if not isinstance(part, dict):
            return None
        kept = {key: shape(value) for key, value in part.items() if isinstance(value, dict)}
        return {"name": part.get("name"), **{key: value for key, value in kept.items() if key != "augmentation"}}

    full = config.load([f"exp.config_path={ROOT / 'configs' / f'{name}.yaml'}"], Config)
    assert shape(small_config(name).objective) == shape(full.objective)
    assert small_config(name).dataset == {"name": "synthetic", "root": "data/synthetic_32"}


@pytest.mark.long
def test_what_adaptive_augmentation_and_path_length_remember_is_resumed(small, tmp_path, monkeypatch):
    options = [
        "objective.augmentation={name: ada, interval: 2, ramp: 50, target: -1.0}",
        "objective.penalties.path_length.interval=1",
    ]
    train.main(small("small/stylegan2", "exp.run=whole", *options))
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        train.main(small("small/stylegan2", "exp.run=parts", *options))
    train.main(small("small/stylegan2", "exp.run=parts", "train.checkpoint_path=latest", *options))
    assert digest(last(tmp_path, "parts")) == digest(last(tmp_path, "whole"))
    weights = read(last(tmp_path, "parts")).weights
    assert weights["augmentation.probability"] > 0
    assert weights["penalty_modules.path_length.mean"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["dcgan", "stylegan2"])
def test_compiled_players_train_the_same(name, small, tmp_path, monkeypatch):
    compiled = []
    original = torch.nn.Module.compile

    def compile_quickly(self, *_, **__):
        compiled.append(type(self).__name__)
        original(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    options = ["train.steps=3", "objective.augmentation={name: none}"]
    if name == "stylegan2":  # both second derivatives
        options += ["objective.penalties.r1.interval=2", "objective.penalties.path_length.interval=2"]
    train.main(small(f"small/{name}", "exp.run=fast", "train.compile=true", *options))
    assert len(compiled) == 2
    train.main(small(f"small/{name}", "exp.run=plain", *options))
    rows = [read_jsonl(run_of(tmp_path, run) / "metrics.jsonl") for run in ("fast", "plain")]
    for fast, plain in zip(*rows, strict=True):
        assert fast.keys() - {"images_per_second"} == plain.keys() - {"images_per_second"}
        assert fast["discriminator/loss"] == pytest.approx(plain["discriminator/loss"], rel=2e-2)
        assert fast["model/loss"] == pytest.approx(plain["model/loss"], rel=2e-2, abs=2e-2)


@pytest.mark.long
def test_validation_scores_a_gan_and_warns_of_its_collapse(small, tmp_path, monkeypatch, caplog):
    score_by_colours(monkeypatch)
    options = ["train.val_count=16", "train.val_metrics=[fid]", "train.grid_count=16", "sampler.truncation=0.0"]
    train.main(small("small/stylegan2", *options))
    row = next(row for row in read_jsonl(run_of(tmp_path) / "metrics.jsonl") if "val/fid" in row)
    assert row["val/feature_diversity"] < 0.05  # all the style is truncated away
    assert "collapse: the pixels of 8 of 8 classes" in caplog.text
    assert "collapse: the features of 8 of 8 classes" in caplog.text


def test_a_gan_is_not_walked(small):
    with pytest.raises(ConfigError, match=r"sampler\.name: Heun samples from a denoiser; for DCGAN use one_shot"):
        train.main(small("small/dcgan", "sampler={name: heun}"))


def test_a_missing_optimizer_is_named(small, tmp_path):
    full = (ROOT / "configs" / "dcgan.yaml").read_text().replace("base.yaml", f"{ROOT}/configs/base.yaml")
    path = tmp_path / "one.yaml"
    path.write_text(
        "\n".join(line for line in full.splitlines() if not line.startswith("  discriminator: {name: adamw"))
    )
    with pytest.raises(ConfigError, match=r"optimizers\.discriminator: is missing"):
        train.main(small("small/dcgan", f"exp.config_path={path}", "data.image_size=32", "sampler={name: one_shot}"))


def test_drawing_wants_nothing_of_what_a_model_is_trained_against(small, tmp_path, monkeypatch):
    stop_at(1, monkeypatch)
    train.main(small("small/projected_gan"))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    inference.main(
        small("small/projected_gan", "train.checkpoint_path=latest", "inference.count=8", "inference.metrics=[]")
    )
    assert len(list((run_of(tmp_path) / "images").glob("*/*.png"))) == 8


def test_a_denoiser_is_not_drawn_in_one_shot(tiny):
    with pytest.raises(ConfigError, match=r"sampler\.name: one_shot .*; PreconditionedDenoiser is none"):
        train.main([*tiny, "sampler={name: one_shot}"])


def test_a_checkpoint_of_the_other_family_is_refused(small, tiny, tmp_path):
    train.main([*tiny, "train.steps=2"])
    with pytest.raises(CheckpointError, match="does not fit the configuration"):
        train.main(small("small/dcgan", f"train.checkpoint_path={last(tmp_path)}", "exp.run=other"))


@pytest.mark.parametrize("name", ["dcgan"])
def test_a_penalty_can_be_added_and_left_out_on_the_command_line(name, small, tmp_path, monkeypatch):
    stop_at(1, monkeypatch)
    train.main(small(f"small/{name}", "objective.penalties.r1={name: r1, weight: 0.1}"))
    assert "discriminator/r1" in read_jsonl(run_of(tmp_path) / "metrics.jsonl")[0]


@pytest.mark.long
def test_training_goes_on_elsewhere_from_an_export_with_partners(small, tmp_path):
    """From the exported folder alone: the same model and discriminator, frozen features from their package."""
    moments = (
        "objective.penalties={moments: {name: feature_moments, features: {name: efficientnet_lite, resolution: 64}}}"
    )
    options = ["train.val_step=100", "ema.decay=0.5", moments]
    train.main(small("small/projected_gan_slim", "exp.run=first", *options))
    source = last(tmp_path, "first")
    exported = small(
        "small/projected_gan_slim", "exp.run=first", "train.checkpoint_path=latest", "export.partners=true"
    )
    export.main([*exported, f"export.output_dir={tmp_path / 'folder'}"])
    partners = load_file(tmp_path / "folder" / "partners.safetensors")
    weights = read(source).weights
    expected = {name for name in weights if not name.startswith("model.") and ".features." not in name}
    assert partners.keys() == expected
    assert sum(tensor.numel() for tensor in partners.values()) < sum(tensor.numel() for tensor in weights.values()) / 2
    goes_on = ["exp.run=second", f"train.initial_weights={tmp_path / 'folder'}", "train.steps=1", *options]
    (tmp_path / "runs" / "second").mkdir(parents=True, exist_ok=True)
    started = builder.make_session(config.load(small("small/projected_gan_slim", *goes_on), Config))
    state = started.trainer.objective.state_dict()
    for name, tensor in weights.items():
        if not name.startswith("model."):
            assert torch.equal(state[name].cpu(), tensor), name
    for name, tensor in read(source).average.items():
        torch.testing.assert_close(started.trainer.ema.model.state_dict()[name], tensor, rtol=2**-8, atol=1e-6)
    from_run = [*goes_on, f"train.initial_weights={run_of(tmp_path, 'first')}"]
    started = builder.make_session(config.load(small("small/projected_gan_slim", *from_run), Config))
    for name, tensor in read(source).average.items():
        torch.testing.assert_close(started.trainer.ema.model.state_dict()[name], tensor)
    state = started.trainer.objective.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in partners)
    others = [option for option in goes_on if option != moments] + ["objective.augmentation={name: diff_augment}"]
    started = builder.make_session(config.load(small("small/projected_gan_slim", *others), Config))
    state = started.trainer.objective.state_dict()
    assert all(torch.equal(state[name], partners[name]) for name in partners if name.startswith("discriminator."))
    wrong = [*goes_on, "objective.discriminator.width=16"]
    with pytest.raises(CheckpointError, match=r"folder does not fit the configuration.*discriminator"):
        builder.make_session(config.load(small("small/projected_gan_slim", *wrong), Config))
