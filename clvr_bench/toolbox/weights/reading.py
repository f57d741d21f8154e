"""Files of tensors, read without unpickling anything: safetensors, and torch checkpoints as far as they are data."""

from __future__ import annotations

import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from clvr_bench.errors import ClvrBenchError

# Checkpoints often carry their program's arguments, and paths among them. Both are inert: a Namespace takes what is set
# on it and has no code that runs on loading (no __reduce__, no __setstate__); a pure path is text, and cannot open
# anything. numpy's scalars, also common, are refused: what restores their dtype is native code that trusts its input.
_INERT: list[Any] = [
    Namespace,
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
_SAFETENSORS = b"\0\0\0\0{"  # from the fifth byte: the upper half of the header's length, and the header, which is JSON
_TORCH = (b"PK", b"\x80")  # a zip archive, or the bare pickle of torch before 1.6
_ADVICE = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def read_tensors(path: Path, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a torch checkpoint, told apart by their content.

    Checkpoints are read with ``torch.load(weights_only=True)``, which runs no code of theirs; of other classes only
    ``argparse.Namespace`` and paths are let in, since they do nothing. What is no tensor is dropped.

    Args:
        path: The file.
        shapes_only: Whether to leave the values on disk: tensors of the "meta" device then stand for them.

    Returns:
        Tensors on the CPU by name; those in nested mappings have the path in front, such as
        ``state_dict.module.conv1.weight``.

    Raises:
        ClvrBenchError: The file is damaged or of another kind, would run code to be read, or holds no tensors by name.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ClvrBenchError(f"{path}: cannot be read ({error.strerror}).") from None
    if start[4:] == _SAFETENSORS:
        return _read_safetensors(path, shapes_only)
    if not start.startswith(_TORCH):
        raise ClvrBenchError(f"{path}: neither a safetensors file nor a torch checkpoint. Those two are read.")
    content = _load(path, shapes_only)
    tensors = dict(_flatten(content)) if isinstance(content, Mapping) else {}
    if not tensors:
        kind = type(content).__name__
        raise ClvrBenchError(f"{path}: it holds no tensors by name, but a {kind}. Save a state dict: {_ADVICE}.")
    return tensors


def _read_safetensors(path: Path, shapes_only: bool) -> dict[str, Tensor]:
    try:
        if not shapes_only:
            return load_file(path)
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except safetensors.SafetensorError as error:
        raise ClvrBenchError(f"{path}: a damaged or cut-off safetensors file ({error}). Fetch it again.") from None


def _load(path: Path, shapes_only: bool) -> object:
    device = "meta" if shapes_only else "cpu"
    # Not mapped are the older layout and damaged files, which cannot be, and a name by which torch takes the content.
    mapped = shapes_only and path.suffix != ".safetensors" and zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_INERT), warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # what torch warns of is refused, in one line
            return torch.load(path if mapped else file, map_location=device, mmap=mapped, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever torch makes of a foreign file
        raise _refusal(path, " ".join(str(error).split()) or type(error).__name__) from None


def _refusal(path: Path, error: str) -> ClvrBenchError:
    """Say why torch did not read a file: because it names code, or because it is damaged."""
    code = re.search(r"GLOBAL ([\w.]+)|([\w.]+) whose module|[Cc]lass ([\w.]+)", error)
    named = "a TorchScript program" if "TorchScript" in error else code and next(filter(None, code.groups()))
    if named:
        return ClvrBenchError(
            f"{path}: not read, because that would run code which it names ({named}); only tensors and plain "
            f"containers are taken. If you trust it, load it where it was made and keep the tensors alone: {_ADVICE}."
        )
    reason = re.split(r"\. |: | Check ", error.rpartition("WeightsUnpickler error: ")[2])[0][:160]
    return ClvrBenchError(f"{path}: damaged, cut off, or no torch checkpoint ({reason}). Fetch or save it again.")


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value.detach()
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
