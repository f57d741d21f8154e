"""What classes were taken for, counted from predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clvr_bench.groups import Group, group_runs
from clvr_bench.records import load_runs
from clvr_bench.report.classes import MATRIX, Confusion, confusion
from tests.clvr_bench.records_fake import CLASSES, FakeRun, write_seeds


def group(results: Path) -> Group:
    (found,) = group_runs(load_runs(results))
    return found


def test_classes_are_counted_over_all_seeds(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    FakeRun(seed=0, right=np.array([1, 1, 0, 0, 1, 1], dtype=bool), labels=labels).write(tmp_path / "study")
    FakeRun(seed=1, right=np.array([1, 1, 1, 0, 1, 1], dtype=bool), labels=labels).write(tmp_path / "study")
    found = confusion(group(tmp_path))
    assert found
    zero, one = found.lines  # the fake's wrong answers are the next class
    assert (zero.name, zero.pictures, zero.accuracy, list(zero.taken_for)) == ("class 0", 4, 5 / 8, [5 / 8, 3 / 8])
    assert zero.confused_with == "class 1 (37.5%)"
    assert (one.pictures, one.accuracy, one.confused_with) == (2, 1.0, "")


def test_classes_are_called_what_the_record_calls_them(tmp_path: Path) -> None:
    labels = np.array([0, 0, 1, 1])
    names = ["cat", "dog", "never tested"]
    FakeRun(right=np.array([1, 0, 1, 1], dtype=bool), labels=labels, facts={"class_names": names}).write(tmp_path / "s")
    found = confusion(group(tmp_path))
    assert found
    assert [(line.name, line.confused_with) for line in found.lines] == [("cat", "dog (50.0%)"), ("dog", "")]
    assert list(found.columns) == names
    assert len(found.lines[0].taken_for) == 3


def test_accuracies_of_classes_make_up_the_rows_top1(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [60.0, 61.0])
    found = confusion(group(tmp_path))
    assert found
    assert len(found.lines) == CLASSES
    right = sum(line.accuracy * line.pictures for line in found.lines) / sum(line.pictures for line in found.lines)
    assert round(100 * right, 6) == 60.5


def test_a_class_that_no_test_picture_has_has_no_line() -> None:
    counts = np.zeros((3, 3), dtype=np.int64)
    counts[0, 2] = counts[2, 2] = 4
    assert [line.name for line in Confusion(counts, 1).lines] == ["class 0", "class 2"]
    assert Confusion(counts, 1).columns == ["0", "1", "2"]


def test_many_classes_have_no_room_for_all_pairs() -> None:
    few, many = (Confusion(np.eye(size, dtype=np.int64), 1) for size in (MATRIX, MATRIX + 1))
    assert (few.has_room, len(few.lines[0].taken_for)) == (True, MATRIX)
    assert (many.has_room, len(many.lines[0].taken_for)) == (False, 0)


def test_without_all_predictions_nothing_is_known(tmp_path: Path) -> None:
    runs = write_seeds(tmp_path / "study", [60.0, 61.0])
    next((runs[0].folder / "evaluations").glob("linear-*.npz")).write_bytes(b"spoilt")
    assert confusion(group(tmp_path)) is None


def test_runs_that_were_not_judged_have_none(tmp_path: Path) -> None:
    FakeRun(status="failed", reason="the loss was NaN", right=None).write(tmp_path / "study")
    assert confusion(group(tmp_path)) is None
