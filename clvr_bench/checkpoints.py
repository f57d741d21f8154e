"""Weights and training state on disk: written atomically, read without unpickling anything."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clvr_bench.errors import ClvrBenchError
from clvr_bench.records import write_atomically

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of an unfinished run: tensors, numbers, text, lists and mappings."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read the state of an unfinished run; None where there is none.

    Raises:
        ClvrBenchError: The file is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise ClvrBenchError(
            f"{path}: not a readable checkpoint ({reason}). Move it away to start this run over."
        ) from None
    return state


def save_weights(folder: Path, representation: nn.Module) -> None:
    """Write a representation's parameters and buffers."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in representation.state_dict().items()}
    unshared = {name: tensor.clone() for name, tensor in tensors.items()}  # safetensors refuses shared storage
    write_atomically(folder / WEIGHTS, safetensors.torch.save(unshared))


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Read a representation's parameters and buffers.

    Raises:
        ClvrBenchError: The file is missing or damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ClvrBenchError(f"{path}: no weights here. They are not kept in version control; run the suite again.")
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise ClvrBenchError(f"{path}: not a readable safetensors file ({error}).") from None
