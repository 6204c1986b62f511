"""What tests ask of a run: its newest checkpoint, hashes, pictures; and a quick stand-in for Inception."""

import hashlib
import json
from pathlib import Path

import torch

from foodgen.core.registry import import_parts, spaces
from foodgen.core.types import FeatureSpace
from foodgen.training.checkpoint import Checkpoints


def digest(folder):
    """Hashes of a checkpoint's weights and averages."""
    return [
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("weights.safetensors", "ema.safetensors")
    ]


def arguments_of(folder, dishes):
    """Of the tiny run, in a folder, on these images."""
    data = [f"data.input_train_dir={dishes / 'train'}", f"data.input_val_dir={dishes / 'test'}"]
    return [f"exp.config_path={Path(__file__).with_name('tiny.yaml')}", f"exp.exp_dir={folder / 'runs'}", *data]


def run_of(tmp_path, name="tiny"):
    return tmp_path / "runs" / name


def last(tmp_path, name="tiny"):
    return Checkpoints(run_of(tmp_path, name) / "checkpoints", 2).newest()


class Colours(FeatureSpace):
    """A quick stand-in for Inception: mean colours of the quarters of an image."""

    identity, width = "colours", 12

    def __init__(self, device, weights=None):
        pass

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def score_by_colours(monkeypatch):
    """Let the stand-in be what metrics look through."""
    import_parts()  # or Inception would register itself later
    monkeypatch.setitem(spaces, "inception", Colours)


def pixels(path):
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    with Image.open(path) as image:
        return pil_to_tensor(image)


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())
