"""A latent model with another autoencoder than its own, and parts that want one: refused before work."""

import json
import shutil

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
from foodgen.data.codecs import LowResolution
from foodgen.data.latents import Latent, digest_of
from foodgen.training.checkpoint import read_meta
from foodgen.training.manifest import seal_files
from tests.conftest import ROOT
from tests.data.test_latents import Halves
from tests.faults.refusals import refused
from tests.runs import last, run_of
from tests.test_cascade import upsampler

CPU = torch.device("cpu")


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
