"""Trainings of a configuration: every part is built and connected here."""

import shutil
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foodgen.builders.models import Model, check_classes, find_images, make_model
from foodgen.builders.scoring import (
    check_names,
    check_sampler,
    find_reference,
    make_scorer,
    metric_specs,
    training_is_reference,
)
from foodgen.builders.tracking import check_trackers, make_backends
from foodgen.core import distributed
from foodgen.core.config import to_yaml
from foodgen.core.devices import check_compiler, find_device, has_bf16
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.files import write_text
from foodgen.core.registry import build
from foodgen.core.settings import Config, ExportConfig, Prepare
from foodgen.core.types import Images
from foodgen.data import prepare as preparation
from foodgen.data.loader import Loader
from foodgen.metrics.diversity import PixelDiversity
from foodgen.reporting.grids import save_grid
from foodgen.training.checkpoint import export as export_weights
from foodgen.training.checkpoint import (
    load_weights,
    partners_in,
    partners_of,
    read_average,
    read_meta,
)
from foodgen.training.run_folder import (
    checkpoint_in,
    checkpoint_to_resume,
    describe_changes,
    find_checkpoint,
    run_folder,
)
from foodgen.training.scaling import LossScaler
from foodgen.training.session import Session
from foodgen.training.snapshots import average_of
from foodgen.training.tracker import Tracker
from foodgen.training.trainer import Trainer


def prepare(settings: Prepare) -> dict[str, Any]:
    """Make a set of small squares; its manifest."""
    keys = ("image_size", "smallest", "test_per_class", "val_per_class", "quality", "seed", "classes")
    return preparation.prepare(settings.source, Path(settings.target), **{key: getattr(settings, key) for key in keys})


def make_session(config: Config) -> Session:
    """A training session in its run folder, resumed or new. Raises UserError before any long work."""
    device = find_device(config.exp.device)
    distributed.start(device)
    resumed = checkpoint_to_resume(config)
    # data, model and scores
    images = find_images(config, "input_train_dir")
    check_names(config.inference.classes, images.classes)
    model = make_model(config, images.classes, device, checkpoint=resumed)
    specs = metric_specs(config.train.val_metrics)
    if config.train.val_count == 0:
        specs = [spec for spec in specs if spec.metric.of_model]
    of_images = model.sampling.sampler.needs_images
    reference = find_reference(config, images.classes) if specs or of_images else None
    missing = {*range(len(images.classes))} - {*reference.labels} if reference and of_images else None
    if missing:
        name = images.classes[min(missing)]
        raise DataError(f"data.input_val_dir: {config.data.input_val_dir} has no image of class {name} to sample from")
    check_sampler(config, specs)
    others = None if training_is_reference(config) else images
    scorer = make_scorer(config, specs, reference, device, others, "bf16" if has_bf16(device) else "fp32", model)
    # trainer
    folder = run_folder(config)
    config = replace(config, exp=replace(config.exp, run=folder.name))  # the run's own config.yaml resumes this run
    initial = config.train.initial_weights
    if initial and not resumed:
        named = {"": initial} if isinstance(initial, str) else {name: path for name, path in initial.items() if path}
        sources = {name: checkpoint_in(Path(path)) for name, path in named.items()}
        for weights in {*sources.values()}:
            check_classes(read_meta(weights)["classes"], images.classes, weights)
        start_from(model, sources[""]) if isinstance(initial, str) else start_networks_from(model, sources)
    loader = make_loader(config, model, images)
    trainer = make_trainer(config, model, loader.batches)
    check_trackers(config)
    if distributed.is_main():
        _check_disk(config, folder, trainer)
    # session
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
        sampling=model.sampling,
        scorer=scorer,
        first=specs[0] if specs else None,
        save_grid=lambda generated, labels, path: save_grid(generated, labels, images.classes, path),
        diversity=PixelDiversity(images),
    )
    if resumed:
        check_classes(read_meta(resumed)["classes"], images.classes, resumed)
        for line in describe_changes(config, resumed):
            tracker.say(f"changed since: {line}")
        session.resume(resumed)
    else:
        tracker.resume(0, {"sums": {}, "counts": {}})
    if main:  # nothing of an earlier run is touched before all is known to fit
        write_text(folder / "config.yaml", to_yaml(config))
        tracker.backends = make_backends(config, folder, run_id, trainer.global_step)
    return session


def checkpoint_bytes(trainer: Trainer) -> int:
    """About what a checkpoint takes: all numbers, those of the average, and two a trained weight of optimizers."""
    stored = [*trainer.objective.state_dict().values(), *trainer.ema.model.state_dict().values()]
    moments = [weight for of_network in trainer.weights.values() for weight in of_network] * 2
    return sum(tensor.numel() * tensor.element_size() for tensor in [*stored, *moments])


def _check_disk(config: Config, folder: Path, trainer: Trainer) -> None:
    """Raise ConfigError if the checkpoints of a run will not fit, before it starts."""
    needed, free = checkpoint_bytes(trainer) * (config.train.keep_checkpoints + 2), shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"exp.exp_dir: {folder} needs about {needed / 1e6:.0f} MB for checkpoints, {free / 1e6:.0f} MB are free; "
            f"train.keep_checkpoints={config.train.keep_checkpoints} is what can be lowered"
        )


