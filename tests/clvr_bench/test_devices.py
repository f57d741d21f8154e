from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clvr_bench import ClvrBenchError, devices
from clvr_bench.devices import (
    MemoryMeter,
    autocast,
    choose_device,
    choose_precision,
    describe,
    keep_freed_memory,
)

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without accelerators, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_auto_is_the_cpu_where_there_is_nothing_else(machine: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == CPU


def test_auto_is_the_accelerator_where_there_is_one(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == CUDA
    machine.setattr(torch.cuda, "is_available", lambda: False)
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == MPS


def test_the_cpu_can_be_chosen_beside_an_accelerator(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "mps", "gpu", "cuda:0"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^--device {name}: not available here\. Available: auto, cpu\.$"):
        choose_device(name)


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
@pytest.mark.parametrize("wanted", ["bf16", "fp32"])
def test_a_named_precision_is_taken(device: torch.device, wanted: str) -> None:
    assert choose_precision(device, wanted) == wanted


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_device_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(devices, "_cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert choose_precision(CPU, "auto") == expected
    assert choose_precision(CUDA, "auto") == expected


def test_auto_is_fp32_elsewhere() -> None:
    assert choose_precision(MPS, "auto") == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_networks_run_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


@pytest.mark.skipif(not devices._writable(Path("/proc/self/clear_refs")), reason="only Linux resets a process's peak")
def test_the_meter_sees_memory_that_was_taken_and_given_back_since_it_was_made() -> None:
    meter = MemoryMeter(CPU)
    before = meter.peak_mb()
    torch.ones(30_000_000)  # 120 MB, freed at once
    assert 110 < meter.peak_mb() - before < 200
    assert MemoryMeter(CPU).peak_mb() - before < 60


def test_the_meter_of_a_gpu_asks_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_000_000)
    assert MemoryMeter(CUDA).peak_mb() == 3.0
    assert reset == [CUDA]


def test_the_cpu_is_named_in_one_line() -> None:
    name = describe(CPU)
    assert name == name.strip()
    assert "\n" not in name


def test_a_gpu_is_named_by_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"accelerator of {device}")
    assert describe(CUDA) == "accelerator of cuda"


def test_freed_memory_is_kept_by_glibc_and_nothing_happens_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Glibc:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 1

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: Glibc)
    keep_freed_memory()
    assert calls == [(-1, 2**31 - 1), (-3, 2**25)]
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
