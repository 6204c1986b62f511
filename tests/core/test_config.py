"""Files, inheritance, overrides, and one clear line for every mistake."""

import pytest
import torch
from omegaconf import OmegaConf

from foodgen.builders import training as builder
from foodgen.core import config
from foodgen.core.errors import ConfigError
from foodgen.core.settings import Config
from foodgen.training.run_folder import run_folder
from tests.conftest import ROOT, TINY


def load(*overrides, path=TINY):
    return config.load([f"exp.config_path={path}", *overrides], Config)


FILES = (ROOT / "configs").rglob("*.yaml")
OTHERS = ("base.yaml", "prepare.yaml", "prepare_ten.yaml", "check.yaml", "serve.yaml")
SHIPPED = [path for path in FILES if path.name not in OTHERS and path.parent.name not in ("report", "benchmarks")]


LARGER = {"ddpm": 36_000_000}  # the paper's own network; all others fit into what is shipped


def path_of(name):
    """The configuration of a run of this name."""
    name = name.replace("small_", "small/")
    return next(path for folder in (".", "cpu") if (path := ROOT / "configs" / folder / f"{name}.yaml").is_file())


def from_its_configuration(path, classes, device):
    """The model that would be trained first, its weights drawn."""
    trained = load(path=path_of(path.replace("runs/", "")))
    return builder.make_model(trained, classes, device, model_only=True).model


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_file_makes_a_model(path, monkeypatch):
    monkeypatch.setattr("foodgen.builders.models.load_pretrained", from_its_configuration)
    loaded = load(path=path)
    if path.parent.name == "inference":
        trained = load(path=path_of(path.stem))
        assert loaded.objective == trained.objective
        assert run_folder(loaded) == run_folder(trained)  # the run that training writes
        assert loaded.data.input_val_dir.endswith("test")
    model = builder.make_model(loaded, ["a", "b"], torch.device("meta"))
    count = sum(weight.numel() for weight in model.objective.model.parameters())
    assert count < LARGER.get(path.stem, 31_500_000)


def test_the_command_line_wins():
    loaded = load("train.steps=1e3", "exp.run=007", "sampler.steps=5")
    assert loaded.train.steps == 1000
    assert loaded.exp.run == "7"
    assert loaded.sampler == {"name": "euler", "steps": 5}


def test_another_name_replaces_a_part_and_the_same_refines_it():
    assert load("sampler.name=heun").sampler == {"name": "heun"}
    assert load("ema.decay=0.5").ema == {"name": "exponential", "decay": 0.5}


def test_what_is_written_is_read_back(tmp_path):
    loaded = load("train.grad_clip=0.5")
    (tmp_path / "again.yaml").write_text(config.to_yaml(loaded))
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "again.yaml")) == config.to_tree(loaded)
    assert load(path=tmp_path / "again.yaml").train == loaded.train


def test_interpolation_sees_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"extends: {TINY}\ntrain: {{log_step: '${{train.keep_checkpoints}}'}}\n")
    assert load(path=path).train.log_step == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=5", r"train\.stepz: unknown key; did you mean 'steps'"),
        ("trian.steps=5", r"trian: unknown key; did you mean 'train'"),
        ("train.steps=abc", r"train\.steps: .*'abc'"),
        ("train.steps=2.5", r"train\.steps: .*2\.5"),
        ("train.steps=true", r"train\.steps: .*number"),
        ("train.steps=null", r"train\.steps: "),
        ("train.grad_clip=nan", r"train\.grad_clip: .*finite"),
        ("train.grad_clip=-1", r"train\.grad_clip: .*greater than 0"),
        ("data.train_batch_size=-4", r"data\.train_batch_size: .*-4"),
        ("train.keep_checkpoints=1", r"train\.keep_checkpoints: .*2"),
        ("train.precision=fp8", r"train\.precision: .*bf16"),
        ("train.steps", r"'train\.steps': arguments are written key=value"),
        ("train={steps: [}", r"train"),
        ("exp.config_path=nowhere.yaml", r"exp\.config_path: nowhere\.yaml is not a file"),
        ("exp.run=${no.such}", r"interpolation: .*no"),
    ],
)
def test_mistakes(override, message):
    with pytest.raises(ConfigError, match=message):
        load(override)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        load("train.stepz=5", "data.train_batch_size=-4", "exp.seed=x")
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 1, steps: 2}", "duplicate"),
        ("train: [", "c.yaml"),
        ("- 1", "a mapping"),
        ("x: !!python/object/apply:os.system ['true']", "c.yaml"),
        ("extends: c.yaml", "deep"),
        ("extends: missing.yaml", "is not a file"),
    ],
)
def test_broken_files(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(path=path)


def test_difference():
    lines = config.difference({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4})
    assert lines == ["a.c: 2 -> 5", "d: 3 -> None", "e: None -> 4"]
