"""Models on a hub: uploaded with a card, loaded by name, checked; and models that come with the package."""

import json
import subprocess
import sys

import pytest
import torch

import foodgen
from foodgen.core.errors import CheckpointError
from foodgen.core.locations import BUNDLED, locate
from foodgen.training.checkpoint import Checkpoints
from foodgen.training.manifest import fingerprint
from tests.conftest import ROOT
from tests.data.test_checking import parquet_file
from tests.hub import Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    environment = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "hf")}
    for name, value in {**environment, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()


def call(*arguments):
    """A script in a process of its own: huggingface_hub reads its environment once."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)


SAMPLE = """
import sys, torch, foodgen
pipeline = foodgen.load(sys.argv[1], device="cpu")
torch.save(pipeline.sample_tensor(pipeline.classes[:2], seed=3, count=4), sys.argv[2])
"""


@pytest.mark.long
def test_a_shipped_model_goes_to_the_hub_and_comes_back(hub, tmp_path):
    shipped = "checkpoints/diffusion"
    exported = call("export.py", f"exp.config_path={shipped}/inference.yaml", "export.target=hub:me/food")
    assert exported.returncode == 0, exported.stderr
    assert exported.stdout.strip().endswith(f"{hub.url}/me/food")
    card = hub.files["me/food", "README.md"].decode()
    assert card.startswith("---\nlibrary_name: foodgen\nlicense: mit\n")
    assert "FID" in card and ("me/food", "grid.png") in hub.files
    fetched = call("-c", SAMPLE, "hub:me/food", str(tmp_path / "images.pt"))
    assert fetched.returncode == 0, fetched.stderr
    own = foodgen.load(shipped, device="cpu")
    assert torch.equal(torch.load(tmp_path / "images.pt"), own.sample_tensor(own.classes[:2], seed=3, count=4))
    # what was changed on its way is refused
    hub.files["me/food", "model.safetensors"] = hub.files["me/food", "model.safetensors"][:-1] + b"\0"
    for folder in (tmp_path / "hf").rglob("me--food"):
        folder.rename(tmp_path / "elsewhere")
    spoilt = call("-c", SAMPLE, "hub:me/food", str(tmp_path / "images.pt"))
    assert "model.safetensors: differs from its manifest" in spoilt.stderr


@pytest.mark.long
def test_a_run_is_exported_with_a_card_of_its_own(hub, tiny, script, tmp_path):
    script("train.py", *tiny, check=True)
    run = tmp_path / "runs" / "tiny"
    weights = fingerprint(Checkpoints(run / "checkpoints", 3).newest())
    scores = {"fid": 40.25, "fid_real": 23.0, "weights": weights, "ema_length": None}
    (run / "metrics.json").write_text(json.dumps(scores))
    arguments = ["export.py", *tiny, "train.checkpoint_path=latest", "export.target=hub:me/tiny"]
    script(*arguments, check=True)
    card = hub.files["me/tiny", "README.md"].decode()
    assert "Generates 16x16 images of 8 classes" in card and "| fid | 40.25 |" in card
    assert {path for _, path in hub.files} >= {"model.safetensors", "config.yaml", "inference.yaml", "MANIFEST.json"}
    (run / "metrics.json").write_text(json.dumps(scores | {"weights": "of an earlier step"}))
    script(*arguments, f"export.output_dir={tmp_path / 'later'}", check=True)
    assert "It has not been scored" in hub.files["me/tiny", "README.md"].decode()
    again = script(*arguments)
    assert again.returncode == 2 and "export: exists already" in again.stderr


@pytest.mark.long
def test_what_the_hub_does_not_have_is_one_line(hub, tiny, script):
    found = script("inference.py", *tiny, "train.checkpoint_path=hub:me/nothing")
    assert found.returncode == 2
    assert found.stderr.count("error:") == 1 and "hub:me/nothing: cannot be downloaded" in found.stderr
    found = script("export.py", *tiny, "train.checkpoint_path=latest", "export.target=me/tiny")
    assert "export.target: me/tiny is not hub:OWNER/NAME" in found.stderr


def test_bundled_models_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate("checkpoints/gan") == BUNDLED / "checkpoints" / "gan"
    assert len(foodgen.load("checkpoints/gan", device="cpu").sample(["pizza"])) == 1
    with pytest.raises(CheckpointError, match="nothing"):
        foodgen.load("nothing")
    (tmp_path / "checkpoints" / "gan").mkdir(parents=True)
    assert not locate("checkpoints/gan").is_absolute()  # the user's own comes first


@pytest.mark.long
def test_a_data_set_of_the_hub_is_prepared(hub, tmp_path):
    parquet_file(tmp_path / "train-00000-of-00001.parquet", [0, 1] * 5, ["cake", "soup"])
    hub.files["datasets/me/dishes", "data/train-00000-of-00001.parquet"] = (
        tmp_path / "train-00000-of-00001.parquet"
    ).read_bytes()
    hub.files["datasets/me/dishes", "README.md"] = b"not asked for"
    options = ["exp.config_path=configs/prepare.yaml", "image_size=16", "smallest=8"]
    options += ["val_per_class=1", "test_per_class=1"]
    made = call("prepare_data.py", *options, "source=hub:me/dishes", f"target={tmp_path / 'dishes'}")
    assert made.returncode == 0, made.stderr
    assert sorted(path.name for path in (tmp_path / "dishes" / "train").iterdir()) == ["cake", "soup"]
    assert len(list((tmp_path / "dishes").rglob("*.jpg"))) + len(list((tmp_path / "dishes").rglob("*.png"))) == 10
    assert not any("README" in line for line in hub.asked)
    missing = call("prepare_data.py", *options, "source=hub:me/nothing", f"target={tmp_path / 'other'}")
    assert missing.returncode == 2 and "source: hub:me/nothing cannot be downloaded" in missing.stderr
    assert not (tmp_path / "other").exists()
