"""Inferences and sweeps of a configuration: sampled images or a folder's, connected to what scores them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foodgen.builders.pipeline import Pipeline
from foodgen.builders.scoring import (
    check_names,
    check_sampler,
    find_reference,
    find_training,
    for_model,
    make_scorer,
    metric_specs,
    of_images,
    spaces_trained_against,
)
from foodgen.builders.tracking import check_trackers, send_scores
from foodgen.core import distributed
from foodgen.core.config import check, merge, to_tree, to_yaml
from foodgen.core.devices import find_device
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build, suggestion
from foodgen.core.settings import Config
from foodgen.core.types import Images
from foodgen.evaluation.inference import Inference
from foodgen.evaluation.sampling import balanced_labels, batches_of, check_proportions, matching_labels
from foodgen.evaluation.scoring import MetricSpec, Scorer, disjoint_subsets
from foodgen.evaluation.sweep import Sweep, nested, points_of
from foodgen.evaluation.visualisations import VISUALISATIONS
from foodgen.reporting.grids import save_grid
from foodgen.reporting.plots import plot_sweep
from foodgen.training.manifest import fingerprint
from foodgen.training.run_folder import find_checkpoint, run_folder

VISUALISED = 8  # classes of a visualisation
FROM_THE_CHECKPOINT = ("objective", "optimizers", "schedule", "ema")  # sections that inference does not read
SWEPT = ("count", "seed", "seeds", "ema_length")  # of inference's own keys
log = logging.getLogger("foodgen")


def make_inference(config: Config, scorers: dict[str, Scorer | None] | None = None) -> Inference:
    """What inference.py runs: a checkpoint's model and the given sampler, or a folder of images.

    scorers  that may be used again, by what they were made of; new ones are added

    Raises UserError before any long work.
    """
    device = find_device(config.exp.device)
    distributed.start(device)
    check_trackers(config)
    if config.inference.images is not None:
        return _of_folder(config, device)
    # model
    checkpoint = find_checkpoint(config)
    pipeline = Pipeline(config, checkpoint)
    config, classes = pipeline.config, pipeline.classes
    # scores
    specs = metric_specs(config.inference.metrics)
    reference = find_reference(config, classes) if specs else None
    training = find_training(config, classes) if specs else None
    scorer = _shared_scorer(config, specs, reference, device, training, {} if scorers is None else scorers, pipeline)
    # labels
    try:
        labels = balanced_labels(config.inference.count, pipeline.labels(config.inference.classes))
    except ConfigError as error:
        raise ConfigError(f"inference.{error}") from None
    if reference is not None and of_images(specs):
        if config.inference.classes is None:
            labels = matching_labels(config.inference.count, reference)
        check_proportions(labels, reference, "inference.count")
    labels = labels if pipeline.parts.sampling.generates else []
    facts = {
        "checkpoint": str(checkpoint),
        "weights": fingerprint(checkpoint),
        "step": pipeline.meta["step"],
        "images_seen": pipeline.meta.get("images"),
        "ema_length": config.inference.ema_length,
        "sampler": config.sampler,
        "guidance": config.guidance,
        "image_format": "png",
        "feature_precision": config.inference.precision,
        "trained_against": spaces_trained_against(config),
    }
    folder = Path(config.inference.output_dir or run_folder(config))
    return Inference(
        folder=folder,
        send=send_scores(config, folder, pipeline.meta),
        sample=partial(pipeline.parts.sampling.batches, pipeline.model, labels),
        from_folder=False,
        labels=labels,
        classes=classes,
        model=pipeline.model,
        evaluation_count=_counted(pipeline.model),
        visualisations=_visualisations(config, pipeline),
        **_common(config, scorer, reference, training, labels, facts, classes),
    )


def _of_folder(config: Config, device: torch.device) -> Inference:
    """The images of a folder in place of sampled ones."""
    folder = Path(str(config.inference.images))
    try:
        images = build("dataset", {"name": "folder"}, folder=folder, image_size=config.data.image_size)
    except DataError as error:
        raise DataError(f"inference.images: {error}") from None
    check_names(config.inference.classes, images.classes)
    specs = metric_specs(config.inference.metrics)
    reference = find_reference(config, images.classes)
    training = find_training(config, images.classes)
    scorer = make_scorer(config, specs, reference, device, training, config.inference.precision)
    if scorer:
        check_proportions(images.labels, reference, "inference.images")
    endings = sorted({Path(name).suffix.lower().lstrip(".") for name in images.listing.files})
    facts = {
        "images": str(folder),
        "image_format": ", ".join(endings),
        "feature_precision": config.inference.precision,
    }
    target = Path(config.inference.output_dir or f"{folder.resolve()}.scores")
    return Inference(
        folder=target,
        send=send_scores(config, target, {}),
        sample=lambda seed: batches_of(images, config.data.val_batch_size),
        image=lambda index: images[index][0],
        from_folder=True,
        labels=images.labels,
        classes=images.classes,
        model=None,
        evaluation_count=None,
        visualisations={},
        **_common(config, scorer, reference, training, images.labels, facts, images.classes),
    )


def _counted(network: torch.nn.Module) -> Callable[[], int]:
    """How many images the network has processed since: what sampling costs.

    The second evaluation of classifier-free guidance counts; those of another network, a guide or a classifier, do not.
    """
    total = [0]

    def count(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        total[0] += len(inputs[0])

    network.register_forward_pre_hook(count)
    return lambda: sum(distributed.gather(total[0]))


def _common(
    config: Config,
    scorer: Scorer | None,
    reference: Images | None,
    training: Images | None,
    labels: Sequence[int],
    facts: dict[str, Any],
    classes: Sequence[str],
) -> dict[str, Any]:
    """What sampled images and those of a folder have in common."""
    seeds = range(config.inference.seed, config.inference.seed + config.inference.seeds)
    baseline = _baseline(config, scorer, training, reference, labels)
    about = {
        "reference": config.data.input_val_dir if reference is not None else None,
        "reference_count": len(reference) if reference is not None else 0,
        "seed": config.inference.seed,
    }
    return {
        "overwrite": config.inference.overwrite,
        "seeds": seeds if config.inference.images is None else [config.inference.seed],
        "scorer": scorer,
        "baseline": baseline,
        "save_grid": lambda images, labels, path: save_grid(images, labels, classes, path),
        "save_pairs": partial(_save_pairs, training, labels, classes),
        "config": to_yaml(config),
        "facts": facts | about,
    }


def _baseline(
    config: Config, scorer: Scorer | None, training: Images | None, reference: Images | None, labels: Sequence[int]
) -> list[list[int]]:
    """Subsets of training images for the real-data baseline, with a warning if they are fewer than asked for.

    Where the training images are the reference, those that are left of it have to be half as many as the subset.
    """
    asked, folder = config.inference.baseline_draws if scorer and scorer.groups else 0, config.data.input_train_dir
    if scorer and scorer.of_reference and reference is not None:
        if asked and 2 * len(reference) < 3 * len(labels):
            message = "no real-data baseline: of the reference, %s, too few images are left beside %d; lower the count"
            log.warning(message, folder, len(labels))
            return []
        training = reference
    if asked and training is None:
        log.warning("no real-data baseline: data.input_train_dir: %s has no images beside the reference", folder)
    if not asked or training is None:
        return []
    subsets = disjoint_subsets(training, labels, asked)
    if len(subsets) < asked:
        log.warning(
            "the real-data baseline is of %d subsets, not %d: %s has no more images of each class",
            *(len(subsets), asked, folder),
        )
    return subsets


def _shared_scorer(
    config: Config,
    specs: Sequence[MetricSpec],
    reference: Images | None,
    device: torch.device,
    training: Images | None,
    known: dict[str, Scorer | None],
    pipeline: Pipeline,
) -> Scorer | None:
    check_sampler(config, specs)
    precision = config.inference.precision
    key = repr((config.data, config.spaces, config.train.precision, precision, config.inference.metrics))
    if key not in known:
        known[key] = make_scorer(config, specs, reference, device, training, precision, pipeline.parts)
    scorer = known[key]
    return scorer and for_model(scorer, config, specs, pipeline.parts)


def make_sweep(config: Config) -> Sweep:
    """An inference at every point of `inference.sweep`, on validation images. Raises UserError before any long work."""
    if config.inference.images is not None or not config.inference.metrics:
        raise ConfigError("inference.sweep needs a checkpoint to sample from and inference.metrics to compare by")
    scorers: dict[str, Scorer | None] = {}

    def settings_of(point: Mapping[str, Any]) -> Config:
        for key in point:
            if key.split(".")[0] in FROM_THE_CHECKPOINT:
                raise ConfigError(f"inference.sweep: {key}: inference takes it from the checkpoint")
            if key == "inference" or (key.startswith("inference.") and key.split(".")[1] not in SWEPT):
                raise ConfigError(f"inference.sweep: {key} cannot be swept; {suggestion('', SWEPT)} of inference can")
        try:
            chosen = check(merge(plain, nested(point)), Config)
        except ConfigError as error:
            lines = str(error).removeprefix("inference.sweep: ").splitlines()
            raise ConfigError("\n".join(f"inference.sweep: {line}" for line in lines)) from None
        folder = Path(chosen.data.input_val_dir).resolve()
        if folder.name == "test":
            raise ConfigError(
                f"inference.sweep: settings are not chosen on test images; give data.input_val_dir="
                f"{folder.with_name('val')} instead of {chosen.data.input_val_dir}"
            )
        return chosen

    plain = merge(to_tree(config), {"inference": {"sweep": []}})
    first = metric_specs(config.inference.metrics)[0]
    points = points_of(config.inference.sweep)
    for point in points:  # all mistakes are told before the first checkpoint is read
        settings_of(point)
    return Sweep(
        folder=Path(config.inference.output_dir or run_folder(config)),
        points=points,
        make=lambda point: make_inference(settings_of(point), scorers),
        plot=partial(plot_sweep, names=config.inference.metrics),
        first=(first.name, first.lower_is_better),
    )


def _visualisations(config: Config, pipeline: Pipeline) -> dict[str, Callable[[Path], None]]:
    """What saves <path>.png and <path>.npz, by name."""
    labels, sampling = pipeline.labels(config.inference.classes)[:VISUALISED], pipeline.parts.sampling
    if config.inference.visualisations and distributed.world_size() > 1:
        raise ConfigError("inference.visualisations are made by a single process: leave torchrun out")
    if "trajectory" in config.inference.visualisations and not sampling.sampler.has_trajectory:
        raise ConfigError(f"inference.visualisations: {config.sampler['name']} has no trajectory")

    def save(name: str, path: Path) -> None:
        images, shown = VISUALISATIONS[name](sampling, pipeline.model, labels, config.inference.seed)
        save_grid(images, shown, pipeline.classes, path.with_suffix(".png"))
        np.savez_compressed(path.with_suffix(".npz"), images=images.numpy(), labels=shown)

    return {name: partial(save, name) for name in config.inference.visualisations}


def _save_pairs(
    training: Images | None,
    labels: Sequence[int],
    classes: Sequence[str],
    generated: Callable[[int], Tensor],
    pairs: Sequence[Sequence[float]],
    path: Path,
) -> None:
    """Each generated image with its nearest training image at its right, the nearest pair first."""
    assert training is not None
    shown = torch.stack([image for i, j, _ in pairs for image in (generated(int(i)), training[int(j)][0])])
    names = [f"{rank + 1}: {classes[labels[int(i)]]}" for rank, (i, *_) in enumerate(pairs)]
    save_grid(shown, [rank for rank in range(len(pairs)) for _ in (0, 1)], names, path)
