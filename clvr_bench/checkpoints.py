"""Weights and training state on disk: written atomically, checked when read, read without unpickling anything."""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from clvr_bench.errors import ClvrBenchError, DamagedFile
from clvr_bench.files import write_atomically
from clvr_bench.records import CHECKPOINT, WEIGHTS

_DIGEST = 32  # bytes of SHA-256 after a checkpoint's own; torch loads flipped bits without a word


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state of an unfinished run: tensors, numbers, text, lists and mappings; and a digest of it all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(folder / CHECKPOINT, content + sha256(content).digest())


def load_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read the state of an unfinished run; None where there is none.

    Raises:
        DamagedFile: It is cut off, or a bit of it is not what was written.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    stored = path.read_bytes()
    content = stored[:-_DIGEST]
    if sha256(content).digest() != stored[-_DIGEST:]:
        raise DamagedFile(f"{path}: not the checkpoint that was written.")
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def save_weights(folder: Path, representation: nn.Module) -> str:
    """Write a representation's parameters and buffers, and return the SHA-256 of the file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in representation.state_dict().items()}
    unshared = {name: tensor.clone() for name, tensor in tensors.items()}  # safetensors refuses shared storage
    content = safetensors.torch.save(unshared)
    write_atomically(folder / WEIGHTS, content)
    return sha256(content).hexdigest()


def load_weights(folder: Path, written: str = "") -> dict[str, Tensor]:
    """Read a representation's parameters and buffers.

    Args:
        folder: The run's.
        written: SHA-256 of the file, as the run's record has it; empty where it has none.

    Raises:
        DamagedFile: The file is not the one that was written.
        ClvrBenchError: The file is missing.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ClvrBenchError(f"{path}: no weights here. They are not kept in version control; run the suite again.")
    content = path.read_bytes()
    if written and sha256(content).hexdigest() != written:
        raise DamagedFile(f"{path}: not the weights that were written.")
    try:
        return safetensors.torch.load(content)
    except Exception as error:
        raise DamagedFile(f"{path}: not a readable safetensors file ({error}).") from None
