"""Precisions are what the device has, or an error; the compiler is looked for before it is needed."""

import pytest
import torch

from foodgen.core.devices import check_compiler, find_autocast, find_channels_last, find_precision
from foodgen.core.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_takes_bf16_on_cpus_that_compute_it(avx512_bf16, amx, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert find_precision("auto", CPU) == expected
    assert find_precision("bf16", CPU) == "bf16"  # slow there, but what was asked for


@pytest.mark.parametrize(("ampere", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_fp16_on_gpus_without_bf16(ampere, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: ampere)
    assert find_precision("auto", CUDA) == expected


def test_a_precision_that_the_device_lacks_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(ConfigError, match=r"train\.precision: Tesla T4 computes no bf16; fp16"):
        find_precision("bf16", CUDA)
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    with pytest.raises(ConfigError, match=r"train\.precision: fp16 cannot be had on cpu; fp32 can"):
        find_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_the_precision_and_keeps_weights(name, dtype):
    layer = torch.nn.Linear(2, 2)
    with find_autocast(name, CPU)():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_channels_last_is_on_where_it_is_a_gain():
    assert find_channels_last("auto", CPU)
    assert find_channels_last("auto", CUDA)
    assert not find_channels_last("auto", torch.device("mps"))
    assert not find_channels_last(False, CUDA)
    assert find_channels_last(True, torch.device("mps"))


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"train\.compile: there is no C\+\+ compiler no-such-compiler"):
        check_compiler(CPU)
    check_compiler(CUDA)
