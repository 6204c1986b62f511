"""A trained model ready to sample from: what programs, scripts and pages use."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from foodgen.builders.models import Model, make_model, make_sampling, trained_config, with_trained_parts
from foodgen.builders.scoring import make_scorer, metric_specs
from foodgen.core.config import check, defaults, merge, read_file
from foodgen.core.devices import find_device
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.randomness import Noise, seed_of
from foodgen.core.registry import build, guidances, samplers, suggestion
from foodgen.core.settings import Config
from foodgen.evaluation.sampling import Labels, SamplingLoop, balanced_labels, batches_of
from foodgen.evaluation.visualisations import InterpolatedNoise
from foodgen.training.checkpoint import CONFIG, load_weights, read_average, read_meta, read_weights
from foodgen.training.run_folder import checkpoint_in
from foodgen.training.snapshots import average_of

INFERENCE = "inference.yaml"  # beside exported weights: how to sample from them
SECTIONS = {"guidance": guidances, "sampler": samplers}
SETTINGS = {  # of sampling, by the section and key of the configuration
    "guidance": ("guidance", "scale"),
    "interval": ("guidance", "interval"),
    "steps": ("sampler", "steps"),
    "truncation": ("sampler", "truncation"),
}


class Pipeline:
    """A trained model, its sampler, and the images' classes.

    config      the configuration that it was built from
    classes     names, in the order of the labels
    checkpoint  the folder that the weights are from
    """

    def __init__(self, config: Config, checkpoint: Path) -> None:
        """Raises UserError if the checkpoint or the configuration does not fit."""
        meta = read_meta(checkpoint)
        self.config = with_trained_parts(config, checkpoint)
        self.classes: list[str] = list(meta["classes"])
        self.checkpoint, self.meta = checkpoint, meta
        device = find_device(config.exp.device)
        self.parts: Model = make_model(self.config, self.classes, device, model_only=True, checkpoint=checkpoint)
        load_weights(self.parts.model, weights_of(checkpoint, config.inference.ema_length), checkpoint)
        self.parts.model.eval()

    @property
    def model(self) -> nn.Module:
        """The network, or the denoiser around it, in eval mode."""
        return self.parts.model

    @property
    def settings(self) -> dict[str, Any]:
        """The sampler's and guidance's settings that `sample` can change, with their values: see SETTINGS."""
        found = {}
        for name, (kind, key) in SETTINGS.items():
            part = getattr(self.config, kind)
            accepted = inspect.signature(SECTIONS[kind][str(part["name"])]).parameters
            if key in accepted:
                found[name] = part.get(key, accepted[key].default)
        return found

    def sample(
        self, classes: Sequence[str] | None = None, seed: int = 0, count: int | None = None, **settings: Any
    ) -> list[Image.Image]:
        """Generate images, in the order of their classes' labels; the same ones for the same arguments.

        classes   names; all classes if not given
        seed      of the noise
        count     number of images, evenly distributed over the classes; one of each if not given
        settings  guidance (scale), interval (of noise levels that are guided), steps, truncation, of those that this
                  model has; the configuration's if not given

        Raises ConfigError for a class that there is not, or an argument that this model does not have.
        """
        return to_pil(self.sample_tensor(classes, seed, count, **settings))

    def sample_tensor(
        self, classes: Sequence[str] | None = None, seed: int = 0, count: int | None = None, **settings: Any
    ) -> Tensor:
        """The same as uint8 on the CPU, (count, 3, size, size)."""
        return self._sampling(settings)(self.model, self._balanced(classes, count), seed)

    def trajectory(
        self, classes: Sequence[str] | None = None, seed: int = 0, count: int | None = None, **settings: Any
    ) -> Iterator[list[Image.Image]]:
        """The same images in the making: the denoised ones after each step, at last what `sample` returns."""
        sampling, labels = self._sampling(settings), self._balanced(classes, count)
        return map(to_pil, sampling.trajectory(self.model, labels, seed))

    def interpolate(
        self, classes: tuple[str, str], seeds: tuple[int, int], positions: Sequence[float], **settings: Any
    ) -> list[Image.Image]:
        """Images on the way from the first image of one class and seed to that of another.

        positions  from 0 to 1, one an image; the noise is interpolated on the sphere, the class linearly
        """
        first, second = (self.labels([name])[0] for name in classes)

        def source(seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device) -> InterpolatedNoise:
            ends = [Noise(one, [0] * len(indices), shape, device) for one in seeds]
            return InterpolatedNoise(ends, torch.tensor([positions[index] for index in indices]))

        labels: Labels = [first] * len(positions)
        if first != second:
            table = torch.eye(len(self.classes))
            labels = [((1 - position) * table[first] + position * table[second]).tolist() for position in positions]
        return to_pil(self._sampling(settings)(self.model, labels, 0, source))

    def variations(
        self, name: str, seed: int, index: int, count: int, strength: float = 0.3, **settings: Any
    ) -> list[Image.Image]:
        """Images like image `index` of what `sample` makes of a seed: its noise, turned a little towards others'.

        name      of its class
        strength  from 0, the image itself, to 1, any image of the class
        """

        def source(seed: int, indices: Sequence[int], shape: Sequence[int], device: torch.device) -> InterpolatedNoise:
            others = Noise(seed_of(seed, "variations", index), indices, shape, device)
            ends = [Noise(seed, [index] * len(indices), shape, device), others]
            return InterpolatedNoise(ends, torch.full((len(indices),), float(strength)))

        return to_pil(self._sampling(settings)(self.model, self.labels([name]) * count, seed, source))

    def _balanced(self, classes: Sequence[str] | None, count: int | None) -> list[int]:
        labels = self.labels(classes)
        return balanced_labels(len(labels) if count is None else count, labels)

    def _sampling(self, settings: Mapping[str, Any]) -> SamplingLoop:
        """The sampling loop with other settings. Raises ConfigError."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            if name not in SETTINGS:
                raise ConfigError(f"{name}: there is no such setting; {suggestion(name, SETTINGS)}")
            kind, key = SETTINGS[name]
            if value is not None:
                changed.setdefault(kind, {})[key] = value
        if not changed:
            return self.parts.sampling
        config = replace(self.config, **{kind: getattr(self.config, kind) | own for kind, own in changed.items()})
        return make_sampling(config, self.classes, self.parts.model, self.parts.codec, self.parts.device)

    def labels(self, classes: Sequence[str] | None = None) -> list[int]:
        """The labels of classes, all if not given. Raises ConfigError."""
        if classes is not None and not classes:
            raise ConfigError("classes: no class is given")
        for name in classes or []:
            if name not in self.classes:
                raise ConfigError(f"classes: no class is named '{name}'; {suggestion(name, self.classes)}")
        return [self.classes.index(name) for name in (self.classes if classes is None else classes)]

    def score(
        self,
        images: Tensor | Sequence[Image.Image],
        reference: str | Path,
        metrics: Sequence[str] = ("fid",),
        labels: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Compare images with those of a folder of class folders; numbers by name.

        images     uint8 (n, 3, size, size), or PIL images
        reference  the folder
        metrics    such as fid, kid, precision, coverage
        labels     class names of the images, n of them; without them all images, real ones too, count as of one class

        Raises UserError.
        """
        if not isinstance(images, Tensor):
            images = torch.stack([torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images])
        config = replace(self.config, data=replace(self.config.data, input_val_dir=str(reference)))
        size = config.data.image_size
        try:
            real = build("dataset", {"name": "folder"}, folder=Path(reference), image_size=size)
        except DataError as error:
            raise DataError(f"reference: {error}") from None
        specs = metric_specs(metrics)
        if labels is None:
            if of_classes := [spec.name for spec in specs if spec.metric.of_classes]:
                raise ConfigError(f"labels: {of_classes[0]} needs the classes of the images")
            real.labels = [0] * len(real)
        elif len(labels) != len(images):
            raise ConfigError(f"labels: {len(labels)} are not one for each of {len(images)} images")
        for name in labels or []:
            if name not in real.classes:
                raise ConfigError(f"labels: no class is named '{name}'; {suggestion(name, real.classes)}")
        scorer = make_scorer(config, specs, real, self.parts.device)
        batches = batches_of(images, self.config.data.val_batch_size)
        known = [0] * len(images) if labels is None else [real.classes.index(name) for name in labels]
        numbers = scorer(batches, known).numbers if scorer else {}
        return {name: value for name, value in numbers.items() if name != "feature_diversity"}


def to_pil(images: Tensor) -> list[Image.Image]:
    """PIL images of uint8, (n, 3, size, size)."""
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def load(path: str | Path, device: str = "auto", batch_size: int = 64) -> Pipeline:
    """The pipeline of a run's folder (its best checkpoint), a checkpoint, or an exported folder.

    device      "auto", "cpu", "cuda", "mps", ...
    batch_size  images sampled at a time

    Sampler, guidance and codec are those of inference.yaml in the folder, if there is one, else those of the training.
    Raises UserError.
    """
    checkpoint = checkpoint_in(Path(path))
    read_meta(checkpoint)
    tree = trained_config(checkpoint)
    if (checkpoint / INFERENCE).is_file():
        given = read_file(checkpoint / INFERENCE)
        tree = merge(tree, {key: given[key] for key in ("sampler", "guidance", "codec") if key in given})
    changes = {"exp": {"device": device}, "data": {"val_batch_size": batch_size}}
    try:
        config = check(merge(defaults(Config), merge(tree, changes)), Config)
    except ConfigError as error:
        raise ConfigError(f"{checkpoint / CONFIG}: {'; '.join(str(error).splitlines())}") from None
    return Pipeline(config, checkpoint)


def weights_of(checkpoint: Path, ema_length: float | None) -> dict[str, Tensor]:
    """A checkpoint's average, its average of another length, or its unaveraged weights (0). Raises CheckpointError."""
    if ema_length is None:
        return read_average(checkpoint)
    return average_of(checkpoint, ema_length) if ema_length else read_weights(checkpoint, "model")
