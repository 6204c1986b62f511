"""The embedded default set: eight kinds of dishes on plates, drawn by code into class folders."""

import colorsys
import math
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from foodgen.core import distributed
from foodgen.core.randomness import seed_of
from foodgen.core.registry import datasets
from foodgen.data.packed import Packed

CANVAS = 256  # pixels a side that dishes are drawn at, before they are scaled down
Colour = tuple[int, int, int]


@datasets.add_to_registry(name="synthetic")
class Synthetic(Packed):
    """Class folders below `root`, drawn on first use, then read as photos are.

    folder     <root>/<split>; folders elsewhere are read but never drawn
    root       where dishes may be drawn
    per_class  images a class; the split named "train" has `factor` times as many
    """

    @staticmethod
    def drawn_classes() -> list[str]:
        """Names of the classes that would be drawn."""
        return sorted(DISHES)

    def __init__(
        self, folder: Path, image_size: int, root: Path = Path("data/synthetic"), per_class: int = 20, factor: int = 12
    ) -> None:
        inside = Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))
        if inside and not folder.exists() and distributed.is_main():
            draw_set(folder, image_size, per_class * (factor if folder.name == "train" else 1))
        distributed.barrier()
        super().__init__(folder, image_size)


def draw_set(folder: Path, image_size: int, per_class: int) -> None:
    """Draw `per_class` JPEGs of every dish into `folder`, which appears when all are drawn."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    for name in DISHES:
        (temporary / name).mkdir()
        for number in range(per_class):
            image = draw_dish(name, seed_of(folder.name, name, number), image_size)
            image.save(temporary / name / f"{number:05d}.jpg", quality=92)
    if folder.exists():
        shutil.rmtree(temporary)
    else:
        temporary.chmod(0o755)
        temporary.replace(folder)


def draw_dish(name: str, seed: int, size: int) -> Image.Image:
    """One dish on a plate on a table, (size, size) pixels, all its variety from `seed`."""
    rng = random.Random(seed)
    image = Image.new("RGB", (CANVAS, CANVAS), _hue(rng, 0.02, 0.65, 0.15, 0.5, 0.3, 0.75))
    draw = ImageDraw.Draw(image)
    x, y = (CANVAS / 2 + rng.uniform(-18, 18) for _ in range(2))
    plate = rng.uniform(92, 116)
    _disc(draw, x + 5, y + 7, plate + 2, (50, 45, 45))
    rim = _hue(rng, 0.0, 1.0, 0.0, 0.16, 0.86, 1.0)
    _disc(draw, x, y, plate, rim)
    _disc(draw, x, y, plate * 0.76, _shade(rim, 0.94))
    DISHES[name](draw, rng, x, y, plate * rng.uniform(0.66, 0.76))
    return _light(image.resize((size, size), Image.Resampling.BOX), rng)


def _fried_eggs(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    for turn in _turns(rng, rng.choice([1, 2, 2, 3])):
        away = 0.0 if turn is None else r * 0.5
        px, py = x + away * math.cos(turn or 0), y + away * math.sin(turn or 0)
        _blob(draw, rng, px, py, r * rng.uniform(0.5, 0.62), (252, 250, 244))
        yolk = _hue(rng, 0.1, 0.14, 0.8, 1.0, 0.9, 1.0)
        _disc(draw, px, py, r * 0.25, yolk)
        _disc(draw, px - r * 0.08, py - r * 0.08, r * 0.06, (255, 240, 190))


def _pizza(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    r *= 1.2
    _blob(draw, rng, x, y, r, _hue(rng, 0.08, 0.1, 0.55, 0.7, 0.7, 0.85), 0.03)
    _blob(draw, rng, x, y, r * 0.87, _hue(rng, 0.11, 0.14, 0.5, 0.7, 0.9, 1.0), 0.03)
    for px, py in _scatter(rng, rng.randint(6, 11), x, y, r * 0.68):
        _disc(draw, px, py, r * 0.15, _hue(rng, 0.0, 0.03, 0.75, 0.9, 0.6, 0.8))
    for px, py in _scatter(rng, rng.randint(0, 9), x, y, r * 0.72):
        _disc(draw, px, py, r * 0.05, _hue(rng, 0.28, 0.36, 0.5, 0.8, 0.3, 0.5))


def _donuts(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    r *= 1.05
    _disc(draw, x, y, r, _hue(rng, 0.07, 0.09, 0.55, 0.7, 0.6, 0.75))
    glaze = rng.choice([(245, 140, 180), (95, 50, 25), (250, 245, 235), (150, 200, 240)])
    _blob(draw, rng, x, y, r * 0.86, glaze, 0.05)
    for _ in range(rng.randint(15, 30)):
        turn, away = rng.uniform(0, 2 * math.pi), r * rng.uniform(0.42, 0.74)
        px, py, tilt = x + away * math.cos(turn), y + away * math.sin(turn), rng.uniform(0, math.pi)
        end = (px + 6 * math.cos(tilt), py + 6 * math.sin(tilt))
        draw.line([(px, py), end], fill=_hue(rng, 0.0, 1.0, 0.7, 1.0, 0.8, 1.0), width=3)
    _disc(draw, x, y, r * 0.34, _hue(rng, 0.07, 0.09, 0.5, 0.6, 0.5, 0.6))
    _disc(draw, x, y, r * 0.27, (238, 236, 232))


def _salad(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    for px, py in _scatter(rng, 34, x, y, r * 0.9):
        _blob(draw, rng, px, py, r * rng.uniform(0.16, 0.3), _hue(rng, 0.22, 0.36, 0.55, 0.9, 0.35, 0.8), 0.25)
    for px, py in _scatter(rng, rng.randint(3, 6), x, y, r * 0.75):
        _disc(draw, px, py, r * 0.15, _hue(rng, 0.98, 1.02, 0.8, 0.95, 0.75, 0.95))
        _disc(draw, px - 2, py - 2, r * 0.06, (240, 130, 110))


def _sushi(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    filling = _hue(rng, 0.01, 0.1, 0.75, 0.95, 0.85, 1.0)
    turns = _turns(rng, rng.choice([4, 5, 6]))
    for turn in turns:
        px, py = x + r * 0.66 * math.cos(turn or 0), y + r * 0.66 * math.sin(turn or 0)
        _disc(draw, px, py, r * 0.31, (22, 34, 26))
        _disc(draw, px, py, r * 0.25, (246, 244, 236))
        _disc(draw, px, py, r * 0.12, filling)
    _blob(draw, rng, x, y, r * 0.16, _hue(rng, 0.22, 0.27, 0.5, 0.7, 0.7, 0.85), 0.2)


def _soup(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    broth = _hue(rng, 0.02, 0.1, 0.75, 0.95, 0.65, 0.95)
    _disc(draw, x, y, r * 1.22, _shade(broth, 0.55))
    _disc(draw, x, y, r * 1.16, broth)
    start = rng.uniform(0, 2 * math.pi)
    spiral = [
        (x + r * 0.012 * i * math.cos(start + i * 0.16), y + r * 0.012 * i * math.sin(start + i * 0.16))
        for i in range(66)
    ]
    draw.line(spiral, fill=(255, 246, 228), width=6, joint="curve")
    for px, py in _scatter(rng, rng.randint(5, 12), x, y, r):
        _disc(draw, px, py, r * 0.05, _hue(rng, 0.28, 0.36, 0.6, 0.9, 0.35, 0.55))


def _cookies(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    for turn in _turns(rng, rng.choice([3, 4, 5])):
        px, py = x + r * 0.56 * math.cos(turn or 0), y + r * 0.56 * math.sin(turn or 0)
        size = r * rng.uniform(0.4, 0.48)
        _disc(draw, px + 2, py + 3, size, (120, 85, 50))
        _blob(draw, rng, px, py, size, _hue(rng, 0.08, 0.11, 0.5, 0.65, 0.65, 0.85), 0.04)
        for cx, cy in _scatter(rng, rng.randint(5, 9), px, py, size * 0.75):
            _disc(draw, cx, cy, size * 0.13, (62, 34, 20))


def _watermelon(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float) -> None:
    turn, r = rng.uniform(0, 360), r * 1.2
    shift = r * 0.35
    x, y = x - shift * math.cos(math.radians(turn + 90)), y - shift * math.sin(math.radians(turn + 90))
    flesh = _hue(rng, 0.96, 1.0, 0.65, 0.85, 0.85, 0.98)
    for share, colour in ((1.0, (38, 110, 50)), (0.92, (222, 238, 190)), (0.84, flesh)):
        box = (x - r * share, y - r * share, x + r * share, y + r * share)
        draw.pieslice(box, turn, turn + 180, fill=colour)
    for away in (0.3, 0.5, 0.68):
        for number in range(int(away * 10)):
            at = math.radians(turn + 180 * (number + 0.5) / int(away * 10))
            _disc(draw, x + r * away * math.cos(at), y + r * away * math.sin(at), r * 0.035, (40, 22, 18))


DISHES = {
    "cookies": _cookies,
    "donuts": _donuts,
    "fried_eggs": _fried_eggs,
    "pizza": _pizza,
    "salad": _salad,
    "soup": _soup,
    "sushi": _sushi,
    "watermelon": _watermelon,
}


def _light(image: Image.Image, rng: random.Random) -> Image.Image:
    """A lamp from one side, a tint, and a camera's noise."""
    noise = np.random.default_rng(rng.getrandbits(32))
    turn = rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    slope = rng.uniform(0.05, 0.22) * (math.cos(turn) * columns + math.sin(turn) * rows)
    tint = np.array([rng.uniform(0.93, 1.07) for _ in range(3)]) * rng.uniform(0.8, 1.08)
    pixels = np.asarray(image, dtype=np.float64) * (1 + slope[..., None]) * tint
    pixels += noise.normal(0, 2, size=pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _hue(
    rng: random.Random, hue_low: float, hue_high: float, low: float, high: float, dark: float, bright: float
) -> Colour:
    """A colour with hue, saturation and value each from their range."""
    rgb = colorsys.hsv_to_rgb(rng.uniform(hue_low, hue_high) % 1, rng.uniform(low, high), rng.uniform(dark, bright))
    return (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))


