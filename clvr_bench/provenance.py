"""Where and with what something was computed: kept in records, never part of an identity."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from clvr_bench.devices import describe
from clvr_bench.ops.compiling import compiling

LIBRARIES = ("clvr-bench", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def now() -> str:
    """Return the time in UTC, ISO 8601, fine enough to tell which of two quick runs was the later."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def provenance(device: torch.device, plugins: Iterable[str], started: str) -> dict[str, Any]:
    """Describe the machine, the libraries and the time.

    Args:
        device: Where it ran.
        plugins: Names of the plugins that took part.
        started: When it started, as ``now`` gives it.
    """
    return {
        "started": started,
        "finished": now(),
        "device": device.type,
        "hardware": describe(device),
        "threads": torch.get_num_threads(),
        "compiled_operations": compiling(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "plugins": sorted(set(plugins)),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
