"""What the page asks of a model: checked, sampled, and written into the images."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from PIL import Image

from foodgen.core.errors import UserError

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
    if request.model not in models:
        raise UserError(f"model: there is no '{request.model}'")
    model = models[request.model]
    if not request.dishes:
        raise UserError("dishes: choose at least one")
    unknown = [name for name in request.dishes if name not in model.classes]
    if unknown:
        raise UserError(f"dishes: this model does not know {unknown[0]}")
    if not len(request.dishes) <= request.count <= most:
        raise UserError(f"images: {request.count} is not between {len(request.dishes)}, one a dish, and {most}")
    if not 0 <= request.seed < 2**31:
        raise UserError(f"seed: {request.seed} is not between 0 and {2**31 - 1}")
    return model


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
    """Write settings into the image, from where they go into its PNG file."""
    image.info[TEXT] = json.dumps(settings)


def readable(name: str) -> str:
    """A class folder's name as words."""
    return name.replace("_", " ")
