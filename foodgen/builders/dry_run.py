"""What a training would be and cost, found out by a few steps that leave nothing behind."""

import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch

from foodgen.builders.models import Model, make_model
from foodgen.builders.training import checkpoint_bytes, make_trainer
from foodgen.core.config import to_yaml
from foodgen.core.devices import find_device
from foodgen.core.registry import build, datasets
from foodgen.core.settings import Config
from foodgen.reporting.sizes import multiply_adds, weights
from foodgen.training.trainer import Trainer

STEPS, MOST = 3, 32  # timed steps, after a first one; images of each, if a batch has more
COSTED = 10  # images in a step whose cost is counted


def describe(config: Config) -> str:
    """The resolved configuration, weights, multiply-adds, speed, memory and disk. Raises UserError."""
    device = find_device(config.exp.device)
    made = make_model(config, _classes(config), device)
    objective = made.objective
    assert objective is not None
    trainer = make_trainer(config, made, batches=cast(Any, None))  # none are read: steps are given their images
    trained = ", ".join(f"{name} {weights(getattr(objective, name), trained=True):,}" for name in config.optimizers)
    frozen = weights(objective, trained=False)
    count = min(config.data.train_batch_size, MOST)
    speed = _speed(trainer, made, config.data.image_size, count)
    size, kept = checkpoint_bytes(trainer), config.train.keep_checkpoints + 2
    lines = [
        f"weights: {trained}" + (f"; frozen {frozen:,}" if frozen else ""),
        f"speed: {speed:.1f} images a second in steps of {count}; "
        f"all {config.train.steps:,} steps of {config.data.train_batch_size} take "
        f"{config.train.steps * config.data.train_batch_size / speed / 3600:.1f} hours",
        f"memory: {_peak_memory(device) / 1e9:.1f} GB at most in such steps",
        f"disk: {size / 1e6:.0f} MB a checkpoint, {kept * size / 1e6:.0f} MB for the run",
    ]
    for weight in (weight for of_network in trainer.weights.values() for weight in of_network):
        weight.requires_grad_(True)  # a step leaves those of its last phase alone trainable
    cost = training_cost(config, made)  # last: it leaves the networks without their numbers
    lines.insert(1, f"multiply-adds: {cost / 1e9:.2f} billion an image in training, backward passes included")
    return "\n".join([to_yaml(config), *lines])


def _classes(config: Config) -> list[str]:
    """Names of the classes, without packing or drawing images."""
    folder = Path(config.data.input_train_dir)
    synthetic = getattr(datasets[str(config.dataset.get("name"))], "drawn_classes", None)
    if synthetic and not folder.exists():
        return list(synthetic())
    return list(build("dataset", {"name": "folder"}, folder=folder, image_size=config.data.image_size).classes)


def _batch(image_size: int, count: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(0, 256, (count, 3, image_size, image_size), dtype=torch.uint8, device=device)
    return images, torch.zeros(count, dtype=torch.long, device=device)


def _speed(trainer: Trainer, made: Model, image_size: int, count: int) -> float:
    """Images a second, the median of a few steps."""
    images, labels = _batch(image_size, count, made.device)
    trainer.objective.train()
    rates = []
    for step in range(1, STEPS + 2):
        began = time.perf_counter()
        logged = trainer.step(step, images, labels)
        next(iter(logged.values())).item()  # waits for the device
        rates.append(count / (time.perf_counter() - began))
    return median(rates[1:])


def training_cost(config: Config, made: Model) -> float:
    """Multiply-adds of one image in a step without lazy penalties; the networks are left on the device meta."""
    assert made.objective is not None
    made.objective.train().to("meta")  # shapes alone tell the cost
    trainer = make_trainer(config, made, batches=cast(Any, None))
    images, labels = _batch(config.data.image_size, COSTED, "meta")
    return multiply_adds(lambda: trainer.step(1, images, labels)) / COSTED


def _peak_memory(device: torch.device) -> float:
    """Bytes: the device's, or this process's where it is the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
