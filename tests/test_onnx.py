"""ONNX files give torch's images, for any number of them."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

import export
import train
from foodgen.builders.onnx import as_function
from foodgen.core.errors import CheckpointError, ConfigError
from tests.conftest import ROOT
from tests.runs import run_of

pytestmark = pytest.mark.long


def exported(folder, arguments, *more):
    export.main([*arguments, "train.checkpoint_path=latest", "export.format=onnx", *more])
    return json.loads((folder / "onnx" / "model.json").read_text())


def test_a_denoiser_is_sampled_from_with_numpy_alone(tiny, tmp_path):
    train.main(tiny)
    about = exported(run_of(tmp_path), tiny)
    session = onnxruntime.InferenceSession(run_of(tmp_path) / "onnx" / "model.onnx")
    sigma, alpha, t = (np.array(about["steps"][key], np.float32) for key in ("sigma", "alpha", "t"))
    assert about["sampler"]["name"] == "euler" and set(alpha) == {1.0}
    import foodgen
    from foodgen.core.randomness import Noise

    pipeline = foodgen.load(run_of(tmp_path) / "checkpoints" / "step-00000012", device="cpu")
    noise = Noise(7, range(5), pipeline.model.noise_shape)().numpy()
    labels = np.arange(5)
    x = sigma[0] * noise
    for index in range(len(t) - 1):
        time = np.full(5, t[index])

        def look(labels, x=x, time=time):
            return session.run(None, {"x": x, "t": time, "labels": labels})[0]

        denoised = look(labels)
        scale = pipeline.settings["guidance"]
        free = look(np.full(5, len(about["classes"])))
        denoised = free + scale * (denoised - free)
        x = denoised + sigma[index + 1] / sigma[index] * (x - denoised)
    images = ((x + 1) * 127.5).round().clip(0, 255)
    expected = pipeline.sample_tensor(pipeline.classes[:5], seed=7).float()
    assert (torch.from_numpy(images) - expected).abs().max() <= 1
    with pytest.raises(CheckpointError, match="onnx: exists already"):
        exported(run_of(tmp_path), tiny)


def test_a_generator(small, tmp_path):
    arguments = [*small("small/dcgan"), "train.steps=2", "exp.use_wandb=false", "train.val_count=0"]
    train.main(arguments)
    about = exported(run_of(tmp_path), arguments)
    assert about["difference from torch"]["model"] < 1e-4
    with pytest.raises(ConfigError, match="what is shared is safetensors"):
        exported(run_of(tmp_path), arguments, "export.target=hub:me/gan")
    assert about["inputs"]["model"]["labels"] == ["batch"] and "steps" not in about


def test_models_without_an_onnx_form_are_named():
    with pytest.raises(ConfigError, match="Linear has no ONNX form"):
        as_function(torch.nn.Linear(2, 2), 4)


def test_the_shipped_cascade_has_a_decoder(tmp_path):
    arguments = [f"exp.config_path={ROOT}/checkpoints/diffusion/inference.yaml", "export.format=onnx"]
    export.main([*arguments, f"export.output_dir={tmp_path / 'onnx'}"])
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {"model.onnx", "decoder.onnx", "model.json"}
