"""Disks that are full, and files that are not what was written: named in a line, set aside, and made anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweeps import Child, Fault, numbers


def run_of(folder: Path, task: str = "simclr") -> Path:
    (run,) = folder.glob(f"results/custom/runs/{task}*")
    return run


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, undisturbed: Mapping[str, Any]) -> None:
    child = Child(tmp_path, fault=Fault(file_size=20_000))
    assert child.run() == 2, child.output
    last = child.output.splitlines()[-1]
    assert last.startswith("clvr-bench: ")
    assert "checkpoint.pt: cannot be written (File too large). What was finished is kept" in last
    assert "Traceback" not in child.output
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("checkpoint.pt"))
    again = Child(tmp_path)
    assert again.run() == 0, again.output
    assert numbers(tmp_path) == undisturbed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path) -> None:
    content = json.loads(path.read_text())
    content["identity"]["seed" if "seed" in content["identity"] else "pretraining"] = 17
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("pretraining.json", cut),
        ("pretraining.json", edit),
        ("evaluations/linear*.json", cut),
        ("evaluations/knn*.json", edit),
        ("evaluations/linear*.npz", cut),
    ],
    ids=["cut-off pretraining", "edited pretraining", "cut-off linear", "edited knn", "cut-off predictions"],
)
def test_a_damaged_record_is_named_set_aside_and_made_anew(
    tmp_path: Path, undisturbed: Mapping[str, Any], pattern: str, damage: Callable[[Path], None]
) -> None:
    assert Child(tmp_path).run() == 0
    (path,) = run_of(tmp_path).glob(pattern)
    damage(path)
    damaged = path.read_bytes()
    child = Child(tmp_path)
    assert child.run() == 0, child.output
    assert f"{path.name}.damaged, and made anew." in child.output
    assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
    assert numbers(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_over(
    tmp_path: Path, undisturbed: Mapping[str, Any], damage: Callable[[Path], None]
) -> None:
    Child(tmp_path, fault=Fault("clvr_bench.pretraining:Pretraining._step", call=9)).run()
    path = run_of(tmp_path) / "checkpoint.pt"
    damage(path)
    child = Child(tmp_path)
    assert child.run() == 0, child.output
    assert "not the checkpoint that was written. Set aside as checkpoint.pt.damaged; the run starts over." in (
        child.output
    )
    assert path.with_name("checkpoint.pt.damaged").is_file()
    assert numbers(tmp_path) == undisturbed


@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_weights_are_set_aside_and_the_run_starts_over(
    tmp_path: Path, undisturbed: Mapping[str, Any], damage: Callable[[Path], None]
) -> None:
    assert Child(tmp_path).run() == 0
    run = run_of(tmp_path)
    damage(run / "weights.safetensors")
    next(run.glob("evaluations/knn*.json")).unlink()
    child = Child(tmp_path)
    assert child.run() == 0, child.output
    assert "Set aside as weights.safetensors.damaged; the run starts over." in child.output
    assert numbers(tmp_path) == undisturbed


def test_a_record_of_a_newer_version_is_neither_overwritten_nor_set_aside(tmp_path: Path) -> None:
    assert Child(tmp_path).run() == 0
    path = run_of(tmp_path) / "pretraining.json"
    newer = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    child = Child(tmp_path)
    assert child.run() == 2
    assert "format 2 is newer than this version reads. Upgrade clvr-bench." in child.output.splitlines()[-1]
    assert path.read_text() == newer


def test_a_run_out_of_memory_is_a_failed_row_and_the_others_go_on(tmp_path: Path) -> None:
    child = Child(tmp_path, ["--pretext-task", "hungry", "--pretext-task", "random_init", "--epochs", "1"])
    assert child.run() == 1, child.output
    assert "2 combinations: 1 failed, 1 done." in child.output
    assert "failed: hungry" in child.output
    assert "hungry: out of memory at batch size 20. Choose a smaller one, such as --batch-size 10." in (
        " ".join(child.output.split())
    )
