"""What the page asks of a model: checked, sampled, and written into the images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

from PIL import Image

from foodgen.core.errors import UserError
from foodgen.web.values import BOUNDS, MOST_SEED, brief, number

TEXT = "foodgen"  # the PNG text chunk with an image's settings


class Pictures(Protocol):
    """The part of `builders.pipeline.Pipeline` that the page uses."""

    classes: list[str]

    @property
    def settings(self) -> dict[str, Any]: ...
    def trajectory(
        self, classes: Sequence[str] | None, seed: int, count: int | None, **settings: Any
    ) -> Iterator[list[Image.Image]]: ...
    def interpolate(
        self, classes: tuple[str, str], seeds: tuple[int, int], positions: Sequence[float], **settings: Any
    ) -> list[Image.Image]: ...
    def variations(
        self, name: str, seed: int, index: int, count: int, strength: float, **settings: Any
    ) -> list[Image.Image]: ...


@dataclass(frozen=True)
class Request:
    """Images of some dishes from one seed, with a model's settings."""

    model: str
    dishes: tuple[str, ...]
    count: int
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)


def check(request: Request, models: Mapping[str, Pictures], most: int) -> Pictures:
    """The model that is asked for. Raises UserError for what it cannot do."""
    model = model_of(request.model, models)
    if not request.dishes:
        raise UserError("dishes: choose at least one")
    if not len(request.dishes) <= number("images", request.count) <= most:
        raise UserError(f"images: {brief(request.count)} is not between {len(request.dishes)}, one a dish, and {most}")
    unknown = [name for name in request.dishes if name not in model.classes]
    if unknown:
        raise UserError(f"dishes: this model does not know {brief(unknown[0])}")
    number("seed", request.seed, 0, MOST_SEED)
    for name, value in request.settings.items():
        low, high = BOUNDS[name]
        lowest, *end = value if name == "interval" else [value]
        for one in [lowest] if end == [None] else [lowest, *end]:
            number(name, one, low, high)
    return model


def model_of(name: Any, models: Mapping[str, Pictures]) -> Pictures:
    """The model of this name. Raises UserError if there is none."""
    if not isinstance(name, str) or name not in models:
        raise UserError(f"model: there is no {brief(name, quoted=True)}")
    return models[name]


def dishes_in_order(request: Request, classes: Sequence[str]) -> list[str]:
    """The dish of each image, as `Pipeline.sample` orders them."""
    chosen = [request.dishes[index % len(request.dishes)] for index in range(request.count)]
    return sorted(chosen, key=list(classes).index)


def generate(request: Request, model: Pictures) -> Iterator[list[tuple[Image.Image, str]]]:
    """Images with captions, after each step; the last ones carry their settings."""
    dishes = dishes_in_order(request, model.classes)
    steps = model.trajectory(list(request.dishes), request.seed, request.count, **request.settings)
    images: list[Image.Image] = []
    for images in steps:
        yield list(zip(images, map(readable, dishes), strict=True))
    for index, image in enumerate(images):
        sign(image, asdict(request) | {"dish": dishes[index], "index": index})
    yield list(zip(images, map(readable, dishes), strict=True))


def sign(image: Image.Image, settings: Mapping[str, Any]) -> None:
    """Write settings into the image, from where they go into its PNG file. Of a model's path its name alone."""
    image.info[TEXT] = json.dumps({**settings, "model": public(settings["model"])})


def public(model: str) -> str:
    """A model's name without the folders of this machine that it lies in."""
    return model if model.startswith("hub:") else PurePath(model).name or "model"


def readable(name: str) -> str:
    """A class folder's name as words."""
    return name.replace("_", " ")
