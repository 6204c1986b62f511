"""DiT, the diffusion transformer (Peebles, Xie 2022), with rotary positions and normalised queries."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.bounds import Positive
from foodgen.core.networks import HasFeatures
from foodgen.core.registry import models
from foodgen.layers.conditioning import LabelEmbedding, TimeEmbedding
from foodgen.layers.transformer import Modulation, RotaryPositions, TransformerBlock


@models.add_to_registry(name="dit")
class DiT(HasFeatures):
    """Image and noise level to an image, as a sequence of patches.

    channels    of the images
    image_size  height and width of the images
    classes     number of labels; 0 makes the network unconditional
    width, depth, heads  of the transformer; DiT-S: 384, 12, 6; DiT-B: 768, 12, 12
    patch       pixels a side of a token
    shared      all blocks share one layer that makes their modulations, which saves a third of the weights (Chen
                2023, "adaLN-single"); the paper has one a block
    outputs     channels out; twice the images' for a learned variance; as many as they have if not given

    Raises ValueError if patches do not tile the image or heads do not divide the width.
    """

    def __init__(
        self,
        channels: int,
        image_size: int,
        classes: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 4,
        shared: bool = False,
        outputs: Positive | None = None,
    ) -> None:
        super().__init__()
        if min(width, depth, heads, patch) < 1 or width % heads:
            raise ValueError(f"width: {width} is not a multiple of heads: {heads}, or depth or patch is below 1")
        if image_size % patch:
            raise ValueError(f"patch: {patch} does not divide {image_size} pixels")
        self.patch, self.side, self.feature_channels = patch, image_size // patch, width
        self.first = nn.Linear(channels * patch**2, width)
        self.time, self.label = TimeEmbedding(256, width), LabelEmbedding(classes, width)
        self.positions = RotaryPositions(self.side, width // heads)
        self.shared = Modulation(width, width, 6) if shared else None
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, 0 if shared else width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(width, width, 2)
        self.last = nn.Linear(width, (outputs or channels) * patch**2)
        self.apply(_initialise)
        for layer in (self.last, *(module.linear for module in self.modules() if isinstance(module, Modulation))):
            nn.init.zeros_(layer.weight)
        nn.init.normal_(self.label.table.weight, std=0.02)

    def forward(
        self, x: Tensor, time: Tensor, labels: Tensor | None = None, return_features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x: (batch, channels, size, size); time: noise level, (batch,); labels: (batch,) or None.

        Features are those after a third of the depth.
        """
        condition = self.time(time) + self.label(labels, len(x))  # (batch, width)
        modulation = self.shared(condition) if self.shared is not None else condition
        x = self.first(functional.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))  # (batch, tokens, width)
        features = x
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, self.positions)
            if index == len(self.blocks) // 3:
                features = x
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        x = self.last(self.norm(x) * (1 + scale) + shift)
        x = functional.pixel_shuffle(_as_map(x, self.side), self.patch)  # (batch, outputs, size, size)
        return (x, _as_map(features, self.side)) if return_features else x


def _as_map(tokens: Tensor, side: int) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (side, side))


@torch.no_grad()
def _initialise(layer: nn.Module) -> None:
    """Linear layers start as the paper's: Xavier's uniform weights, no bias."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
