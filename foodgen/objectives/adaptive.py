"""Adaptive discriminator augmentation (ADA, Karras 2020): as much as keeps the discriminator from overfitting."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foodgen.core import distributed
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import disturbances
from foodgen.objectives.disturbances import Disturbance


@disturbances.add_to_registry(name="adaptive")
class Adaptive(Disturbance):
    """Each change happens to each image with a probability that follows the discriminator.

    The share of real images with positive logits, less that with negative ones, is held at `target`:
    above it the discriminator knows the training images by heart and the probability rises.

    changes      of flip, turn, shift, scale, rotate, stretch, move (geometry) and brightness, contrast,
                 luma_flip, hue, saturation (colour)
    target       of the sign statistic (the paper's r_t, 0.6)
    ramp         images over which the probability could rise from 0 to 1 (500,000)
    interval     discriminator turns between adjustments, each piece of an accumulated batch counting as one
    probability  to start with
    fixed        keep it there

    Geometry is one bilinear lookup with reflection at the borders; the paper's filters before and after are left out.
    """

    geometry = ("flip", "turn", "shift", "scale", "rotate", "stretch", "move")
    colour = ("brightness", "contrast", "luma_flip", "hue", "saturation")
    signs: Tensor
    seen: Tensor

    def __init__(
        self,
        changes: Sequence[str] = (*geometry, *colour),
        target: float = 0.6,
        ramp: int = 500_000,
        interval: int = 4,
        probability: float = 0.0,
        fixed: bool = False,
    ) -> None:
        super().__init__(probability)
        if not 0 <= probability <= 1 or not -1 <= target <= 1 or ramp < 1 or interval < 1:
            raise ValueError(
                f"probability: {probability} is in [0, 1], target: {target} in [-1, 1], ramp: {ramp} and interval: "
                f"{interval} are at least 1"
            )
        for name in changes:
            if name not in (*self.geometry, *self.colour):
                raise ValueError(f"changes: there is no {name}; there are: {', '.join((*self.geometry, *self.colour))}")
        self.changes, self.target, self.ramp, self.interval, self.fixed = set(changes), target, ramp, interval, fixed
        self.register_buffer("signs", torch.zeros([]))
        self.register_buffer("seen", torch.zeros([], dtype=torch.long))

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        if self.fixed:
            return
        mean = real_logits.sign().mean()
        distributed.average([mean])
        self.signs += mean
        self.seen += 1
        images = self.interval * len(real_logits) * distributed.world_size()
        due = self.seen == self.interval  # not read as a number, which would wait for the device
        step = (self.signs / self.seen - self.target).sign() * images / self.ramp
        self.probability.copy_((self.probability + due * step).clamp(0, 1))
        self.signs *= ~due
        self.seen *= ~due

    def change(self, images: Tensor) -> Tensor:
        if self.changes & {*self.geometry}:
            grid = functional.affine_grid(self._geometry(images)[:, :2], list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        if self.changes & {*self.colour}:
            matrix = self._colour(images)
            images = torch.einsum("nij,njhw->nihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]
        return images

    def _happens(self, name: str, x: Tensor) -> Tensor:
        """Which images the change happens to, (batch,). Rotation has two chances and so a smaller one each."""
        probability = 1 - (1 - self.probability).sqrt() if name == "rotate" else self.probability
        return (uniform_for(x) < probability) & (name in self.changes)

    def _sometimes(self, name: str, x: Tensor, value: Tensor, otherwise: float) -> Tensor:
        """`value`, (batch,), where the change happens to an image, else `otherwise`."""
        return torch.where(self._happens(name, x), value, otherwise)

    def _geometry(self, x: Tensor) -> Tensor:
        """Where each output pixel is looked up: (batch, 3, 3), coordinates in [-1, 1].

        A change that comes later to the image comes earlier to the place that is looked up.
        """
        normal = _normals(x, 4)
        zero, one = torch.zeros_like(normal[0]), torch.ones_like(normal[0])
        flip = self._sometimes("flip", x, 1 - 2 * (uniform_for(x) < 0.5).float(), 1.0)
        quarters = self._sometimes("turn", x, (uniform_for(x) * 4).floor(), 0.0) * math.pi / 2
        shifted = self._happens("shift", x)
        shift_x, shift_y = (self._pixels(torch.where(shifted, _even(x, 0.25), 0.0), x) for _ in range(2))
        scale = self._sometimes("scale", x, (0.2 * math.log(2) * normal[0]).exp(), 1.0)
        before = self._sometimes("rotate", x, _even(x, math.pi), 0.0)
        stretch = self._sometimes("stretch", x, (0.2 * math.log(2) * normal[1]).exp(), 1.0)
        after = self._sometimes("rotate", x, _even(x, math.pi), 0.0)
        moved = self._happens("move", x)
        move_x, move_y = (torch.where(moved, 0.25 * normal[2 + i], 0.0) for i in range(2))
        matrix = _matrix([[flip, zero, zero], [zero, one, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(quarters)
        matrix = matrix @ _matrix([[one, zero, shift_x], [zero, one, shift_y], [zero, zero, one]])
        matrix = matrix @ _matrix([[scale, zero, zero], [zero, scale, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(before)
        matrix = matrix @ _matrix([[stretch, zero, zero], [zero, 1 / stretch, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(after)
        return matrix @ _matrix([[one, zero, move_x], [zero, one, move_y], [zero, zero, one]])

    @staticmethod
    def _pixels(share: Tensor, x: Tensor) -> Tensor:
        """A share of the size as a whole number of pixels, in coordinates of [-1, 1]."""
        return (share * x.shape[-1] / 2).round() * 2 / x.shape[-1]

    def _colour(self, x: Tensor) -> Tensor:
        """What multiplies each pixel's (red, green, blue, 1): (batch, 4, 4)."""
        normal = _normals(x, 3)
        brightness = self._sometimes("brightness", x, 0.2 * normal[0], 0.0)
        contrast = self._sometimes("contrast", x, (0.5 * math.log(2) * normal[1]).exp(), 1.0)
        luma = self._sometimes("luma_flip", x, (uniform_for(x) < 0.5).float(), 0.0)
        hue = self._sometimes("hue", x, _even(x, math.pi), 0.0)
        saturation = self._sometimes("saturation", x, (math.log(2) * normal[2]).exp(), 1.0)
        grey = torch.tensor([1.0, 1.0, 1.0], device=x.device) / math.sqrt(3)
        along = torch.outer(grey, grey)  # projects on the grey axis
        across = torch.eye(3, device=x.device) - along
        turned = torch.linalg.cross(torch.eye(3, device=x.device), grey.expand(3, 3)).T  # v to grey x v
        hue, luma = hue[:, None, None], luma[:, None, None]
        colour = across * hue.cos() - turned * hue.sin()
        mixed = contrast[:, None, None] * (along * (1 - 2 * luma) + saturation[:, None, None] * colour)
        matrix = torch.eye(4, device=x.device).repeat(len(x), 1, 1)
        matrix[:, :3, :3] = mixed
        matrix[:, :3, 3] = (mixed @ brightness[:, None, None].expand(-1, 3, 1)).squeeze(-1)
        return matrix


def _normals(x: Tensor, count: int) -> Tensor:
    """`count` standard normal numbers for each image, (count, batch)."""
    return normal_like(x.new_empty(len(x), count, dtype=torch.float32)).T


def _even(x: Tensor, reach: float) -> Tensor:
    """A number in +-reach for each image, (batch,)."""
    return reach * (2 * uniform_for(x) - 1)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (batch, 3, 3)


def _rotation(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
