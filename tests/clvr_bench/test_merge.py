from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.merge import merge
from clvr_bench.records import Run, load_runs
from tests.clvr_bench.records_fake import FakeRun, correctness, write_seeds


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    return [tmp_path / "first", tmp_path / "second"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "merged"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_of_all_machines_and_suites_are_copied_whole(machines, target):
    runs = [FakeRun(seed=0).write(machines[0] / "small"), FakeRun(seed=1).write(machines[1] / "large")]
    (runs[0].folder / "weights.safetensors").write_bytes(b"weights")
    report = merge(machines, target)
    assert report.copied == (f"small/{runs[0].folder.name}", f"large/{runs[1].folder.name}")
    assert (report.duplicates, report.conflicts) == ((), ())
    for run in runs:
        assert content(target / run.suite / "runs" / run.folder.name) == content(run.folder)


def test_folder_of_a_single_suite_is_a_source_too(machines, target):
    run = FakeRun().write(machines[0] / "small")
    assert merge([machines[0] / "small"], target).copied == (f"small/{run.folder.name}",)


def test_same_run_with_the_same_results_is_kept_once(machines, target):
    run = FakeRun(finished="2026-01-01T00:00:00+00:00", compute={"seconds": 1.0}).write(machines[0] / "small")
    FakeRun(finished="2026-01-02T00:00:00+00:00", compute={"seconds": 2.0}).write(machines[1] / "small")
    report = merge(machines, target)
    assert report.duplicates == (f"small/{run.folder.name}",)
    assert len(report.copied) == len(load_runs(target)) == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"knn": 54.9}, "scores of evaluation knn-"),
        ({"right": correctness(60.0, seed=9)}, "predictions of evaluation linear-"),
        ({"status": "failed"}, "status failed and done"),
    ],
)
def test_same_run_with_other_results_is_a_conflict_and_changes_nothing(machines, target, changes, what):
    kept = FakeRun().write(machines[0] / "small")
    FakeRun(**changes).write(machines[1] / "small")
    report = merge(machines, target)
    assert len(report.conflicts) == 1
    assert what in report.conflicts[0]
    assert content(target / "small" / "runs" / kept.folder.name) == content(kept.folder)


def test_conflict_does_not_keep_other_runs_out(machines, target):
    FakeRun().write(machines[0] / "small")
    FakeRun(knn=1.0).write(machines[1] / "small")
    FakeRun(seed=1).write(machines[1] / "small")
    report = merge(machines, target)
    assert (len(report.copied), len(report.conflicts)) == (2, 1)


def test_evaluation_that_was_added_elsewhere_is_brought_along(machines, target):
    FakeRun(right=None).write(machines[0] / "small")
    evaluated = FakeRun().write(machines[1] / "small")
    report = merge(machines, target)
    assert report.copied[1].startswith(f"small/{evaluated.folder.name}: linear-")
    assert content(target / "small" / "runs" / evaluated.folder.name) == content(evaluated.folder)


def test_evaluation_of_another_pretraining_with_the_same_id_is_a_conflict(machines, target):
    FakeRun(right=None).write(machines[0] / "small")
    FakeRun(finished="2026-02-02T00:00:00+00:00").write(machines[1] / "small")
    report = merge(machines, target)
    assert "is of another pretraining with the same ID" in report.conflicts[0]
    assert [record.name for record in load_runs(target)[0].evaluations] == ["health", "knn"]


def test_older_copy_with_fewer_evaluations_is_a_duplicate(machines, target):
    FakeRun().write(machines[0] / "small")
    FakeRun(right=None).write(machines[1] / "small")
    assert len(merge(machines, target).duplicates) == 1


def test_merging_twice_adds_nothing(machines, target):
    write_seeds(machines[0] / "small", [60.0, 61.0])
    merge(machines[:1], target)
    before = content(target)
    assert len(merge(machines[:1], target).duplicates) == 2
    assert content(target) == before


def test_hidden_leftovers_are_not_copied(machines, target):
    run = FakeRun().write(machines[0] / "small")
    (run.folder / ".pretraining.json.1.partial").write_text("{")
    merge(machines[:1], target)
    assert not list(target.rglob(".*"))


def test_failing_copy_leaves_no_part_of_a_run(machines, target, monkeypatch):
    FakeRun().write(machines[0] / "small")

    def fail(source: Path, destination: Path, **_: object) -> None:
        destination.mkdir()
        (destination / "pretraining.json").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("clvr_bench.merge.shutil.copytree", fail)
    with pytest.raises(OSError, match="disk full"):
        merge(machines[:1], target)
    assert content(target) == {}


def test_source_without_runs_is_a_clear_error_and_nothing_is_copied(machines, target):
    FakeRun().write(machines[0] / "small")
    with pytest.raises(ClvrBenchError, match="second: no runs found"):
        merge(machines, target)
    assert not target.exists()


def test_damaged_record_is_a_clear_error_and_nothing_is_copied(machines, target):
    FakeRun().write(machines[0] / "small")
    damaged = FakeRun(seed=1).write(machines[1] / "small")
    (damaged.folder / "pretraining.json").write_text("{")
    with pytest.raises(ClvrBenchError, match="not a readable record"):
        merge(machines, target)
    assert not target.exists()


def test_damaged_run_in_the_target_is_a_clear_error_and_nothing_is_copied(machines, target):
    FakeRun(seed=0).write(machines[0] / "small")
    FakeRun(seed=1).write(machines[1] / "small")
    merge(machines[1:], target)
    (load_runs(target)[0].folder / "pretraining.json").write_text("{")
    before = content(target)
    with pytest.raises(ClvrBenchError, match="not a readable record"):
        merge(machines, target)
    assert content(target) == before


def test_target_that_is_a_suite_is_refused(machines):
    run: Run = FakeRun().write(machines[0] / "small")
    with pytest.raises(ClvrBenchError, match="the results folder above it"):
        merge([machines[0]], run.folder.parent.parent)
