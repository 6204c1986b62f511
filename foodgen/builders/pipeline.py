"""A trained model ready to sample from: what programs, scripts and pages use."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from foodgen.builders.models import Model, make_model, make_sampling, with_trained_parts
from foodgen.builders.scoring import make_scorer, metric_specs
from foodgen.core.config import check, defaults, merge, read_file, read_saved
from foodgen.core.devices import find_device
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build, suggestion
from foodgen.core.settings import Config
from foodgen.evaluation.sampling import balanced_labels, batches_of
from foodgen.training.checkpoint import CONFIG, load_weights, read_average, read_meta, read_weights
from foodgen.training.run_folder import checkpoint_in
from foodgen.training.snapshots import average_of

INFERENCE = "inference.yaml"  # beside exported weights: how to sample from them


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
        self.parts: Model = make_model(self.config, self.classes, find_device(config.exp.device), model_only=True)
        load_weights(self.parts.model, weights_of(checkpoint, config.inference.ema_length), checkpoint)
        self.parts.model.eval()

    @property
    def model(self) -> nn.Module:
        """The network, or the denoiser around it, in eval mode."""
        return self.parts.model

    def sample(
        self,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        count: int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Generate images, in the order of their classes' labels; the same ones for the same arguments.

        classes   names; all classes if not given
        seed      of the noise
        count     number of images, evenly distributed over the classes; one of each if not given
        guidance  scale, for a model with guidance; the configuration's if not given
        steps     of the sampler; the configuration's if not given

        Raises ConfigError for a class that there is not, or an argument that this model does not have.
        """
        images = self.sample_tensor(classes, seed, count, guidance, steps)
        return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]

    def sample_tensor(
        self,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        count: int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """The same as uint8 on the CPU, (count, 3, size, size)."""
        labels = self.labels(classes)
        parts = self.parts
        changes: dict[str, dict[str, Any]] = {
            "guidance": {} if guidance is None else {"scale": guidance},
            "sampler": {} if steps is None else {"steps": steps},
        }
        if guidance is not None or steps is not None:
            changed = {key: getattr(self.config, key) | own for key, own in changes.items()}
            config = replace(self.config, **changed)
            sampling = make_sampling(config, self.classes, parts.model, parts.codec, parts.device)
        else:
            sampling = parts.sampling
        return sampling(parts.model, balanced_labels(len(labels) if count is None else count, labels), seed)

    def labels(self, classes: Sequence[str] | None = None) -> list[int]:
        """The labels of classes, all if not given. Raises ConfigError."""
        if classes is not None and not classes:
            raise ConfigError("classes: no class is given")
        for name in classes or []:
            if name not in self.classes:
                raise ConfigError(f"classes: no class is named '{name}'; {suggestion(name, self.classes)}")
        return [self.classes.index(name) for name in (self.classes if classes is None else classes)]

    def score(
        self, images: Tensor | Sequence[Image.Image], reference: str | Path, metrics: Sequence[str] = ("fid",)
    ) -> dict[str, float]:
        """Compare images with those of a folder of class folders; numbers by name.

        images     uint8 (n, 3, size, size), or PIL images
        reference  the folder
        metrics    such as fid, kid, precision, coverage

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
        scorer = make_scorer(config, metric_specs(metrics), real, self.parts.device)
        batches = batches_of(images, self.config.data.val_batch_size)
        numbers = scorer(batches, [0] * len(images)).numbers if scorer else {}
        return {name: value for name, value in numbers.items() if name != "feature_diversity"}


def load(path: str | Path, device: str = "auto", batch_size: int = 64) -> Pipeline:
    """The pipeline of a run's folder (its best checkpoint), a checkpoint, or an exported folder.

    device      "auto", "cpu", "cuda", "mps", ...
    batch_size  images sampled at a time

    Sampler, guidance and codec are those of inference.yaml in the folder, if there is one, else those of the training.
    Raises UserError.
    """
    checkpoint = checkpoint_in(Path(path))
    read_meta(checkpoint)
    tree = read_saved(checkpoint / CONFIG)
    if (checkpoint / INFERENCE).is_file():
        given = read_file(checkpoint / INFERENCE)
        tree = merge(tree, {key: given[key] for key in ("sampler", "guidance", "codec") if key in given})
    changes = {"exp": {"device": device}, "data": {"val_batch_size": batch_size}}
    return Pipeline(check(merge(defaults(Config), merge(tree, changes)), Config), checkpoint)


def weights_of(checkpoint: Path, ema_length: float | None) -> dict[str, Tensor]:
    """A checkpoint's average, its average of another length, or its unaveraged weights (0). Raises CheckpointError."""
    if ema_length is None:
        return read_average(checkpoint)
    return average_of(checkpoint, ema_length) if ema_length else read_weights(checkpoint, "model")
