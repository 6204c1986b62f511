"""Models of a configuration or a checkpoint, and what draws with them: what training and inference share."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from foodgen.core.devices import find_autocast, find_channels_last, find_precision
from foodgen.core.errors import ConfigError, DataError
from foodgen.core.registry import build
from foodgen.core.settings import Config
from foodgen.core.types import Codec, Objective
from foodgen.engine.checkpoint import CONFIG, read_average, read_meta
from foodgen.engine.evaluator import Drawer
from foodgen.engine.run_folder import checkpoint_in
from foodgen.engine.session import load


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
    precision: str
    channels_last: bool
    ambient: dict[str, Any]

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """A context for the networks."""
        return find_autocast(self.precision, self.device)


def make_model(config: Config, classes: Sequence[str], device: torch.device, alone: bool = False) -> Model:
    """The objective, its initial weights following from exp.seed, and a drawer. Raises ConfigError.

    alone  leave the objective out: drawing needs the model and nothing of what it is trained against
    """
    helpers: dict[str, Any] = {"trained": partial(load_trained, classes=classes, device=device), "device": device}
    torch.manual_seed(config.exp.seed)
    codec = build("codec", config.codec, image_size=config.data.image_size, **helpers)
    ambient = {"classes": len(classes), "channels": codec.shape[0], "image_size": codec.shape[-1]}
    torch.manual_seed(config.exp.seed)
    if alone:
        objective, model = None, build("model", config.objective["model"], "objective.model", **ambient).to(device)
    else:
        objective = build("objective", config.objective, **ambient).to(device)
        model = objective.model
    guidance = build("guidance", config.guidance, **ambient, **helpers)
    examples = partial(_examples, cache(lambda: find_images(config, "input_val_dir")), codec, device)
    sampler = build("sampler", config.sampler, guidance=guidance, examples=examples)
    try:
        sampler.check(model)
    except ValueError as error:
        raise ConfigError(f"sampler.{error}") from None
    precision = find_precision(config.train.precision, device)
    autocast = find_autocast(precision, device)
    channels_last = find_channels_last(config.train.channels_last, device)
    if channels_last:
        (objective or model).to(memory_format=torch.channels_last)
    drawer = Drawer(sampler, codec, device, config.data.val_batch_size, autocast)
    return Model(model, objective, codec, drawer, device, precision, channels_last, ambient)


def _examples(
    images: Callable[[], Any], codec: Codec, device: torch.device, labels: Tensor, numbers: Sequence[int]
) -> Tensor:
    """Encoded images of these labels: of a label's images the one of that number, over again where they end."""
    real = images()
    chosen = []
    for label, number in zip(labels.tolist(), numbers, strict=True):
        places = [place for place, other in enumerate(real.labels) if other == label]
        chosen.append(real[places[number % len(places)]][0])
    return codec.encode(torch.stack(chosen).to(device))


def load_trained(path: str, classes: Sequence[str], device: torch.device) -> torch.nn.Module:
    """The averaged model of a checkpoint, an exported folder or a run's folder, frozen. Raises UserError.

    classes  that the model must have been trained on, as far as it knows any
    """
    checkpoint = checkpoint_in(Path(path))
    meta = read_meta(checkpoint)
    tree = OmegaConf.to_container(OmegaConf.load(checkpoint / CONFIG))
    assert isinstance(tree, dict)
    node = tree["objective"]["model"]
    helpers: dict[str, Any] = {"trained": partial(load_trained, classes=classes, device=device), "device": device}
    codec = build("codec", tree["codec"], f"{path}: codec", image_size=tree["data"]["image_size"], **helpers)
    ambient = {"classes": len(meta["classes"]), "channels": codec.shape[0], "image_size": codec.shape[-1]}
    model: torch.nn.Module = build("model", node, f"{path}: objective.model", **ambient)
    if not hasattr(model, "encode"):  # an autoencoder knows no classes
        check_classes(meta["classes"], classes, checkpoint)
    load(model, read_average(checkpoint), checkpoint)
    return model.to(device).eval().requires_grad_(False)


def with_trained_parts(config: Config, checkpoint: Path) -> Config:
    """The configuration with the parts that a checkpoint's weights belong to.

    Its codec may be given another path: what it was trained with may have moved.
    """
    trained = OmegaConf.to_container(OmegaConf.load(checkpoint / CONFIG))
    assert isinstance(trained, dict)
    data = replace(config.data, image_size=trained["data"]["image_size"])
    codec = trained["codec"] | (config.codec if config.codec["name"] == trained["codec"]["name"] else {})
    return replace(config, data=data, objective=trained["objective"], codec=codec)


def check_classes(found: Sequence[str], wanted: Sequence[str], where: Path) -> None:
    """Raise DataError, naming some that differ, unless both are the same."""
    if list(found) != list(wanted):
        odd = sorted({*found} ^ {*wanted})
        raise DataError(
            f"{where}: has {len(found)} classes, training has {len(wanted)}; they differ in {', '.join(odd[:5])}"
        )
