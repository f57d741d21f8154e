from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from clvr_bench.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_weights
from clvr_bench.errors import ClvrBenchError, DamagedFile
from clvr_bench.records import CHECKPOINT, WEIGHTS

CPU = torch.device("cpu")


def flip_a_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, CPU) is None
    save_checkpoint(tmp_path, {"state": {"epoch": 3}, "tensor": torch.arange(5)})
    loaded = load_checkpoint(tmp_path, CPU)
    assert loaded is not None
    assert loaded["state"] == {"epoch": 3}
    assert torch.equal(loaded["tensor"], torch.arange(5))


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_single_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path, position: int) -> None:
    save_checkpoint(tmp_path, {"tensor": torch.zeros(1000)})
    flip_a_bit(tmp_path / CHECKPOINT, position)
    with pytest.raises(DamagedFile, match=r"checkpoint\.pt: not the checkpoint that was written"):
        load_checkpoint(tmp_path, CPU)


@pytest.mark.parametrize("length", [0, 10, 500])
def test_a_checkpoint_that_was_cut_off_is_found(tmp_path: Path, length: int) -> None:
    save_checkpoint(tmp_path, {"tensor": torch.zeros(1000)})
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:length])
    with pytest.raises(DamagedFile):
        load_checkpoint(tmp_path, CPU)


def test_weights_that_are_not_those_of_the_record_are_found(tmp_path: Path) -> None:
    network = nn.Linear(100, 10)
    written = save_weights(tmp_path, network)
    assert torch.equal(load_weights(tmp_path, written)["weight"], network.weight)
    flip_a_bit(tmp_path / WEIGHTS, -1)
    with pytest.raises(DamagedFile, match=r"weights\.safetensors: not the weights that were written"):
        load_weights(tmp_path, written)


def test_weights_of_records_without_a_digest_are_still_read(tmp_path: Path) -> None:
    save_weights(tmp_path, nn.Linear(2, 2))
    assert load_weights(tmp_path).keys() == {"weight", "bias"}
    (tmp_path / WEIGHTS).write_bytes(b"no safetensors")
    with pytest.raises(DamagedFile, match="not a readable safetensors file"):
        load_weights(tmp_path)


def test_missing_weights_are_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match="no weights here") as caught:
        load_weights(tmp_path)
    assert not isinstance(caught.value, DamagedFile)
