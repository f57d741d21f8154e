from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from clvr_bench.checkpoints import save_checkpoint
from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import lock, set_aside
from clvr_bench.inventory import StoredRun, checkpoint_epoch, expected_evaluations, prune, stored_runs
from clvr_bench.records import Run
from tests.clvr_bench.records_fake import FakeRun, other_data, write_seeds
from tests.conftest import Answer

TWO_HOURS = 7200


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


def states(results: Path) -> dict[str, str]:
    """Return how far each run is, by its pretext task and seed."""
    runs = stored_runs(results)
    expected = expected_evaluations(runs)
    return {name_of(run): run.state(expected.get(run.suite, set())) for run in runs}


def name_of(run: StoredRun) -> str:
    task, *_, seed, _ = run.folder.name.split("--")
    return f"{task} {seed}"


def unfinished(suite: Path, epoch: int = 3, **more: object) -> Path:
    """Write a run that was killed: a checkpoint and no record."""
    folder = suite / "runs" / FakeRun(task="byol").pretraining().folder_name
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    state = {"epoch": epoch, "seconds": 1.5, "history": [{"epoch": 1, "loss": 0.5}]}
    parts = {"task": network.state_dict(), "optimizers": {"train": optimizer.state_dict()}}
    generators = {"cpu": torch.get_rng_state(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_checkpoint(folder, {**parts, "state": state, "underway": None, "generators": generators, **more})
    return folder


def old(path: Path, seconds: int = TWO_HOURS) -> Path:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))
    return path


def with_weights(run: Run, content: bytes = b"weights") -> Run:
    """Give a run its weights, as its record says, and a checkpoint that was left over."""
    (run.folder / "weights.safetensors").write_bytes(content)
    (run.folder / "checkpoint.pt").write_bytes(b"checkpoint!")
    replace(run.pretraining, weights=sha256(b"weights").hexdigest()).save(run.folder / "pretraining.json")
    return run


def test_every_state_is_told(suite):
    write_seeds(suite, [60.0, 61.0, 62.0])
    FakeRun(seed=3, right=None).write(suite)
    FakeRun(seed=4, error="it diverged").write(suite)
    FakeRun(task="mae", status="failed", reason="NaN", right=None).write(suite)
    FakeRun(task="cpc", status="skipped", reason="too small", right=None).write(suite)
    unfinished(suite)
    (FakeRun(task="moco").write(suite).folder / "pretraining.json").write_text("{")
    assert states(suite.parent) == {
        "byol seed0": "unfinished at epoch 3",
        "cpc seed0": "skipped",
        "mae seed0": "failed",
        "moco seed0": "damaged",
        "simclr seed0": "done",
        "simclr seed1": "done",
        "simclr seed2": "done",
        "simclr seed3": "evaluation missing: linear",
        "simclr seed4": "evaluation missing: linear",
    }


def test_runs_without_any_evaluation_lack_the_linear_one(suite):
    FakeRun(right=None, knn=None, spread=None).write(suite)
    assert states(suite)["simclr seed0"] == "evaluation missing: linear"


def test_evaluations_that_only_few_runs_have_are_not_missed_in_the_others(suite):
    write_seeds(suite, [60.0, 61.0, 62.0])
    FakeRun(seed=0, extra={"finetune": {"top1": 50.0}}).write(suite)
    FakeRun(seed=1, target=other_data()).write(suite)
    assert set(states(suite).values()) == {"done"}


def test_transfer_does_not_stand_in_for_an_evaluation_on_the_own_data(suite):
    FakeRun(right=None, knn=None, spread=None).write(suite)
    FakeRun(target=other_data()).write(suite)
    assert states(suite)["simclr seed0"] == "evaluation missing: linear"


@pytest.mark.parametrize(
    ("more", "said"), [({}, "unfinished at epoch 7"), ({"epochs": 20}, "unfinished at epoch 7/20")]
)
def test_epoch_of_a_checkpoint_is_read_past_its_tensors(suite, more, said):
    unfinished(suite, epoch=7, **more)
    assert states(suite)["byol seed0"] == said


