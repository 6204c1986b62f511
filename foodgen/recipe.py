"""The composition root: a configuration becomes connected parts. Nothing else knows all the folders."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.config import to_tree, to_yaml
from foodgen.core.devices import find_autocast, find_device
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build, metrics, suggestion
from foodgen.core.settings import Config, ExportConfig, Prepare
from foodgen.core.types import Codec, Objective
from foodgen.data import prepare as preparation
from foodgen.data.loader import Loader
from foodgen.engine.checkpoint import CONFIG, read_average, read_meta, replace_text
from foodgen.engine.checkpoint import export as export_weights
from foodgen.engine.evaluator import Drawer, Scorer, balanced_labels, check_shares, matching_labels
from foodgen.engine.inference import Inference
from foodgen.engine.run_folder import checkpoint_to_resume, describe_changes, find_checkpoint, run_folder
from foodgen.engine.session import Session, load
from foodgen.engine.tracker import Tracker
from foodgen.engine.trainer import Trainer
from foodgen.engine.wandb_run import WandbRun
from foodgen.metrics.collapse import PixelSpread, spread
from foodgen.metrics.inception import InceptionFeatures, features_of
from foodgen.reporting.grids import save_grid


def prepare(settings: Prepare) -> dict[str, Any]:
    """Make a set of small squares; its manifest."""
    keys = ("image_size", "smallest", "test_per_class", "held_out_per_class", "quality", "seed")
    return preparation.prepare(settings.source, Path(settings.target), **{key: getattr(settings, key) for key in keys})


def find_images(config: Config, key: str) -> Any:
    """The image set in the folder `data.<key>`. Raises ConfigError naming the key, or DataError."""
    folder = Path(getattr(config.data, key))
    try:
        return build("dataset", config.dataset, folder=folder, image_size=config.data.image_size)
    except DataError as error:
        raise DataError(f"data.{key}: {error}") from None


@dataclass
class Model:
    """What training and inference share: the model, in training within its objective, and what draws with it."""

    model: torch.nn.Module
    objective: Objective | None
    codec: Codec
    drawer: Drawer
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    ambient: dict[str, Any]


def make_model(config: Config, classes: Sequence[str], device: torch.device, alone: bool = False) -> Model:
    """The objective, its initial weights following from exp.seed, and a drawer. Raises ConfigError.

    alone  leave the objective out: drawing needs the model and nothing of what it is trained against
    """
    torch.manual_seed(config.exp.seed)
    codec = build("codec", config.codec, image_size=config.data.image_size)
    channels, image_size = codec.shape[0], codec.shape[-1]
    ambient = {"classes": len(classes), "channels": channels, "image_size": image_size}
    if alone:
        objective, model = None, build("model", config.objective["model"], "objective.model", **ambient).to(device)
    else:
        objective = build("objective", config.objective, **ambient).to(device)
        model = objective.model
    guidance = build("guidance", config.guidance, **ambient)
    sampler = build("sampler", config.sampler, guidance=guidance)
    try:
        sampler.check(model)
    except ValueError as error:
        raise ConfigError(f"sampler.{error}") from None
    autocast = find_autocast(config.train.precision, device)
    if config.train.channels_last:
        (objective or model).to(memory_format=torch.channels_last)
    drawer = Drawer(sampler, codec, device, config.data.val_batch_size, autocast)
    return Model(model, objective, codec, drawer, device, autocast, ambient)


def make_scorer(config: Config, names: Sequence[str], reference: Any, device: torch.device) -> Scorer | None:
    """A scorer against `reference` by the named metrics, or None without any."""
    if not names:
        return None
    chosen = [metrics[name]() for name in names]
    weights = config.data.inception_weights
    extract = InceptionFeatures(device, Path(weights) if weights else None)
    folder = Path(config.data.input_val_dir)
    cache = folder.with_name(folder.name + ".features")
    real = partial(features_of, extract, reference, config.data.val_batch_size, cache)
    return Scorer(extract, reference, real, chosen, spread, config.data.val_batch_size)


def make_session(config: Config) -> Session:
    """A training session in its run folder, resumed or new. Raises UserError before any long work."""
    device = find_device(config.exp.device)
    distributed.start(device)
    resumed = checkpoint_to_resume(config)
    images = find_images(config, "input_train_dir")
    model = make_model(config, images.classes, device)
    reference = _reference(config, images.classes) if config.train.val_count and config.train.val_metrics else None
    scorer = make_scorer(config, config.train.val_metrics, reference, device) if reference else None
    folder = run_folder(config)
    if config.train.initial_weights and not resumed:
        weights = Path(config.train.initial_weights)
        _check_classes(read_meta(weights)["classes"], images.classes, weights)
        load(model.model, read_average(weights), weights)
    trainer = make_trainer(config, model, images)
    goes_on = resumed is not None and resumed.resolve().parent == (folder / "checkpoints").resolve()
    run_id = str(read_meta(resumed)["run_id"]) if resumed and goes_on else uuid.uuid4().hex[:8]
    main = distributed.is_main()
    tracker = Tracker(folder if main else None, config.train.steps)
    session = Session(
        settings=config.train,
        batch_size=config.data.train_batch_size,
        classes=images.classes,
        folder=folder,
        config=to_yaml(config),
        run_id=run_id,
        seed=config.exp.seed,
        trainer=trainer,
        tracker=tracker,
        drawer=model.drawer,
        scorer=scorer,
        paint=lambda pictures, labels, path: save_grid(pictures, labels, images.classes, path),
        spread=PixelSpread(images),
    )
    if resumed:
        _check_classes(read_meta(resumed)["classes"], images.classes, resumed)
        for line in describe_changes(config, resumed):
            tracker.say(f"changed since: {line}")
        session.resume(resumed)
    else:
        tracker.resume(0, {"sums": {}, "counts": {}})
    if main:  # nothing of an earlier run is touched before all is known to fit
        replace_text(folder / "config.yaml", to_yaml(config))
    if main and config.exp.use_wandb:
        tracker.remote = WandbRun(folder, run_id, folder.name, config.exp.wandb_project, to_tree(config))
    return session


def export(config: ExportConfig) -> list[Path]:
    """Write the averaged weights that `train.checkpoint_path` names; their files. Raises CheckpointError."""
    target = Path(config.export.output_dir or run_folder(config) / "export")
    return export_weights(find_checkpoint(config), target, int(config.export.shard_megabytes * 1e6))


def make_inference(config: Config) -> Inference:
    """What inference.py runs: a checkpoint's model, and the given sampler. Raises UserError before any long work."""
    device = find_device(config.exp.device)
    distributed.start(device)
    checkpoint = find_checkpoint(config)
    meta = read_meta(checkpoint)
    config = with_trained_parts(config, checkpoint)
    model = make_model(config, meta["classes"], device, alone=True)
    load(model.model, read_average(checkpoint), checkpoint)
    reference = _reference(config, meta["classes"]) if config.inference.metrics else None
    labels = balanced_labels(config.inference.count, _class_numbers(config, meta["classes"]))
    if reference is not None and config.inference.classes is None:
        labels = matching_labels(config.inference.count, reference)
    if reference is not None:
        check_shares(labels, reference, "inference.count")
    facts = {
        "checkpoint": str(checkpoint),
        "step": meta["step"],
        "images_seen": meta.get("images"),
        "reference": config.data.input_val_dir if reference is not None else None,
        "reference_count": len(reference) if reference is not None else 0,
        "seed": config.inference.seed,
        "sampler": config.sampler,
        "guidance": config.guidance,
        "image_format": "png",
    }
    return Inference(
        folder=Path(config.inference.output_dir or run_folder(config)),
        overwrite=config.inference.overwrite,
        model=model.model.eval(),
        labels=labels,
        classes=meta["classes"],
        seed=config.inference.seed,
        drawer=model.drawer,
        scorer=make_scorer(config, config.inference.metrics, reference, device),
        paint=lambda pictures, labels, path: save_grid(pictures, labels, meta["classes"], path),
        config=to_yaml(config),
        facts=facts,
    )


