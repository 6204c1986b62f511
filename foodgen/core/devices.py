"""Where to compute, and in which precision."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.errors import ConfigError


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" takes CUDA, Apple's GPU or the CPU, whichever is there first.

    Raises ConfigError if it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", distributed.local_rank() if device.index is None else device.index)
            torch.cuda.set_device(device)
            torch.set_float32_matmul_precision("high")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"exp.device: {name} cannot be used ({str(error).splitlines()[0]})") from None
    return device


def find_autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """bf16 autocast for "bf16", and for "auto" where the device has it; weights stay float32."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" or (precision == "auto" and able):
        return partial(torch.autocast, device.type, torch.bfloat16)
    return nullcontext


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on x's device."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
