"""What judges models and their pictures: metrics in feature spaces, measures, and the images to compare with."""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foodgen.assembly import Model, check_classes, find_images, load_trained
from foodgen.core.errors import ConfigError
from foodgen.core.registry import build, metrics, suggestion
from foodgen.core.settings import Config
from foodgen.core.types import FeatureSpace
from foodgen.engine.evaluator import Measurer
from foodgen.engine.scoring import Judge, Panel, Scorer
from foodgen.metrics.collapse import spread
from foodgen.metrics.spaces import chunks_of, features_of

USUAL = "inception"  # the space of metrics that are asked for without one


def judges(names: Sequence[str]) -> list[Any]:
    """The metrics and measures of these names, such as fid or classifier/fid, built. Raises ConfigError."""
    found = []
    for name in names:
        space, _, own = name.rpartition("/")
        try:
            made = metrics[own]()
        except ConfigError as error:
            raise ConfigError(f"metrics: {error}") from None
        if made.of_models and space:
            raise ConfigError(f"metrics: {name}: {own} looks at models, not at features")
        found.append(made if made.of_models else Judge(name, space or USUAL, made))
    return found


def check_draws(config: Config, wanted: Sequence[Any]) -> None:
    """Raise ConfigError for metrics of drawn images where none are drawn."""
    drawn = [judge.name for judge in wanted if not judge.of_models]
    if drawn and config.sampler["name"] == "none":
        raise ConfigError(f"sampler.name: none draws no images, and {drawn[0]} wants some")


def make_scorer(
    config: Config,
    wanted: Sequence[Any],
    reference: Any,
    device: torch.device,
    training: Any = None,
    precision: str = "fp32",
) -> Scorer | None:
    """A scorer of images against `reference` by the wanted metrics, or None without any. Raises UserError.

    training   the training images, for metrics and floors that look at them
    precision  of the Inception network: fp32 for numbers that are published
    """
    chosen = [judge for judge in wanted if not judge.of_models]
    if not chosen:
        return None
    panels = []
    for name in dict.fromkeys(judge.space for judge in chosen):
        space = _space(config, name, reference.classes, device, precision)
        own = [judge for judge in chosen if judge.space == name]
        for judge in own:
            try:
                judge.metric.check(space)
            except ValueError as error:
                raise ConfigError(f"{judge.name}: {error}") from None
            if judge.metric.needs_training and training is None:
                raise ConfigError(
                    f"{judge.name} wants the training images, and other ones to compare with: data.input_train_dir: "
                    f"{config.data.input_train_dir}, data.input_val_dir: {config.data.input_val_dir}"
                )
        panels.append(_panel(config, space, own, reference, training))
    return Scorer(panels, reference, spread, config.data.val_batch_size, precision)


def _space(config: Config, name: str, classes: Sequence[str], device: torch.device, precision: str) -> FeatureSpace:
    node = config.spaces.get(name)
    if node is None:
        known = [label for label, part in config.spaces.items() if part is not None]
        raise ConfigError(f"spaces.{name}: there is no such feature space; {suggestion(name, known)}")
    weights = Path(config.data.inception_weights) if config.data.inception_weights else None
    trained = partial(load_trained, classes=classes, device=device)
    size = config.data.image_size
    ambient = {"device": device, "weights": weights, "trained": trained, "image_size": size, "precision": precision}
    space: FeatureSpace = build("spaces", node, f"spaces.{name}", **ambient)
    return space


def spaces_trained_against(config: Config) -> list[str]:
    """Feature spaces whose network took part in the training: their numbers flatter the model."""
    taught = {*_networks(config.objective)}
    return [label for label, node in config.spaces.items() if taught & {*_networks(node)}]


def _networks(node: Any) -> Iterator[str]:
    """Names of the feature networks within a configuration node."""
    for key, part in node.items() if isinstance(node, dict) else []:
        if key == "features" and isinstance(part, dict):
            yield part["name"]
        yield from _networks(part)


def find_training(config: Config, classes: Sequence[str]) -> Any:
    """The training images, or None where there are none, or where they are what is compared with. Raises UserError."""
    folder = Path(config.data.input_train_dir)
    if folder.resolve() == Path(config.data.input_val_dir).resolve() or not folder.is_dir():
        return None
    images = find_images(config, "input_train_dir")
    check_classes(images.classes, classes, folder)
    return images


def _panel(config: Config, space: FeatureSpace, own: Sequence[Judge], reference: Any, training: Any) -> Panel:
    """Features of real images are kept beside their folders."""
    size = config.data.val_batch_size
    kept = {
        key: (folder := Path(getattr(config.data, key))).with_name(folder.name + ".features")
        for key in ("input_train_dir", "input_val_dir")
    }

    def draw(indices: Sequence[int]) -> Tensor:
        return features_of(space, Chosen(training, indices), size, kept["input_train_dir"])

    def all_training() -> Iterator[Tensor]:
        return chunks_of(space, training, size, kept["input_train_dir"])

    real = cache(partial(features_of, space, reference, size, kept["input_val_dir"]))
    return Panel(space, own, real, all_training, draw)


class Chosen:
    """Some images of a set."""

    def __init__(self, images: Any, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images, uint8 (batch, 3, size, size), and class numbers, (batch,)."""
        batch: tuple[Tensor, Tensor] = self.images.batch([self.indices[place] for place in places])
        return batch


def make_measurer(config: Config, wanted: Sequence[Any], reference: Any, model: Model) -> Measurer | None:
    """What takes the wanted measures of a model on `reference`, or None without any. Raises ConfigError."""
    chosen = [judge for judge in wanted if judge.of_models]
    for measure in chosen:
        try:
            measure.check(model.model)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    size = config.data.val_batch_size
    return Measurer(chosen, reference, model.codec.encode, model.device, size, model.autocast) if chosen else None


def find_reference(config: Config, classes: Sequence[str]) -> Any:
    """The images to score against, of the same classes. Raises UserError."""
    reference = find_images(config, "input_val_dir")
    check_classes(reference.classes, classes, Path(config.data.input_val_dir))
    return reference