def with_trained_parts(config: Config, checkpoint: Path) -> Config:
    """The configuration with the parts that a checkpoint's weights belong to."""
    trained = OmegaConf.to_container(OmegaConf.load(checkpoint / CONFIG))
    assert isinstance(trained, dict)
    data = replace(config.data, image_size=trained["data"]["image_size"])
    return replace(config, data=data, objective=trained["objective"], codec=trained["codec"])


def _class_numbers(config: Config, classes: Sequence[str]) -> list[int]:
    wanted = config.inference.classes if config.inference.classes is not None else list(classes)
    for name in wanted:
        if name not in classes:
            raise ConfigError(f"inference.classes: no class is named '{name}'; {suggestion(name, classes)}")
    if not wanted:
        raise ConfigError("inference.classes: no class is given")
    return [list(classes).index(name) for name in wanted]


def make_trainer(config: Config, model: Model, images: Any) -> Trainer:
    """A trainer of the model's objective. Raises ConfigError."""
    objective = model.objective
    assert objective is not None
    ema = build("ema", config.ema, model=model.model)
    augment = build("augment", config.augment)
    loader = Loader(
        images,
        config.data.train_batch_size,
        config.exp.seed,
        model.device,
        config.data.workers,
        config.data.keep_on_device,
    )
    pieces = distributed.world_size() * config.train.accumulate
    if config.data.train_batch_size % pieces:
        raise ConfigError(
            f"data.train_batch_size: {config.data.train_batch_size} images cannot be split evenly over "
            f"{distributed.world_size()} processes and train.accumulate={config.train.accumulate}"
        )
    players = {turn.player for turn in objective.turns(1)}
    for player in sorted(players ^ {*config.optimizers}):
        wrong = "is missing" if player in players else "the objective has no player of this name"
        raise ConfigError(f"optimizers.{player}: {wrong}")
    optimizers = {
        player: build("optimizer", part, f"optimizers.{player}", player=getattr(objective, player))
        for player, part in config.optimizers.items()
    }
    if config.train.compile:
        for player in config.optimizers:
            getattr(objective, player).compile()

    def encode(pixels: Tensor) -> Tensor:
        encoded = model.codec.encode(augment(pixels))
        return encoded.contiguous(memory_format=torch.channels_last) if config.train.channels_last else encoded

    return Trainer(
        objective,
        loader.batches,
        encode,
        optimizers,
        build("schedule", config.schedule, steps=config.train.steps),
        ema,
        model.autocast,
        config.exp.seed,
        config.train.accumulate,
        config.train.clip,
    )


def _reference(config: Config, classes: Sequence[str]) -> Any:
    reference = find_images(config, "input_val_dir")
    _check_classes(reference.classes, classes, Path(config.data.input_val_dir))
    return reference


def _check_classes(found: Sequence[str], wanted: Sequence[str], where: Path) -> None:
    if list(found) != list(wanted):
        odd = sorted({*found} ^ {*wanted})
        raise DataError(
            f"{where}: has {len(found)} classes, training has {len(wanted)}; they differ in {', '.join(odd[:5])}"
        )
