"""Adaptive discriminator augmentation (ADA, Karras 2020): as much augmentation as prevents overfitting."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from foodgen.core import distributed
from foodgen.core.randomness import normal_like, uniform_for
from foodgen.core.registry import discriminator_augmentations
from foodgen.objectives.augmentation import Augmentation


@discriminator_augmentations.add_to_registry(name="ada")
class AdaptiveAugment(Augmentation):
    """Apply each transformation to each image with a probability p that adapts to the discriminator.

    r_t, the mean sign of the discriminator's logits of real images, is held at `target`: above it the
    discriminator overfits, and p rises.

    transforms   of xflip, rotate90, xint, scale, rotate, aniso, xfrac (geometry) and brightness, contrast,
                 lumaflip, hue, saturation (colour): the paper's names
    target       of r_t (0.6)
    ramp         images over which p could rise from 0 to 1 (500,000)
    interval     discriminator steps between adjustments; each piece of an accumulated batch counts as one
    probability  initial p
    fixed        keep p as it is

    Geometry is one bilinear lookup with reflection at the borders; the paper's low-pass filters are left out.
    """

    geometry = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
    colour = ("brightness", "contrast", "lumaflip", "hue", "saturation")
    sign_sum: Tensor
    batches: Tensor

    def __init__(
        self,
        transforms: Sequence[str] = (*geometry, *colour),
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
        known = (*self.geometry, *self.colour)
        for name in transforms:
            if name not in known:
                raise ValueError(f"transforms: there is no {name}; there are: {', '.join(known)}")
        self.transforms, self.target, self.ramp = set(transforms), target, ramp
        self.interval, self.fixed = interval, fixed
        self.register_buffer("sign_sum", torch.zeros([]))
        self.register_buffer("batches", torch.zeros([], dtype=torch.long))

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        if self.fixed:
            return
        mean = real_logits.sign().mean()
        distributed.average([mean])
        self.sign_sum += mean
        self.batches += 1
        images = self.interval * len(real_logits) * distributed.world_size()
        due = self.batches == self.interval  # a tensor: reading it would synchronise with the device
        step = (self.sign_sum / self.batches - self.target).sign() * images / self.ramp
        self.probability.copy_((self.probability + due * step).clamp(0, 1))
        self.sign_sum *= ~due
        self.batches *= ~due

    def augment(self, images: Tensor) -> Tensor:
        if self.transforms.intersection(self.geometry):
            grid = functional.affine_grid(self._geometry(images)[:, :2], list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        if self.transforms.intersection(self.colour):
            matrix = self._colour(images)
            images = torch.einsum("nij,njhw->nihw", matrix[:, :3, :3], images) + matrix[:, :3, 3, None, None]
        return images

    def _mask(self, name: str, x: Tensor) -> Tensor:
        """Which images the change happens to, (batch,). Rotation has two chances and so a smaller one each."""
        probability = 1 - (1 - self.probability).sqrt() if name == "rotate" else self.probability
        return (uniform_for(x) < probability) & (name in self.transforms)

    def _where(self, name: str, x: Tensor, value: Tensor, otherwise: float) -> Tensor:
        """`value`, (batch,), where the change happens to an image, else `otherwise`."""
        return torch.where(self._mask(name, x), value, otherwise)

    def _geometry(self, x: Tensor) -> Tensor:
        """Where each output pixel is sampled: (batch, 3, 3), coordinates in [-1, 1].

        A change that comes later to the image comes earlier to the position that is sampled.
        """
        normal = _normals(x, 4)
        zero, one = torch.zeros_like(normal[0]), torch.ones_like(normal[0])
        xflip = self._where("xflip", x, 1 - 2 * (uniform_for(x) < 0.5).float(), 1.0)
        angle90 = self._where("rotate90", x, (uniform_for(x) * 4).floor(), 0.0) * math.pi / 2
        translated = self._mask("xint", x)
        int_x, int_y = (self._pixels(torch.where(translated, _uniform(x, 0.25), 0.0), x) for _ in range(2))
        scale = self._where("scale", x, (0.2 * math.log(2) * normal[0]).exp(), 1.0)
        before = self._where("rotate", x, _uniform(x, math.pi), 0.0)
        aniso = self._where("aniso", x, (0.2 * math.log(2) * normal[1]).exp(), 1.0)
        after = self._where("rotate", x, _uniform(x, math.pi), 0.0)
        shifted = self._mask("xfrac", x)
        frac_x, frac_y = (torch.where(shifted, 0.25 * normal[2 + i], 0.0) for i in range(2))
        matrix = _matrix([[xflip, zero, zero], [zero, one, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(angle90)
        matrix = matrix @ _matrix([[one, zero, int_x], [zero, one, int_y], [zero, zero, one]])
        matrix = matrix @ _matrix([[scale, zero, zero], [zero, scale, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(before)
        matrix = matrix @ _matrix([[aniso, zero, zero], [zero, 1 / aniso, zero], [zero, zero, one]])
        matrix = matrix @ _rotation(after)
        return matrix @ _matrix([[one, zero, frac_x], [zero, one, frac_y], [zero, zero, one]])

    @staticmethod
    def _pixels(share: Tensor, x: Tensor) -> Tensor:
        """A share of the size as a whole number of pixels, in coordinates of [-1, 1]."""
        return (share * x.shape[-1] / 2).round() * 2 / x.shape[-1]

    def _colour(self, x: Tensor) -> Tensor:
        """What multiplies each pixel's (red, green, blue, 1): (batch, 4, 4)."""
        normal = _normals(x, 3)
        brightness = self._where("brightness", x, 0.2 * normal[0], 0.0)
        contrast = self._where("contrast", x, (0.5 * math.log(2) * normal[1]).exp(), 1.0)
        luma = self._where("lumaflip", x, (uniform_for(x) < 0.5).float(), 0.0)
        hue = self._where("hue", x, _uniform(x, math.pi), 0.0)
        saturation = self._where("saturation", x, (math.log(2) * normal[2]).exp(), 1.0)
        grey = torch.tensor([1.0, 1.0, 1.0], device=x.device) / math.sqrt(3)
        luma_axis = torch.outer(grey, grey)  # projects on the grey axis
        chroma = torch.eye(3, device=x.device) - luma_axis
        cross = torch.linalg.cross(torch.eye(3, device=x.device), grey.expand(3, 3)).T  # v to v x grey
        hue, luma = hue[:, None, None], luma[:, None, None]
        colour = chroma * hue.cos() - cross * hue.sin()
        linear = contrast[:, None, None] * (luma_axis * (1 - 2 * luma) + saturation[:, None, None] * colour)
        matrix = torch.eye(4, device=x.device).repeat(len(x), 1, 1)
        matrix[:, :3, :3] = linear
        matrix[:, :3, 3] = (linear @ brightness[:, None, None].expand(-1, 3, 1)).squeeze(-1)
        return matrix


def _normals(x: Tensor, count: int) -> Tensor:
    """`count` standard normal numbers for each image, (count, batch)."""
    return normal_like(x.new_empty(len(x), count, dtype=torch.float32)).T


def _uniform(x: Tensor, bound: float) -> Tensor:
    """A number in +-bound for each image, (batch,)."""
    return bound * (2 * uniform_for(x) - 1)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (batch, 3, 3)


def _rotation(angle: Tensor) -> Tensor:
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
