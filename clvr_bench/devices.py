"""The device a sweep runs on: which one, in which precision, and how much memory it took."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from clvr_bench.errors import ClvrBenchError


def choose_device(name: str) -> torch.device:
    """Return the device of a name: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ClvrBenchError: It is not there.
    """
    available = ["cpu"]
    available += ["cuda"] if torch.cuda.is_available() else []
    available += ["mps"] if torch.backends.mps.is_available() else []
    if name == "auto":
        return torch.device(available[-1])
    if name not in available:
        raise ClvrBenchError(f"--device {name}: not available here. Available: auto, {', '.join(available)}.")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Tell glibc's allocator to keep what is freed from now on, up to 32 MiB a piece, instead of handing it back.

    Without this a CPU spends much of an elementwise operation on page faults. Other C libraries are left as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    _call_glibc("mallopt", trim_threshold, 2**31 - 1)
    _call_glibc("mallopt", mmap_threshold, 32 << 20)  # larger pieces are few


def _call_glibc(function: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), function)(*arguments)
    except (AttributeError, OSError, TypeError):  # another C library, without this function or not to be opened so
        return


def choose_precision(device: torch.device, wanted: str) -> str:
    """Return ``"bf16"`` or ``"fp32"``; ``"auto"`` is bf16 where the device computes in it."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the context in which networks run."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's own generators that a run on a device draws from."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_generator_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set torch's own generators to states that ``generator_states`` gave, wherever they were loaded to."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device or the system refused memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # of torch's allocator on the CPU


class MemoryMeter:
    """Measures the most memory taken since it was made: the device's on a GPU, the process's on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _writable(Path("/proc/self/clear_refs")):
            _call_glibc("malloc_trim", 0)  # what earlier runs freed is not this one's
            Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the peak of the resident set

    def peak_mb(self) -> float:
        """Return the peak in MB (10^6 bytes); 0 where it cannot be told."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 1e6
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.is_file() else []
        return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def _writable(path: Path) -> bool:
    try:
        with path.open("w"):
            return True
    except OSError:
        return False


def describe(device: torch.device) -> str:
    """Name the hardware of a device, such as ``NVIDIA H200`` or ``AMD EPYC``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
