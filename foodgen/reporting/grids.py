"""Grids of images with the names of their classes."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from foodgen.core.files import atomic

CAPTION, GAP = 13, 4  # pixels


def labelled_grid(images: Tensor, labels: Sequence[int], classes: Sequence[str], per_class: int = 8) -> Image.Image:
    """A picture of up to `per_class` images of each class, each class a strip under its name.

    images  uint8 (n, 3, size, size), classes together
    """
    numbered = sorted(zip(labels, range(len(images)), strict=True))
    strips = [
        (classes[label], [number for _, number in group][:per_class])
        for label, group in groupby(numbered, key=lambda pair: pair[0])
    ]
    size = images.shape[-1]
    width = max(len(numbers) for _, numbers in strips) * size + GAP
    height = size + CAPTION + GAP
    columns = max(1, round(math.sqrt(len(strips) * height / width)))
    rows = math.ceil(len(strips) / columns)
    picture = Image.new("RGB", (columns * width + GAP, rows * height + GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=10)
    for place, (name, numbers) in enumerate(strips):
        x, y = GAP + (place // rows) * width, GAP + (place % rows) * height
        room = width - GAP
        while draw.textlength(name, font=font) > room:
            name = name[:-1]
        draw.text((x, y), name, fill="black", font=font)
        for offset, number in enumerate(numbers):
            pixels = images[number].permute(1, 2, 0).cpu().numpy()
            picture.paste(Image.fromarray(pixels), (x + offset * size, y + CAPTION))
    return picture


def save_grid(images: Tensor, labels: Sequence[int], classes: Sequence[str], path: Path, per_class: int = 8) -> None:
    """Write the labelled grid, whole or not at all; small grids are enlarged for the eye."""
    picture = labelled_grid(images, labels, classes, per_class)
    if max(picture.size) < 700:
        picture = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    with atomic(path) as temporary:
        picture.save(temporary, "PNG")
