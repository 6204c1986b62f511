"""The composition root of inference.py: drawings, folders of images and sweeps, connected to what scores them."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foodgen.assembly import Model, make_model, with_trained_parts
from foodgen.core import distributed
from foodgen.core.config import check, merge, to_tree, to_yaml
from foodgen.core.devices import find_device
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build, suggestion
from foodgen.core.settings import Config
from foodgen.engine.checkpoint import MANIFEST, read_average, read_meta, read_weights
from foodgen.engine.evaluator import balanced_labels, check_shares, matching_labels
from foodgen.engine.exhibits import EXHIBITS
from foodgen.engine.inference import Inference
from foodgen.engine.run_folder import find_checkpoint, run_folder
from foodgen.engine.scoring import Scorer, disjoint_draws
from foodgen.engine.session import load
from foodgen.engine.snapshots import average_of
from foodgen.engine.sweep import Sweep, nested, points_of
from foodgen.judgement import (
    check_draws,
    find_reference,
    find_training,
    judges,
    make_measurer,
    make_scorer,
    spaces_trained_against,
)
from foodgen.reporting.grids import save_grid
from foodgen.reporting.plots import plot_sweep

SHOWN = 8  # classes of an exhibit
SWEPT = ("count", "seed", "seeds", "ema_length")  # of inference's own keys
log = logging.getLogger("foodgen")


def make_inference(config: Config, scorers: dict[str, Scorer | None] | None = None) -> Inference:
    """What inference.py runs: a checkpoint's model and the given sampler, or a folder of images.

    scorers  that may be used again, by what they were made of; new ones are added

    Raises UserError before any long work.
    """
    device = find_device(config.exp.device)
    distributed.start(device)
    if config.inference.images is not None:
        return _of_folder(config, device)
    checkpoint = find_checkpoint(config)
    meta = read_meta(checkpoint)
    config = with_trained_parts(config, checkpoint)
    model = make_model(config, meta["classes"], device, alone=True)
    load(model.model, weights_of(checkpoint, config.inference.ema_length), checkpoint)
    model.model.eval()
    wanted = judges(config.inference.metrics)
    reference = find_reference(config, meta["classes"]) if wanted else None
    training = find_training(config, meta["classes"]) if wanted else None
    scorer = _shared_scorer(config, wanted, reference, device, training, {} if scorers is None else scorers)
    labels = balanced_labels(config.inference.count, _class_numbers(config, meta["classes"]))
    if reference is not None and not all(judge.of_models for judge in wanted):
        if config.inference.classes is None:
            labels = matching_labels(config.inference.count, reference)
        check_shares(labels, reference, "inference.count")
    labels = labels if model.drawer.draws else []
    measurer = make_measurer(config, wanted, reference, model)
    facts = {
        "checkpoint": str(checkpoint),
        "weights": hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()[:16],
        "step": meta["step"],
        "images_seen": meta.get("images"),
        "ema_length": config.inference.ema_length,
        "sampler": config.sampler,
        "guidance": config.guidance,
        "image_format": "png",
        "trained_against": spaces_trained_against(config),
    }
    return Inference(
        folder=Path(config.inference.output_dir or run_folder(config)),
        draw=partial(model.drawer, model.model, labels),
        given=False,
        labels=labels,
        classes=meta["classes"],
        measure=partial(measurer, model.model) if measurer else None,
        passes=_counted(model.model),
        exhibits=_exhibits(config, model, meta["classes"]),
        **_judging(config, scorer, reference, training, labels, facts, meta["classes"]),
    )


def weights_of(checkpoint: Path, ema_length: float | None) -> dict[str, Tensor]:
    """A checkpoint's average, its average of another length, or its unaveraged weights (0). Raises CheckpointError."""
    if ema_length is None:
        return read_average(checkpoint)
    return average_of(checkpoint, ema_length) if ema_length else read_weights(checkpoint, "model")


def _of_folder(config: Config, device: torch.device) -> Inference:
    """The images of a folder in place of drawn ones."""
    folder = Path(str(config.inference.images))
    try:
        images = build("dataset", {"name": "folder"}, folder=folder, image_size=config.data.image_size)
    except DataError as error:
        raise DataError(f"inference.images: {error}") from None
    wanted = judges(config.inference.metrics)
    for judge in wanted:
        if judge.of_models:
            raise ConfigError(f"inference.metrics: {judge.name} looks at models, and inference.images gives none")
    reference = find_reference(config, images.classes)
    training = find_training(config, images.classes)
    scorer = make_scorer(config, wanted, reference, device, training)
    if scorer:
        check_shares(images.labels, reference, "inference.images")
    endings = sorted({Path(name).suffix.lower().lstrip(".") for name in images.listing.files})
    facts = {"images": str(folder), "image_format": ", ".join(endings)}
    return Inference(
        folder=Path(config.inference.output_dir or f"{folder.resolve()}.scores"),
        draw=lambda seed: images.batch(range(len(images)))[0],
        given=True,
        labels=images.labels,
        classes=images.classes,
        measure=None,
        passes=None,
        exhibits={},
        **_judging(config, scorer, reference, training, images.labels, facts, images.classes),
    )


