"""Models of a configuration or a checkpoint, and the loop that samples from them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.core.aliases import read_folder
from foodgen.core.config import read_saved
from foodgen.core.devices import find_autocast, find_channels_last, find_precision
from foodgen.core.errors import CheckpointError, ConfigError, DataError
from foodgen.core.networks import Autoencoder
from foodgen.core.registry import build
from foodgen.core.settings import Config
from foodgen.core.types import Codec, Images, Objective
from foodgen.evaluation.sampling import SamplingLoop
from foodgen.training.checkpoint import CONFIG, load_weights, read_average, read_meta
from foodgen.training.run_folder import checkpoint_in

# what a model is built from, and of which type it must be in a checkpoint's configuration
TRAINED = {"data.image_size": int, "codec.name": str, "objective.name": str, "objective.model.name": str}


def folder_of(config: Config, key: str) -> Path:
    """The folder `data.<key>`."""
    return read_folder(Path(getattr(config.data, key)))


def find_images(config: Config, key: str) -> Images:
    """The images in the folder `data.<key>`. Raises ConfigError naming the key, or DataError."""
    folder = folder_of(config, key)
    try:
        images: Images = build("dataset", config.dataset, folder=folder, image_size=config.data.image_size)
    except DataError as error:
        raise DataError(f"data.{key}: {error}") from None
    return images


@dataclass
class Model:
    """What training and inference share: a model, the objective around it in training, and how to sample from it."""

    model: nn.Module
    objective: Objective | None
    codec: Codec
    sampling: SamplingLoop
    device: torch.device
    precision: str
    channels_last: bool

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[Any]]:
        """A context for the networks."""
        return find_autocast(self.precision, self.device)


def make_model(
    config: Config,
    classes: Sequence[str],
    device: torch.device,
    model_only: bool = False,
    checkpoint: Path | None = None,
) -> Model:
    """The objective, its initial weights following from exp.seed, and a sampling loop. Raises UserError.

    model_only  build no objective: sampling needs the model, and not the networks that it is trained against
    checkpoint  whose weights it is going to take, trained on these classes and with this codec
    """
    if checkpoint is not None:
        check_classes(read_meta(checkpoint)["classes"], classes, checkpoint)
    # pixels to the model's input, which says what the networks are built for
    pretrained = _pretrained(classes, device)
    torch.manual_seed(config.exp.seed)
    codec: Codec = build("codec", config.codec, image_size=config.data.image_size, **pretrained)
    if checkpoint is not None:
        check_codec(codec, config.codec, checkpoint)
    sizes: dict[str, Any] = {"classes": len(classes), "channels": codec.shape[0], "image_size": codec.shape[-1]}
    # networks
    torch.manual_seed(config.exp.seed)
    objective: Objective | None = None
    if model_only:
        model = build("model", config.objective["model"], "objective.model", **sizes).to(device)
    else:
        objective = build("objective", config.objective, **sizes).to(device)
        model = objective.model
    channels_last = find_channels_last(config.train.channels_last, device)
    if channels_last:
        network: Any = objective or model
        network.to(memory_format=torch.channels_last)
    precision = find_precision(config.train.precision, device)
    sampling = make_sampling(config, classes, model, codec, device)
    return Model(model, objective, codec, sampling, device, precision, channels_last)


def make_sampling(
    config: Config, classes: Sequence[str], model: nn.Module, codec: Codec, device: torch.device
) -> SamplingLoop:
    """The sampling loop of a model, with the configuration's sampler and guidance. Raises ConfigError."""
    sizes: dict[str, Any] = {"classes": len(classes), "channels": codec.shape[0], "image_size": codec.shape[-1]}
    guidance = build("guidance", config.guidance, **sizes, **_pretrained(classes, device))
    examples = partial(_examples, cache(partial(find_images, config, "input_val_dir")), codec, device)
    sampler = build("sampler", config.sampler, guidance=guidance, examples=examples)
    try:
        sampler.check(model)
    except ValueError as error:
        raise ConfigError(f"sampler.{error}") from None
    autocast = find_autocast(find_precision(config.train.precision, device), device)
    return SamplingLoop(sampler, codec, device, config.data.val_batch_size, autocast)