def _shade(colour: Colour, factor: float) -> Colour:
    return (round(colour[0] * factor), round(colour[1] * factor), round(colour[2] * factor))


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: Colour) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _blob(
    draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, r: float, colour: Colour, rough: float = 0.1
) -> None:
    """A disc whose edge wanders by the share `rough` of its radius."""
    waves = [(rng.uniform(0, rough), rng.randint(2, 6), rng.uniform(0, 2 * math.pi)) for _ in range(3)]
    outline = []
    for number in range(48):
        turn = 2 * math.pi * number / 48
        away = r * (1 + sum(size * math.sin(speed * turn + phase) for size, speed, phase in waves))
        outline.append((x + away * math.cos(turn), y + away * math.sin(turn)))
    draw.polygon(outline, fill=colour)


def _scatter(rng: random.Random, count: int, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Points spread evenly at random over a disc."""
    polar = [(r * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)) for _ in range(count)]
    return [(x + away * math.cos(turn), y + away * math.sin(turn)) for away, turn in polar]


def _turns(rng: random.Random, count: int) -> list[float | None]:
    """Evenly spaced directions from a random one; a single piece lies in the centre, without one."""
    start = rng.uniform(0, 2 * math.pi)
    return [None] if count == 1 else [start + 2 * math.pi * number / count for number in range(count)]
