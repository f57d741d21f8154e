"""Features of a frozen representation as a NumPy archive that other tools read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clvr_bench.contracts.evaluation import SplitName
from clvr_bench.errors import CannotWrite, ClvrBenchError
from clvr_bench.features import FrozenRepresentation

SUFFIX = ".npz"


def save_features(
    path: Path,
    frozen: FrozenRepresentation,
    splits: Sequence[SplitName],
    *,
    class_names: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Write the features that evaluations see into one file, whole or not at all.

    It holds, for each split, ``SPLIT_features`` (N, D) float32 and ``SPLIT_labels`` (N,) int64; and as text
    ``class_names`` (K,) and ``provenance``, which is JSON. ``numpy.load`` reads all of it without ``allow_pickle``.

    Args:
        path: Ends in ``.npz``.
        frozen: The representation with its data.
        splits: Which to write.
        class_names: K names, in the order of the labels.
        provenance: What was encoded by what.

    Raises:
        ClvrBenchError: The name ends otherwise.
        CannotWrite: The disk is full, or the folder cannot be written.
    """
    require_place(path)
    arrays: dict[str, Any] = {}
    for split in splits:
        arrays[f"{split}_features"] = frozen.features(split).cpu().numpy().astype(np.float32, copy=False)
        arrays[f"{split}_labels"] = frozen.labels(split).cpu().numpy().astype(np.int64, copy=False)
    arrays["class_names"] = np.array(list(class_names), dtype=np.str_)
    arrays["provenance"] = np.array(json.dumps(provenance, ensure_ascii=False))
    _write(path, arrays)


def require_place(path: Path) -> None:
    """Refuse a file that cannot be written, before an hour of encoding.

    Raises:
        ClvrBenchError: Its name does not end in ``.npz``.
        CannotWrite: Its folder cannot be written.
    """
    if path.suffix != SUFFIX:
        raise ClvrBenchError(f"--output {path}: features are a NumPy archive. Name a file that ends in {SUFFIX}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _partial(path).touch()
        _partial(path).unlink()
    except OSError as error:
        raise CannotWrite(path, error) from error


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an archive straight to disk, for features may fill half of the memory."""
    try:
        with _partial(path).open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        _partial(path).replace(path)
    except OSError as error:
        raise CannotWrite(path, error) from error
    finally:
        _partial(path).unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
