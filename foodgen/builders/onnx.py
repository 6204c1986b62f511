"""Models as ONNX files, compared with torch before anyone relies on them."""

import json
import shutil
import warnings
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.builders.pipeline import Pipeline
from foodgen.core.errors import CheckpointError, ConfigError
from foodgen.core.networks import Autoencoder, Denoiser
from foodgen.core.types import Generator

HINT = "pip install onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0"
BATCH, TOLERANCE = 3, 1e-4  # images of the example; largest difference from torch


class Function(nn.Module):
    """A model as a function of plain tensors.

    names    of its inputs
    example  of them
    """

    names: tuple[str, ...]
    example: tuple[Tensor, ...]

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model, self.labels = model, torch.arange(BATCH) % max(1, classes)

    def normal(self) -> Tensor:
        return torch.randn(BATCH, *self.model.noise_shape, generator=torch.Generator().manual_seed(0))


class Generate(Function):
    """noise, (batch, *noise_shape), and labels, (batch,), to images about [-1, 1]."""

    names = ("noise", "labels")

    def __init__(self, model: Generator, classes: int) -> None:
        super().__init__(model, classes)
        self.example = (self.normal(), self.labels)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        images: Tensor = self.model(noise, labels)
        return images


class Denoise(Function):
    """x_t, t, (batch,), and labels, the number of classes for none, to denoised images."""

    names = ("x", "t", "labels")

    def __init__(self, model: Denoiser, classes: int) -> None:
        super().__init__(model, classes)
        times = model.process.timesteps(10)[[1, 4, 8]].float()
        self.example = (self.normal(), times, self.labels)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        denoised: Tensor = self.model(x, t, labels).denoised
        return denoised


class Decode(Function):
    """Latents, as the denoiser makes them, and labels to images about [-1, 1]."""

    names = ("latents", "labels")

    def __init__(self, model: Autoencoder, classes: int) -> None:
        super().__init__(model, classes)
        self.example = (self.normal(), self.labels)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        return self.model.decode(self.model.denormalise(latents), labels)


@singledispatch
def as_function(model: nn.Module, classes: int) -> Function:
    """The model as a function that ONNX can hold. Raises ConfigError if it is none of those."""
    raise ConfigError(f"export.format: {type(model).__name__} has no ONNX form; generators, denoisers, decoders have")


as_function.register(Generator, Generate)
as_function.register(Denoiser, Denoise)
as_function.register(Autoencoder, Decode)


def export_onnx(pipeline: Pipeline, folder: Path) -> list[Path]:
    """Write <folder>/model.onnx, for a model behind a decoder decoder.onnx too, and model.json; the files.

    model.json holds the classes and, for a denoiser, times, alpha and sigma of the sampler's steps and the guidance.
    Raises UserError if a package is missing, the folder exists, or a file gives other numbers than torch.
    """
    runtime = _packages()
    if folder.exists():
        raise CheckpointError(f"{folder}: exists already; choose another export.output_dir")
    temporary = folder.with_name(f".writing-{folder.name}")  # a file that is refused leaves nothing behind
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write_all(runtime, pipeline, temporary)
        temporary.replace(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: could not be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(folder.iterdir())


def _write_all(runtime: Any, pipeline: Pipeline, folder: Path) -> None:
    pipeline.model.to("cpu")
    networks: dict[str, nn.Module] = {"model": pipeline.model}
    if pipeline.parts.codec.decoder is not None:
        networks["decoder"] = pipeline.parts.codec.decoder
    about: dict[str, Any] = {"classes": pipeline.classes, "inputs": {}, "difference from torch": {}}
    for name, network in networks.items():
        function = as_function(network, len(pipeline.classes)).eval()
        path = folder / f"{name}.onnx"
        _write(function, path)
        inputs = zip(function.names, function.example, strict=True)
        about["inputs"][name] = {key: ["batch", *x.shape[1:]] for key, x in inputs}
        about["difference from torch"][name] = _difference(runtime, function, path)
    about |= sampling_steps(pipeline)
    (folder / "model.json").write_text(json.dumps(about, indent=1))


def sampling_steps(pipeline: Pipeline) -> dict[str, Any]:
    """The sampler and its guidance; with times, alpha and sigma of its steps, if it follows a process."""
    sampler: Any = pipeline.parts.sampling.sampler
    about = {"sampler": pipeline.config.sampler, "guidance": pipeline.config.guidance}
    if not sampler.has_trajectory:
        return about
    process: Any = pipeline.model.process
    t = sampler.times(process, torch.empty(0))
    alpha, sigma = process.alpha(t), process.sigma(t)
    numbers = {"t": t.tolist(), "alpha": alpha.tolist(), "sigma": sigma.tolist()}
    return {"steps": numbers, **about}


def _write(function: Function, path: Path) -> None:
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in function.names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # strict: else len(x) makes the number of images a constant
        program = torch.export.export(function, function.example, dynamic_shapes=shapes, strict=True)
        torch.onnx.export(
            program, (), path, input_names=list(function.names), output_names=["images"],
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip


@torch.no_grad()
def _difference(runtime: Any, function: Function, path: Path) -> float:
    """The largest one from torch, on the example and on a single image. Raises CheckpointError if it is too large."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for example in (function.example, [x[:1] for x in function.example]):
        (found,) = session.run(None, {name: x.numpy() for name, x in zip(function.names, example, strict=True)})
        largest = max(largest, float((torch.from_numpy(found) - function(*example)).abs().max()))
    if largest > TOLERANCE:
        raise CheckpointError(f"{path}: differs from torch by {largest:.1e}, more than {TOLERANCE:.0e}")
    return largest


def _packages() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export.format: onnx wants the package {error.name}: {HINT}") from None
    return onnxruntime
