"""Earlier names of keys, values and weights are read as the present ones."""

import dataclasses
import inspect
import logging

import pytest
import torch

from foodgen.core import aliases
from foodgen.core.config import load
from foodgen.core.registry import REGISTRY_OF_KEY, import_parts, samplers
from foodgen.core.settings import Config, Prepare
from tests.conftest import ROOT

SECTIONS = [field for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)]
OLD = """
extends: {base}
train: {{accumulate: 2, clip: 1.0}}
objective:
  name: adversarial
  discriminator_turns: 2
  disturbance: {{name: adaptive, changes: [scale]}}
  penalties: {{r1: {{name: r1, weight: 1.0, every: 4}}}}
  model: {{name: stylegan2, noise_width: 8, style_width: 9, base: 64, widest: 10}}
sampler: {{name: ancestral, clip: 1.0}}
inference: {{floor_draws: 1, exhibits: [interpolation]}}
"""


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(aliases, "_warned", set())


def old_file(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(OLD.format(base=ROOT / "configs" / "base.yaml"))
    return path


def test_a_file_with_earlier_names_is_read_and_each_is_named_once(tmp_path, caplog):
    config = load([f"exp.config_path={old_file(tmp_path)}", "objective.penalties.r1.every=8"], Config)
    assert (config.train.grad_accumulation, config.train.grad_clip) == (2, 1.0)
    assert config.objective["discriminator_steps"] == 2
    assert config.objective["augmentation"] == {"name": "ada", "transforms": ["scale"]}
    assert config.objective["penalties"]["r1"]["interval"] == 8  # the command line wins, under either name
    assert config.objective["model"] == {
        "name": "stylegan2",
        **{"z_dim": 8, "w_dim": 9, "channel_base": 64, "channel_max": 10},
    }
    assert config.sampler["clip_denoised"] == 1.0
    assert (config.inference.baseline_draws, config.inference.visualisations) == (1, ["interpolation"])
    assert caplog.text.count("objective.penalties.r1.every is called objective.penalties.r1.interval now") == 1


def test_present_names_are_left_alone(caplog):
    tree = {"train": {"grad_clip": 1.0}, "codec": {"name": "rgb", "level": 3}, "objective": {"name": "denoising"}}
    assert aliases.read_keys(tree) == tree
    assert not caplog.records


def test_of_both_names_the_present_one_counts(caplog):
    with caplog.at_level(logging.WARNING):
        assert aliases.read_keys({"train": {"clip": 1.0, "grad_clip": 2.0}}) == {"train": {"grad_clip": 2.0}}


def test_values_are_renamed_under_their_key_alone():
    tree = {"objective": {"process": {"predicts": "noise"}, "other": "noise"}}
    assert aliases.read_keys(tree) == {"objective": {"process": {"prediction": "eps"}, "other": "noise"}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kept.path_length.mean", "penalty_modules.path_length.mean"),
        ("disturbance.signs", "augmentation.sign_sum"),
        ("disturbance.probability", "augmentation.probability"),
        ("importance.losses", "resampler.losses"),
        ("model.latent_deviation", "model.latent_std"),
        ("latent_deviation", "latent_std"),
        ("model.network.down.0.told.weight", "model.network.down.0.embed.weight"),
        ("discriminator.heads.0.last.weight", "discriminator.heads.0.last.weight"),
    ],
)
def test_weights_are_renamed(old, new):
    tensor = torch.zeros(2)
    assert aliases.read_weights({old: tensor}) == {new: tensor}


def test_a_folder_under_its_earlier_name_is_found(tmp_path, caplog):
    (tmp_path / "held_out").mkdir()
    assert aliases.read_folder(tmp_path / "val") == tmp_path / "held_out"
    assert "held_out is called" in caplog.text
    (tmp_path / "val").mkdir()
    assert aliases.read_folder(tmp_path / "val") == tmp_path / "val"
    assert aliases.read_folder(tmp_path / "nowhere") == tmp_path / "nowhere"


def test_a_key_of_no_section_is_renamed():
    assert aliases.read_keys({"held_out_per_class": 3, "exp": {"config_path": "a"}}) == {
        "val_per_class": 3,
        "exp": {"config_path": "a"},
    }


def test_every_alias_points_at_a_key_that_there_is():
    import_parts()
    within = ("objective", "model", "process", "loss", "penalties", "augmentation")
    parts = {"objective": [REGISTRY_OF_KEY[key] for key in within], "sampler": [samplers]}
    arguments = {
        section: {name for kind in kinds for cls in kind.values() for name in inspect.signature(cls).parameters}
        for section, kinds in parts.items()
    }
    fields = {section.name: {field.name for field in dataclasses.fields(section.type)} for section in SECTIONS}
    known = {"": {field.name for field in dataclasses.fields(Prepare)}} | fields | arguments
    for section, keys in aliases.KEYS.items():
        assert set(keys.values()) <= known[section], section
        assert not set(keys) & known[section], section  # an earlier name that is in use again would be renamed