def test_checkpoint_that_runs_code_when_it_is_loaded_runs_none_here(suite, tmp_path):
    class Touch:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "ran",)

    folder = unfinished(suite)
    torch.save({"state": {"epoch": 2}, "other": Touch()}, folder / "checkpoint.pt")
    assert checkpoint_epoch(folder / "checkpoint.pt") == (2, None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_damaged_checkpoint_is_told_not_fatal(suite, content):
    (unfinished(suite) / "checkpoint.pt").write_bytes(content)
    assert states(suite)["byol seed0"] == "unfinished, checkpoint damaged"


def test_folder_of_a_run_that_has_only_begun(suite):
    folder = unfinished(suite)
    (folder / "checkpoint.pt").unlink()
    assert states(suite)["byol seed0"] == "unfinished, no checkpoint yet"


def test_sizes_are_split_by_what_they_are(suite):
    run = with_weights(FakeRun().write(suite))
    damaged = run.folder / "checkpoint.pt.damaged"
    damaged.write_bytes(b"12345")
    (stored,) = stored_runs(suite)
    records = sum(path.stat().st_size for path in run.folder.rglob("*.*") if path.suffix in (".json", ".npz"))
    assert stored.sizes == {"weights": 7, "checkpoint": 11 + 5, "records": records}
    assert stored.set_aside == [damaged]


def test_time_is_that_of_the_last_record_whatever_its_zone(suite):
    FakeRun(finished="2026-01-01T00:00:00+00:00").write(suite)
    FakeRun(finished="2026-01-02T01:30:00+02:00", target=other_data()).write(suite)
    (stored,) = stored_runs(suite)
    assert stored.when
    assert stored.when.isoformat() == "2026-01-02T01:30:00+02:00"


def test_run_that_is_held_is_seen_and_looking_leaves_no_lock_behind(suite):
    folder = FakeRun().write(suite).folder
    assert not stored_runs(suite)[0].is_running
    assert not (folder / ".lock").exists()
    with lock(folder / ".lock"):
        assert stored_runs(suite)[0].is_running
    assert not stored_runs(suite)[0].is_running


def test_folder_without_runs_is_a_clear_error(tmp_path):
    with pytest.raises(ClvrBenchError, match="no runs found"):
        stored_runs(tmp_path)


def test_only_one_suite_is_looked_at_where_it_is_named(suite):
    FakeRun().write(suite)
    FakeRun().write(suite.parent / "other")
    assert [run.suite for run in stored_runs(suite.parent, "other")] == ["other"]


def test_pruning_removes_a_checkpoint_beside_a_finished_run_and_nothing_else(suite):
    run = with_weights(FakeRun().write(suite))
    before = {path.name for path in run.folder.rglob("*")}
    pruned = prune(suite.parent)
    assert (pruned.removed, pruned.bytes) == ([run.folder / "checkpoint.pt"], 11)
    assert {path.name for path in run.folder.rglob("*")} == before - {"checkpoint.pt"} | {".lock"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: (run.folder / "weights.safetensors").unlink(),
        lambda run: (run.folder / "weights.safetensors").write_bytes(b"other"),
        lambda run: (run.folder / "pretraining.json").write_text("{"),
        lambda run: replace(run.pretraining, status="failed").save(run.folder / "pretraining.json"),
    ],
    ids=["weights gone", "weights damaged", "record damaged", "failed"],
)
def test_pruning_keeps_a_checkpoint_that_may_be_needed(suite, spoil):
    run = with_weights(FakeRun().write(suite))
    spoil(run)
    assert prune(suite).removed == []
    assert (run.folder / "checkpoint.pt").exists()


def test_pruning_keeps_the_checkpoint_of_an_unfinished_run(suite):
    folder = unfinished(suite)
    assert prune(suite).removed == []
    assert (folder / "checkpoint.pt").exists()


def test_pruning_removes_what_a_kill_left_half_written_an_hour_ago(suite):
    run = FakeRun().write(suite)
    left = [
        old(write(run.folder / ".weights.safetensors.77.partial")),
        old(write(run.folder / "evaluations" / ".knn-0.json.77.partial")),
        old(write(suite / ".leaderboard.csv.77.partial")),
    ]
    copied = suite / ".simclr--copied.77.partial"
    old(write(copied / "pretraining.json"))
    old(copied)
    young = write(run.folder / ".checkpoint.pt.78.partial")
    visible = old(write(run.folder / "notes.partial"))
    pruned = prune(suite)
    assert sorted(pruned.removed) == sorted([*left, copied])
    assert pruned.bytes == 4 * len("half")
    assert young.exists()
    assert visible.exists()


def test_copy_that_is_still_being_written_is_kept_however_old_its_first_file(suite):
    FakeRun().write(suite)
    copied = suite / ".simclr--copied.77.partial"
    old(write(copied / "pretraining.json"))
    write(copied / "weights.safetensors")
    old(copied)
    assert prune(suite).removed == []


def test_pruning_leaves_a_run_alone_that_a_process_is_at_work_on(suite):
    run = with_weights(FakeRun().write(suite))
    with lock(run.folder / ".lock"):
        pruned = prune(suite)
    assert (pruned.removed, pruned.busy) == ([], [run.folder])
    assert (run.folder / "checkpoint.pt").exists()


def test_pruning_never_removes_a_damaged_file_that_was_set_aside(suite):
    run = with_weights(FakeRun().write(suite))
    aside = old(set_aside(run.folder / "checkpoint.pt"))
    assert prune(suite).removed == []
    assert aside.exists()


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    return path


def test_the_command_shows_states_sizes_and_damage_and_says_what_it_removed(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    suite = tmp_path / "results" / "tiny"
    done, damaged = with_weights(FakeRun().write(suite)), FakeRun(task="moco").write(suite).folder / "pretraining.json"
    (done.folder / "weights.safetensors").write_bytes(b"w" * 2_000_000)
    replace(done.pretraining, weights="").save(done.folder / "pretraining.json")
    damaged.write_text("{")
    aside = set_aside(write(done.folder / "error.txt"))
    answer = cli("runs")
    assert answer.code == 0, answer.err
    lines = {line.split()[1]: line.split()[2:] for line in answer.out.splitlines() if line.startswith("tiny")}
    assert lines[done.folder.name][:3] == ["done", "2.00", "0.00"]
    assert lines[done.folder.name][-2:] == ["2026-01-01", "00:00"]
    assert lines[damaged.parent.name][0] == "damaged"
    assert re.search(r"^total +2 runs ", answer.out, flags=re.MULTILINE)
    assert f"damaged: results/tiny/runs/{damaged.parent.name}/pretraining.json: not a readable record" in answer.out
    assert f"set aside: results/tiny/runs/{done.folder.name}/{aside.name} (0.00 MB)" in answer.out
    pruned = cli("runs", "--prune", "--suite", "tiny")
    assert f"removed: results/tiny/runs/{done.folder.name}/checkpoint.pt" in pruned.out
    assert "1 removed, 0.00 MB." in pruned.out


def test_a_narrow_terminal_does_not_break_the_names_of_runs(cli: Callable[..., Answer], tmp_path, monkeypatch) -> None:
    run = FakeRun().write(tmp_path / "results" / "tiny")
    monkeypatch.setenv("COLUMNS", "40")
    assert run.folder.name in cli("runs").out


def test_the_command_needs_no_torch() -> None:
    program = "import sys, clvr_bench.cli.inventory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