def _pretrained(classes: Sequence[str], device: torch.device) -> dict[str, Any]:
    """What parts that load other models may ask for."""
    return {"load_pretrained": partial(load_pretrained, classes=classes, device=device), "device": device}


def _examples(
    images: Callable[[], Images], codec: Codec, device: torch.device, labels: Tensor, indices: Sequence[int]
) -> Tensor:
    """Encoded images of these labels: of a label's images the one of that index, starting over where they end."""
    real = images()
    chosen = []
    for label, index in zip(labels.tolist(), indices, strict=True):
        own = [position for position, other in enumerate(real.labels) if other == label]
        if not own:
            raise DataError(f"data.input_val_dir: {real.listing.folder}: there is no image of class {label} to sample")
        chosen.append(real[own[index % len(own)]][0])
    return codec.encode(torch.stack(chosen).to(device))


def load_pretrained(path: str, classes: Sequence[str], device: torch.device) -> nn.Module:
    """The averaged model of a checkpoint, an exported folder or a run's folder, frozen. Raises UserError.

    classes  that the model must have been trained on, if it knows any
    """
    checkpoint = checkpoint_in(Path(path))
    meta, tree = read_meta(checkpoint), trained_config(checkpoint)
    pretrained, node = _pretrained(classes, device), _found_beside(tree["codec"], checkpoint)
    codec: Codec = build("codec", node, f"{path}: codec", image_size=tree["data"]["image_size"], **pretrained)
    check_codec(codec, node, checkpoint)
    sizes: dict[str, Any] = {"classes": len(meta["classes"]), "channels": codec.shape[0], "image_size": codec.shape[-1]}
    model: nn.Module = build("model", tree["objective"]["model"], f"{path}: objective.model", **sizes)
    if not isinstance(model, Autoencoder) or model.conditional:  # others know no classes
        check_classes(meta["classes"], classes, checkpoint)
    load_weights(model, read_average(checkpoint), checkpoint)
    return model.to(device).eval().requires_grad_(False)


def with_trained_parts(config: Config, checkpoint: Path) -> Config:
    """The configuration with the parts that a checkpoint's weights belong to.

    Its codec may have another path, since what it was trained with may have moved, or lie in the checkpoint's folder.
    Raises ConfigError for another image size.
    """
    trained = trained_config(checkpoint)
    size, asked = trained["data"]["image_size"], config.data.image_size
    if size != asked:
        raise ConfigError(f"data.image_size: {asked}, but {checkpoint} was trained at {size}")
    codec = dict(trained["codec"])
    if config.codec.get("name") == codec["name"] and "path" in config.codec:
        codec["path"] = config.codec["path"]
    return replace(config, objective=trained["objective"], codec=_found_beside(codec, checkpoint))


def _found_beside(codec: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A codec whose path is looked up in the checkpoint's folder first: both may be shipped together."""
    beside = checkpoint / str(codec.get("path") or "")
    return {**codec, "path": str(beside)} if codec.get("path") and beside.is_dir() else {**codec}


def trained_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration in a checkpoint or exported folder, with the parts that its model is built from.

    Raises ConfigError, naming the file, if one of them is not there.
    """
    path = checkpoint / CONFIG
    tree = read_saved(path)
    for key, kind in TRAINED.items():
        found: Any = tree
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ConfigError(f"{path}: {key} cannot be {found!r:.40}")
    return tree


def check_codec(codec: Codec, node: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise CheckpointError if a checkpoint's model was trained with other weights of the codec, where it says so."""
    trained = read_meta(checkpoint).get("codec")
    if trained is not None and trained != codec.identity:
        there = trained_config(checkpoint)["codec"].get("path")
        raise CheckpointError(
            f"codec.path: {node.get('path')} has other weights ({codec.identity}) than what {checkpoint} was trained "
            f"with: {there} ({trained})"
        )


def check_classes(found: Sequence[str], expected: Sequence[str], where: Path) -> None:
    """Raise DataError, naming some that differ, unless both are the same."""
    if list(found) != list(expected):
        different = sorted({*found} ^ {*expected})
        if not different:
            first = next(one for one, other in zip(found, expected, strict=True) if one != other)
            raise DataError(f"{where}: has the same classes as training in another order, from {first} on")
        raise DataError(
            f"{where}: has {len(found)} classes, training has {len(expected)}; they differ in "
            f"{', '.join(different[:5])}"
        )