def _counted(network: torch.nn.Module) -> Callable[[], int]:
    """How many images the network has been asked about from now on: what drawing costs.

    The second look of classifier-free guidance counts, those of another network, a guide or a classifier, do not.
    """
    total = [0]

    def count(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        total[0] += len(inputs[0])

    network.register_forward_pre_hook(count)
    return lambda: sum(distributed.gather(total[0]))


def _judging(
    config: Config,
    scorer: Scorer | None,
    reference: Any,
    training: Any,
    labels: Sequence[int],
    facts: dict[str, Any],
    classes: Sequence[str],
) -> dict[str, Any]:
    """What drawings and folders have in common."""
    seeds = range(config.inference.seed, config.inference.seed + config.inference.seeds)
    about = {
        "reference": config.data.input_val_dir if reference is not None else None,
        "reference_count": len(reference) if reference is not None else 0,
        "seed": config.inference.seed,
    }
    return {
        "overwrite": config.inference.overwrite,
        "seeds": seeds if config.inference.images is None else [config.inference.seed],
        "scorer": scorer,
        "floor": _floor(config, scorer, training, labels),
        "paint": lambda images, labels, path: save_grid(images, labels, classes, path),
        "pair": partial(_paint_pairs, training, labels, classes),
        "config": to_yaml(config),
        "facts": facts | about,
    }


def _floor(config: Config, scorer: Scorer | None, training: Any, labels: Sequence[int]) -> list[list[int]]:
    """Draws of training images, with a note if they are fewer than wanted."""
    wanted = config.inference.floor_draws if scorer else 0
    if wanted and training is None:
        log.warning(
            "no floor: data.input_train_dir: %s gives none beside what is compared with", config.data.input_train_dir
        )
    if not wanted or training is None:
        return []
    draws = disjoint_draws(training, labels, wanted)
    if len(draws) < wanted:
        where = config.data.input_train_dir
        log.warning(
            "the floor is of %d draws, not %d: %s holds no more images of each class", len(draws), wanted, where
        )
    return draws


def _shared_scorer(
    config: Config,
    wanted: Sequence[Any],
    reference: Any,
    device: torch.device,
    training: Any,
    known: dict[str, Scorer | None],
) -> Scorer | None:
    check_draws(config, wanted)
    made_of = repr((config.data, config.spaces, config.inference.metrics))
    if made_of not in known:
        known[made_of] = make_scorer(config, wanted, reference, device, training)
    return known[made_of]


def make_sweep(config: Config) -> Sweep:
    """Drawings at every point of `inference.sweep`, on held-out images. Raises UserError before any long work."""
    if config.inference.images is not None or not config.inference.metrics:
        raise ConfigError("inference.sweep wants a checkpoint to draw from and inference.metrics to compare by")
    scorers: dict[str, Scorer | None] = {}

    def make(point: Mapping[str, Any]) -> Inference:
        for key in point:
            if key.startswith("inference.") and key.split(".")[1] not in SWEPT:
                raise ConfigError(f"inference.sweep: {key} cannot be swept; {suggestion('', SWEPT)} of inference can")
        chosen = check(merge(plain, nested(point)), Config)
        folder = Path(chosen.data.input_val_dir).resolve()
        if folder.name == "test":
            raise ConfigError(
                f"inference.sweep: settings are not chosen on test images; give data.input_val_dir="
                f"{folder.with_name('held_out')} instead of {chosen.data.input_val_dir}"
            )
        return make_inference(chosen, scorers)

    plain = merge(to_tree(config), {"inference": {"sweep": []}})
    first = judges(config.inference.metrics)[0]
    return Sweep(
        folder=Path(config.inference.output_dir or run_folder(config)),
        points=points_of(config.inference.sweep),
        make=make,
        plot=partial(plot_sweep, names=config.inference.metrics),
        first=(first.name, first.lower_is_better),
    )


def _class_numbers(config: Config, classes: Sequence[str]) -> list[int]:
    wanted = config.inference.classes if config.inference.classes is not None else list(classes)
    for name in wanted:
        if name not in classes:
            raise ConfigError(f"inference.classes: no class is named '{name}'; {suggestion(name, classes)}")
    if not wanted:
        raise ConfigError("inference.classes: no class is given")
    return [list(classes).index(name) for name in wanted]


def _exhibits(config: Config, model: Model, classes: Sequence[str]) -> dict[str, Callable[[Path], None]]:
    """What writes <path>.png and <path>.npz, by name."""
    labels = _class_numbers(config, classes)[:SHOWN]
    if config.inference.exhibits and distributed.world_size() > 1:
        raise ConfigError("inference.exhibits are painted by a single process: leave torchrun out")
    if "trajectory" in config.inference.exhibits and not hasattr(model.drawer.sampler, "guidance"):
        raise ConfigError(
            f"inference.exhibits: {config.sampler['name']} goes no way that could be shown as a trajectory"
        )

    def paint(name: str, path: Path) -> None:
        images, shown = EXHIBITS[name](model.drawer, model.model, labels, config.inference.seed)
        save_grid(images, shown, classes, path.with_suffix(".png"))
        np.savez_compressed(path.with_suffix(".npz"), images=images.numpy(), labels=shown)

    return {name: partial(paint, name) for name in config.inference.exhibits}


def _paint_pairs(
    training: Any,
    labels: Sequence[int],
    classes: Sequence[str],
    images: Tensor,
    pairs: Sequence[Sequence[float]],
    path: Path,
) -> None:
    """Each generated image with its nearest training image at its right, the nearest pair first."""
    shown = torch.stack([image for i, j, _ in pairs for image in (images[int(i)], training[int(j)][0])])
    names = [f"{rank + 1}: {classes[labels[int(i)]]}" for rank, (i, *_) in enumerate(pairs)]
    save_grid(shown, [rank for rank in range(len(pairs)) for _ in (0, 1)], names, path)
