"""Where to compute, and in which precision."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foodgen.core import distributed
from foodgen.core.errors import ConfigError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


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
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Let glibc keep what large tensors have freed: else each one's memory comes from the kernel anew, page by page.

    It makes pointwise passes over large feature maps several times as fast on a CPU. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
        mallopt(option, value)


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 there: CUDA from Ampere on, CPUs with AVX-512 bf16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def find_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16: the one asked for, or with "auto" the fastest that trains well on this device.

    Raises ConfigError if the device lacks it.
    """
    if name == "auto":
        if has_bf16(device):
            return "bf16"
        return "fp16" if device.type == "cuda" else "fp32"
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise ConfigError(
            f"train.precision: {torch.cuda.get_device_name(device)} computes no bf16; fp16 is its fast precision"
        )
    if name != "fp32" and not torch.amp.is_autocast_available(device.type):
        raise ConfigError(f"train.precision: {name} cannot be had on {device.type}; fp32 can")
    return name


def find_autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Autocast to a precision that `find_precision` has found; weights stay float32."""
    if precision == "fp32":
        return nullcontext
    return partial(torch.autocast, device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


def find_channels_last(asked: bool | str, device: torch.device) -> bool:
    """Whether feature maps are stored channels last: where asked for, and with "auto" on GPUs and CPUs."""
    return device.type in ("cuda", "cpu") if asked == "auto" else bool(asked)


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError if torch.compile finds no C++ compiler, which it needs on a CPU."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(f"train.compile: there is no C++ compiler {compiler}; install it, or set CXX to another")


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on x's device."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
