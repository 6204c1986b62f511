"""One Python file and one YAML add a part: nothing else knows of it."""

import shutil

import pytest

from foodgen.core.files import read_jsonl
from tests.conftest import ROOT

NETWORK = '''
"""A network of one convolution, as somebody would add it."""
from torch import nn
from foodgen.core.registry import models
from foodgen.layers.conditioning import LabelEmbedding

@models.add_to_registry(name="lonely")
class Lonely(nn.Module):
    def __init__(self, channels: int, classes: int, reach: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, reach, padding=reach // 2)
        self.label = LabelEmbedding(classes, channels)

    def forward(self, x, time, labels=None):
        return self.convolution(x) + self.label(labels, len(x))[:, :, None, None]
'''
EXPERIMENT = """
extends: tests/tiny.yaml
exp: {run: lonely}
objective: {model: {network: {name: lonely, reach: 5}}}
"""


@pytest.mark.long
def test_one_file_and_one_yaml(tmp_path, dishes, script):
    place = tmp_path / "foodgen"
    for name in ("foodgen", "configs", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "inference.py"):
        shutil.copy(ROOT / name, place)
    (place / "foodgen" / "models" / "lonely.py").write_text(NETWORK)
    (place / "lonely.yaml").write_text(EXPERIMENT)
    options = [f"exp.config_path={place / 'lonely.yaml'}", f"exp.exp_dir={tmp_path / 'runs'}"]
    options += [f"data.input_train_dir={dishes / 'train'}", f"data.input_val_dir={dishes / 'test'}"]
    script(place / "train.py", *options, check=True)
    assert read_jsonl(tmp_path / "runs" / "lonely" / "metrics.jsonl")[-1]["step"] == 12
    script(place / "inference.py", *options, "train.checkpoint_path=latest", check=True)
