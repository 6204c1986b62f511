"""Metrics of a configuration: in which feature spaces, and compared with which images."""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foodgen.builders.models import Model, check_classes, find_images, folder_of, load_pretrained, trained_config
from foodgen.core.errors import ConfigError
from foodgen.core.registry import build, metrics, suggestion
from foodgen.core.settings import Config
from foodgen.core.types import FeatureSpace, Images, Metric
from foodgen.evaluation.sampling import ModelEvaluator
from foodgen.evaluation.scoring import MetricGroup, MetricSpec, Scorer
from foodgen.metrics.diversity import diversity
from foodgen.metrics.feature_cache import Subset, features_in_chunks, features_of
from foodgen.training.run_folder import checkpoint_in

DEFAULT_SPACE, MODEL = "inception", "model"


def metric_specs(names: Sequence[str]) -> list[MetricSpec]:
    """The metrics of these names, such as fid or classifier/fid, built. Raises ConfigError."""
    found = []
    for name in names:
        space, _, own = name.rpartition("/")
        try:
            metric: Metric = metrics[own]()
        except ConfigError as error:
            raise ConfigError(f"metrics: {error}") from None
        if metric.of_model and space:
            raise ConfigError(f"metrics: {name}: {own} is a metric of models, not of features")
        found.append(MetricSpec(name, MODEL if metric.of_model else space or DEFAULT_SPACE, metric))
    return found


def of_images(specs: Sequence[MetricSpec]) -> list[MetricSpec]:
    """Those that compare generated images with real ones."""
    return [spec for spec in specs if not spec.metric.of_model]


def check_sampler(config: Config, specs: Sequence[MetricSpec]) -> None:
    """Raise ConfigError for metrics of generated images where none are generated."""
    if of_images(specs) and config.sampler["name"] == "none":
        raise ConfigError(f"sampler.name: none generates no images, which {of_images(specs)[0].name} needs")


def make_scorer(
    config: Config,
    specs: Sequence[MetricSpec],
    reference: Images | None,
    device: torch.device,
    training: Images | None = None,
    precision: str = "fp32",
    model: Model | None = None,
) -> Scorer | None:
    """A scorer of images, and of their model, against `reference`; None if there are no metrics. Raises UserError.

    training   the training images, for metrics and real-data baselines
    precision  of the Inception network: fp32 for published numbers
    model      for metrics of models
    """
    if not specs:
        return None
    assert reference is not None
    chosen = of_images(specs)
    groups = []
    for name in dict.fromkeys(spec.space for spec in chosen):
        space = _space(config, name, reference.classes, device, precision)
        own = [spec for spec in chosen if spec.space == name]
        for spec in own:
            _check(spec, space, prefix=f"{spec.name}: ")
            if spec.metric.needs_training and training is None:
                raise ConfigError(
                    f"{spec.name} needs the training images, and other ones to compare with: data.input_train_dir: "
                    f"{config.data.input_train_dir}, data.input_val_dir: {config.data.input_val_dir}"
                )
        groups.append(_group(config, space, own, reference, training))
    scorer = Scorer(
        groups, reference, diversity, precision, of_reference=training_is_reference(config), training=training
    )
    return for_model(scorer, config, specs, model)


def for_model(scorer: Scorer, config: Config, specs: Sequence[MetricSpec], model: Model | None) -> Scorer:
    """A scorer for this model that shares feature spaces and real-data baselines with another. Raises ConfigError."""
    own = copy.copy(scorer)
    own.of_model = [spec for spec in specs if spec.metric.of_model]
    for spec in own.of_model:
        if model is None:
            raise ConfigError(f"metrics: {spec.name} is a metric of models, and there are images alone")
        _check(spec, model.model, prefix="")
        size = config.data.val_batch_size
        own.evaluate = ModelEvaluator(scorer.reference, model.codec.encode, model.device, size, model.autocast)
    return own


def _check(spec: MetricSpec, subject: FeatureSpace | nn.Module, prefix: str) -> None:
    try:
        spec.metric.check(subject)
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None


def _space(config: Config, name: str, classes: Sequence[str], device: torch.device, precision: str) -> FeatureSpace:
    node = config.spaces.get(name)
    if node is None:
        known = [label for label, part in config.spaces.items() if part is not None]
        raise ConfigError(f"spaces.{name}: there is no such feature space; {suggestion(name, known)}")
    space: FeatureSpace = build(
        "spaces",
        node,
        f"spaces.{name}",
        device=device,
        weights=Path(config.data.inception_weights) if config.data.inception_weights else None,
        load_pretrained=partial(load_pretrained, classes=classes, device=device),
        image_size=config.data.image_size,
        precision=precision,
    )
    return space


def spaces_trained_against(config: Config) -> list[str]:
    """Feature spaces whose network took part in the training, the codec's included: their numbers flatter the model."""
    used = {*_feature_networks(config.objective)}
    path = config.codec.get("path")
    if path and config.codec["name"] != "diffusers_vae":
        used |= {*_feature_networks(trained_config(checkpoint_in(Path(path)))["objective"])}
    return [label for label, node in config.spaces.items() if used & {*_feature_networks(node)}]


def _feature_networks(node: Any) -> Iterator[str]:
    """Names of the feature networks within a configuration node."""
    for key, part in node.items() if isinstance(node, dict) else []:
        if key == "features" and isinstance(part, dict):
            yield part["name"]
        yield from _feature_networks(part)


def check_names(asked: Sequence[str] | None, classes: Sequence[str]) -> None:
    """Raise ConfigError for a class of `inference.classes` that there is not."""
    for name in asked or []:
        if name not in classes:
            raise ConfigError(f"inference.classes: no class is named '{name}'; {suggestion(name, classes)}")


def training_is_reference(config: Config) -> bool:
    """Whether the training images are what is compared with."""
    return folder_of(config, "input_train_dir").resolve() == folder_of(config, "input_val_dir").resolve()


def find_training(config: Config, classes: Sequence[str]) -> Images | None:
    """The training images; None if there are none, or if they are what is compared with. Raises UserError."""
    folder = folder_of(config, "input_train_dir")
    if training_is_reference(config) or not folder.is_dir():
        return None
    images = find_images(config, "input_train_dir")
    check_classes(images.classes, classes, folder)
    return images


def find_reference(config: Config, classes: Sequence[str]) -> Images:
    """The images to score against, of the same classes. Raises UserError."""
    reference = find_images(config, "input_val_dir")
    check_classes(reference.classes, classes, Path(config.data.input_val_dir))
    return reference


def _group(
    config: Config, space: FeatureSpace, specs: Sequence[MetricSpec], reference: Images, training: Images | None
) -> MetricGroup:
    """The metrics of one space; features of real images are cached beside their folders."""
    size = config.data.val_batch_size
    caches = {
        key: (folder := folder_of(config, key)).with_name(folder.name + ".features")
        for key in ("input_train_dir", "input_val_dir")
    }

    def of_training_images(indices: Sequence[int]) -> Tensor:
        assert training is not None
        return features_of(space, Subset(training, indices), size, caches["input_train_dir"])

    def of_all_training_images() -> Iterator[Tensor]:
        assert training is not None
        return features_in_chunks(space, training, size, caches["input_train_dir"])

    real: Callable[[], Tensor] = cache(partial(features_of, space, reference, size, caches["input_val_dir"]))
    return MetricGroup(space, specs, real, of_all_training_images, of_training_images)
