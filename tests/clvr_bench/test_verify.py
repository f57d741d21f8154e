import dataclasses
import io
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.records import EvaluationRecord, Run
from clvr_bench.tables import write_leaderboard
from clvr_bench.verify import Verification, verify
from tests.clvr_bench.records_fake import FakeRun, write_realistic, write_seeds


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return FakeRun().write(tmp_path / "tiny")


def record_of(run: Run, name: str) -> EvaluationRecord:
    return next(record for record in run.evaluations if record.name == name)


def file_of(run: Run, name: str, suffix: str = ".json") -> Path:
    return run.folder / "evaluations" / f"{record_of(run, name).file_stem}{suffix}"


def only_problem(results: Path) -> str:
    (problem,) = verify(results).problems
    return problem


def test_sound_results_have_no_problem_and_everything_is_counted(tmp_path):
    write_realistic(tmp_path / "tiny")
    write_leaderboard(tmp_path / "tiny")
    checked = verify(tmp_path)
    assert checked == Verification(runs=39, evaluations=108, predictions=36, tables=1, problems=())


def test_edited_identity_is_found(tmp_path, run):
    path = run.folder / "pretraining.json"
    content = json.loads(path.read_text())
    content["identity"]["seed"] = 7
    path.write_text(json.dumps(content))
    problem = only_problem(tmp_path)
    assert problem.startswith(str(path))
    assert "it was edited" in problem


def test_damaged_evaluation_is_found_and_the_others_are_still_checked(tmp_path, run):
    path = file_of(run, "knn")
    path.write_text("{")
    assert only_problem(tmp_path).startswith(str(path))
    assert verify(tmp_path).predictions == 1


def test_renamed_folder_is_found(tmp_path, run):
    run.folder.rename(run.folder.with_name("simclr-best"))
    assert f"belongs in a folder named {run.folder.name}" in only_problem(tmp_path)


def test_renamed_evaluation_is_found(tmp_path, run):
    path = file_of(run, "knn")
    path.rename(path.with_name("knn-best.json"))
    assert f"belongs in a file named {path.name}" in only_problem(tmp_path)


def test_evaluation_of_another_run_is_found(tmp_path, run):
    other = FakeRun(seed=1).write(tmp_path / "tiny")
    moved = file_of(other, "knn").rename(run.folder / "evaluations" / file_of(other, "knn").name)
    problem = only_problem(tmp_path)
    assert problem.startswith(str(moved))
    assert f"judges pretraining {other.pretraining.id}, not {run.pretraining.id}" in problem


def test_missing_predictions_are_found(tmp_path, run):
    file_of(run, "linear", ".npz").unlink()
    assert only_problem(tmp_path).startswith(str(file_of(run, "linear", ".npz")))


def test_swapped_predictions_are_found(tmp_path, run):
    path = file_of(run, "linear", ".npz")
    path.write_bytes(path.read_bytes() + b"x")
    assert "not the file that was recorded" in only_problem(tmp_path)


@pytest.mark.parametrize("name", ["top1", "top5"])
def test_score_that_its_predictions_do_not_give_is_found(tmp_path, run, name):
    path = file_of(run, "linear")
    content = json.loads(path.read_text())
    said = content["metrics"][name] = content["metrics"][name] - 0.1  # one image of a thousand
    path.write_text(json.dumps(content))
    assert f"says {name} {said:.6f}, its predictions say {said + 0.1:.6f}" in only_problem(tmp_path)


def test_score_that_was_rounded_to_six_decimals_is_accepted(tmp_path):
    third = np.arange(3) < 1
    FakeRun(right=third, labels=np.arange(3), extra={"linear": {"top1": 33.333333}}).write(tmp_path / "tiny")
    assert verify(tmp_path).problems == ()


def test_score_without_a_column_of_the_right_class_counts_as_wrong(tmp_path, run):
    record, buffer = record_of(run, "linear"), io.BytesIO()
    np.savez(buffer, predictions=np.full((4, 5), 9), labels=np.array([9, 9, 9, 0]))
    file_of(run, "linear", ".npz").write_bytes(buffer.getvalue())
    changed = {"metrics": {"top1": 75.0, "top5": 75.0}, "predictions": sha256(buffer.getvalue()).hexdigest()}
    dataclasses.replace(record, **changed).save(file_of(run, "linear"))
    assert verify(tmp_path).problems == ()


def test_stale_leaderboard_is_found(tmp_path, run):
    path = write_leaderboard(tmp_path / "tiny")
    FakeRun(seed=1).write(tmp_path / "tiny")
    assert only_problem(tmp_path).startswith(f"{path}: differs from the table")


def test_edited_leaderboard_is_found(tmp_path, run):
    path = write_leaderboard(tmp_path / "tiny")
    path.write_bytes(path.read_bytes().replace(b"60.00", b"60.01"))
    assert only_problem(tmp_path).startswith(str(path))


def test_leaderboard_beside_damaged_records_is_reported_not_fatal(tmp_path, run):
    path = write_leaderboard(tmp_path / "tiny")
    file_of(run, "knn").write_text("{")
    assert any(problem.startswith(f"{path}: not compared") for problem in verify(tmp_path).problems)


def test_one_suite_can_be_verified_alone(tmp_path, run):
    write_seeds(tmp_path / "other", [60.0, 61.0])
    assert verify(tmp_path, "other").runs == 2


def test_folder_without_runs_is_a_clear_error(tmp_path):
    with pytest.raises(ClvrBenchError, match="nothing to verify"):
        verify(tmp_path)
