"""Scales and marks: values to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from clvr_bench.records import load_runs
from clvr_bench.report.cards import cards
from clvr_bench.report.charts import _labelled_apart, costs, panels, scopes
from clvr_bench.report.plots import Mark, Scale
from clvr_bench.standings import Standing, standings
from tests.clvr_bench.records_fake import write_seeds

HISTORY = [{"epoch": epoch, "loss": 1.0, "knn_top1": 0.0} for epoch in (1, 2)]


def test_a_scale_puts_values_where_they_belong() -> None:
    upwards = Scale(0, 50, 100, 0)
    assert [upwards.at(value) for value in (0, 25, 50)] == [100, 50, 0]
    factors = Scale(1, 100, 0, 20, is_log=True)
    assert [factors.at(value) for value in (1, 10, 100)] == [0, 10, 20]


def test_ticks_are_round_and_in_range() -> None:
    assert [text for _, text in Scale(0, 83.5, 0, 100).ticks] == ["0", "20", "40", "60", "80"]
    assert [text for _, text in Scale(40, 1100, 0, 100, is_log=True).ticks] == ["50", "100", "200", "500", "1,000"]


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0]])
def test_equal_values_have_a_scale_with_them_in_the_middle(values: list[float]) -> None:
    assert Scale.over(values, 0, 100).at(values[0]) == 50


def test_a_scale_leaves_room_at_both_ends() -> None:
    scale = Scale.over([10, 1000], 0, 108, is_log=True)
    assert [scale.at(value) for value in (10, 1000)] == [4, 104]


def test_the_front_is_joined_by_steps_and_alone_is_labelled(tmp_path: Path) -> None:
    for task, top1, seconds in (("simclr", 50.0, 10.0), ("byol", 40.0, 100.0), ("pirl", 60.0, 1000.0)):
        write_seeds(tmp_path / "study", [top1], task=task, compute={"seconds": seconds}, history=HISTORY)
    (scope,) = scopes(cards(standings_of(tmp_path)))
    chart = costs(scope)
    assert chart
    shapes = {mark.task: (mark.shape, mark.label) for mark in chart.plot.marks}
    assert shapes == {"simclr": ("dot", "simclr"), "byol": ("ring", ""), "pirl": ("dot", "pirl")}
    first, corner, last = chart.plot.line
    assert (first[1], corner[0]) == (corner[1], last[0])


def test_labels_stand_apart_and_a_crowd_goes_without(tmp_path: Path) -> None:
    tasks = ["simclr", "byol", "pirl", "swav", "instdisc", "amdim", "moco_v1", "moco_v2"]
    for number, task in enumerate(tasks):  # each better and slower than the one before, by next to nothing
        compute = {"seconds": 100.0 + 0.01 * number}
        write_seeds(tmp_path / "study", [50 + 0.1 * number], task=task, compute=compute, history=HISTORY)
    write_seeds(tmp_path / "study", [90.0], task="supervised", compute={"seconds": 1000.0}, history=HISTORY)
    write_seeds(tmp_path / "study", [10.0], task="rotation", compute={"seconds": 10.0}, history=HISTORY)
    (scope,) = scopes(cards(standings_of(tmp_path)))
    chart = costs(scope)
    assert chart
    labelled = {mark.label: mark for mark in chart.plot.marks if mark.label}
    assert {"supervised", "rotation"} < set(labelled)
    assert len(labelled) < 10
    heights = [mark.label_at[1] for mark in labelled.values() if mark.label_at]
    assert len(heights) == len(labelled)
    assert all(abs(at - mark.place[1]) < 30 for at, mark in zip(heights, labelled.values(), strict=True))


WHISKERS = [Mark((at, 200.0), "", whisker=((at, 300.0), (at, 100.0))) for at in (440.0, 480.0)]


def labelled(*marks: Mark, line: Sequence[tuple[float, float]] = ()) -> list[Mark]:
    """Place the labels of marks among two upright whiskers, and return the marks that kept theirs."""
    found = _labelled_apart([*marks, *WHISKERS], line, Scale(0, 9, 0, 900), Scale(0, 4, 400, 0))
    return [mark for mark in found if mark.label]


def test_a_label_moves_out_of_a_whiskers_way() -> None:
    (free,) = labelled(Mark((300.0, 200.0), "", label="short"))
    assert free.label_at == (307.0, 203.5)  # right of its mark
    (moved,) = labelled(Mark((425.0, 200.0), "", label="short"))
    assert moved.label_at
    assert moved.label_at[0] + 6.2 * len("short") <= 425 - 7  # left of it


def test_a_label_is_not_written_over_the_front() -> None:
    (moved,) = labelled(Mark((100.0, 200.0), "", label="short"), line=[(100.0, 200.0), (400.0, 200.0)])
    assert moved.label_at
    assert moved.label_at[0] + 6.2 * len("short") <= 100 - 7  # left of it


def test_a_curve_of_one_epoch_is_a_dot(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [50.0], history=[{"epoch": 1, "loss": 1.0, "knn_top1": 20.0}])
    (scope,) = scopes(cards(standings_of(tmp_path)))
    (panel,) = panels(scope)
    assert len(panel.plot.line) == 2
    assert len(set(panel.plot.line)) == 1


def test_epochs_have_one_scale_in_the_panels_of_as_many(tmp_path: Path) -> None:
    for task, epochs in (("simclr", 2), ("byol", 2), ("byol", 20)):
        history = [{"epoch": epoch, "loss": 1.0, "knn_top1": 10.0} for epoch in range(1, 1 + epochs)]
        budget = {"epochs": epochs, "batch_size": 512}
        write_seeds(tmp_path / "study", [50.0], task=task, history=history, budget=budget)
    (scope,) = scopes(cards(standings_of(tmp_path)))
    drawn = panels(scope)
    assert [panel.name for panel in drawn] == ["byol, 2 epochs", "byol, 20 epochs", "simclr"]
    assert {panel.plot.line[-1][0] for panel in drawn} == {drawn[0].plot.x.end}


def test_a_label_without_room_is_left_out() -> None:
    assert not labelled(Mark((460.0, 200.0), "", label="far too long to be anywhere near " * 3))


def test_numbers_that_an_axis_cannot_show_do_no_harm(tmp_path: Path) -> None:
    write_seeds(tmp_path / "study", [50.0], compute={"seconds": 0.0}, history=HISTORY)
    (scope,) = scopes(cards(standings_of(tmp_path)))
    assert costs(scope) is None
    (panel,) = panels(scope)
    assert {y for _, y in panel.plot.line} == {panel.plot.y.start}


def standings_of(results: Path) -> list[Standing]:
    return standings(load_runs(results))
