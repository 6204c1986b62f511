"""Keys and weights under their earlier names: read for one release, with a warning."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger("foodgen")

# section of a configuration -> earlier key -> key, at any depth within the section
KEYS: dict[str, dict[str, str]] = {
    "": {"held_out_per_class": "val_per_class"},  # of no section
    "train": {"accumulate": "grad_accumulation", "clip": "grad_clip"},
    "objective": {
        "disturbance": "augmentation",
        "discriminator_turns": "discriminator_steps",
        "every": "interval",
        "part": "batch_fraction",
        "changes": "transforms",
        "noise_width": "z_dim",
        "style_width": "w_dim",
        "base": "channel_base",
        "widest": "channel_max",
        "label_drop": "class_dropout",
        "importance": "importance_sampling",
        "bound_weight": "vlb_weight",
        "level": "layer",
        "predicts": "prediction",
        "length": "num_timesteps",
        "data_deviation": "sigma_data",
        "log_mean": "p_mean",
        "log_deviation": "p_std",
        "smallest": "sigma_min",
        "largest": "sigma_max",
        "logit_deviation": "logit_std",
        "adversary_weight": "adversarial_weight",
        "adversary_from": "discriminator_start",
    },
    "sampler": {
        "clip": "clip_denoised",
        "churn": "s_churn",
        "lowest": "s_min",
        "highest": "s_max",
        "noise": "s_noise",
    },
    "inference": {"floor_draws": "baseline_draws", "exhibits": "visualisations"},
}
# key -> earlier value, or earlier name of the part that stands there -> present one
VALUES: dict[str, dict[str, str]] = {
    "augmentation": {"adaptive": "ada"},
    "prediction": {"noise": "eps", "clean": "x0"},
}
# name of a folder of photos -> its earlier name
FOLDERS: dict[str, str] = {"val": "held_out"}
# pattern in a weight's earlier name -> what it is replaced by
WEIGHTS: dict[str, str] = {
    r"^kept\.": "penalty_modules.",
    r"^disturbance\.signs$": "augmentation.sign_sum",
    r"^disturbance\.seen$": "augmentation.batches",
    r"^disturbance\.": "augmentation.",
    r"^importance\.": "resampler.",
    r"\blatent_deviation$": "latent_std",
    r"\btold\.weight$": "embed.weight",  # EDM2
    r"\bwaves\.": "fourier.",
}


def read_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's tree with every earlier key and name replaced. Warns once for each of them."""
    found = {}
    for old, value in tree.items():
        section = KEYS[""].get(old, old)
        if section != old:
            _warn(old, section)
        found[section] = _read(section, value, section, KEYS.get(section, {}))
    return found


def _read(key: str, node: Any, path: str, keys: Mapping[str, str]) -> Any:
    values = VALUES.get(key, {})
    if not isinstance(node, Mapping):
        if isinstance(node, str) and node in values:
            _warn(f"{path}={node}", f"{path}={values[node]}")
            return values[node]
        return node
    found: dict[str, Any] = {}
    for old, value in node.items():
        new = keys.get(old, old)
        if new != old:
            _warn(f"{path}.{old}", f"{path}.{new}")
            if new in node:  # given under both names: the present one counts
                continue
        if old == "name" and isinstance(value, str) and value in values:
            _warn(f"{path}.name={value}", f"{path}.name={values[value]}")
            value = values[value]
        found[new] = _read(new, value, f"{path}.{new}", keys)
    return found


def read_folder(folder: Path) -> Path:
    """A folder of photos, or the one that stands where it stood under its earlier name. Warns of the latter."""
    earlier = folder.with_name(FOLDERS.get(folder.name, folder.name))
    if folder.exists() or not earlier.is_dir():
        return folder
    _warn(str(earlier), str(folder))
    return earlier


def read_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a checkpoint under their present names."""
    return {_weight(name): tensor for name, tensor in weights.items()}


def _weight(name: str) -> str:
    for pattern, new in WEIGHTS.items():
        changed = re.sub(pattern, new, name)
        if changed != name:
            return changed
    return name


_warned: set[str] = set()


def _warn(old: str, new: str) -> None:
    if old not in _warned:
        _warned.add(old)
        log.warning("%s is called %s now; the earlier name is read for one release", old, new)