def export(config: ExportConfig) -> list[Path]:
    """Write the averaged weights that `train.checkpoint_path` names; their files. Raises CheckpointError."""
    length, source = config.export.ema_length, find_checkpoint(config)
    name = "export" if length is None else f"export-{length:g}"
    target = Path(config.export.output_dir or run_folder(config) / name)
    average = read_average(source) if length is None else average_of(source, length)
    partners = partners_of(source) if config.export.partners else None
    return export_weights(source, target, int(config.export.shard_megabytes * 1e6), average, partners)


def start_from(model: Model, weights: Path) -> None:
    """Take the weights of a checkpoint or an exported folder, with the model's partners if they are there.

    Penalties and augmentations may be others than those that the partners were trained with. Raises CheckpointError if
    the networks do not fit.
    """
    load_weights(model.model, read_average(weights), weights)
    partners = partners_in(weights)
    if partners and model.objective:
        state = model.objective.state_dict()
        initial = {
            name: tensor for name, tensor in state.items() if _is_regulariser(name) or "features" in name.split(".")
        }
        fitting = {name: tensor for name, tensor in partners.items() if name in state or not _is_regulariser(name)}
        own = {f"model.{name}": tensor for name, tensor in model.model.state_dict().items()}
        load_weights(model.objective, initial | own | fitting, weights)


def start_networks_from(model: Model, sources: Mapping[str, Path]) -> None:
    """Take the weights of some networks of the objective from other trainings.

    sources  by the network's name, as `discriminator` or `model.generator`: a folder that has a network of this name,
             in its averaged model or beside it; or else whose averaged model it is

    Raises ConfigError for a name that the objective does not have, CheckpointError if a network does not fit.
    """
    assert model.objective is not None
    for name, folder in sources.items():
        try:
            network = model.objective.get_submodule(name)
        except AttributeError:
            raise ConfigError(f"train.initial_weights: the objective has no network '{name}'") from None
        average = read_average(folder)
        whole = {f"model.{key}": tensor for key, tensor in average.items()} | partners_in(folder)
        found = {key.removeprefix(f"{name}."): tensor for key, tensor in whole.items() if key.startswith(f"{name}.")}
        if not found and not name.startswith("model"):
            raise ConfigError(f"train.initial_weights: {folder} holds no {name}")
        own = {key: tensor for key, tensor in network.state_dict().items() if "features" in key.split(".")}
        load_weights(network, own | (found or average), folder)


def _is_regulariser(name: str) -> bool:
    """Whether a weight of an objective is a running statistic of a penalty or of an augmentation."""
    return name.split(".")[0] in ("penalty_modules", "augmentation")


def make_loader(config: Config, model: Model, images: Images) -> Loader:
    """Batches for training; what the codec encodes once is encoded now, which may take long. Raises UserError."""
    augment = build("augment", config.augment)
    source = model.codec.training_set(images, augment, model.device, config.data.val_batch_size)
    size, data = config.data.train_batch_size, config.data
    return Loader(source, size, config.exp.seed, model.device, data.workers, data.keep_on_device)


def make_trainer(
    config: Config, model: Model, batches: Callable[[int], Generator[tuple[Tensor, Tensor], None, None]]
) -> Trainer:
    """A trainer of the model's objective on batches from a given step on. Raises ConfigError."""
    objective = model.objective
    assert objective is not None
    ema = build("ema", config.ema, model=model.model)
    pieces = distributed.world_size() * config.train.grad_accumulation
    if config.data.train_batch_size % pieces:
        raise ConfigError(
            f"data.train_batch_size: {config.data.train_batch_size} images cannot be split evenly over "
            f"{distributed.world_size()} processes and train.grad_accumulation={config.train.grad_accumulation}"
        )
    networks = {phase.network for phase in objective.phases(1)}
    for name in sorted(networks ^ {*config.optimizers}):
        wrong = "is missing" if name in networks else "the objective has no network of this name"
        raise ConfigError(f"optimizers.{name}: {wrong}")
    optimizers = {
        name: build("optimizer", part, f"optimizers.{name}", network=getattr(objective, name))
        for name, part in config.optimizers.items()
    }
    for optimizer in optimizers.values():
        optimizer.scaler = LossScaler(model.device.type, enabled=model.precision == "fp16")
    if config.train.compile:
        check_compiler(model.device)
        for name in config.optimizers:
            getattr(objective, name).compile()

    augment = build("augment", config.augment)

    def encode(pixels: Tensor) -> Tensor:
        encoded = model.codec.training_input(pixels, augment)
        return encoded.contiguous(memory_format=torch.channels_last) if model.channels_last else encoded

    return Trainer(
        objective,
        batches,
        encode,
        optimizers,
        build("schedule", config.schedule, steps=config.train.steps),
        ema,
        model.autocast,
        config.exp.seed,
        config.train.grad_accumulation,
        config.train.grad_clip,
        config.train.max_skipped_steps,
    )
