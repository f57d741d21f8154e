from __future__ import annotations

from pathlib import Path

import pytest

from clvr_bench.charts.rows import Point, Row, load_rows
from clvr_bench.errors import ClvrBenchError
from tests.clvr_bench.records_fake import FakeRun, correctness, other_data, write_seeds


def epochs(*knn: float | None) -> list[dict[str, float | None]]:
    return [{"epoch": number, "loss": 1 / number, "knn_top1": value} for number, value in enumerate(knn, start=1)]


def test_a_row_has_the_numbers_of_every_seed(tmp_path: Path) -> None:
    for seed, (accuracy, seconds) in enumerate([(60.0, 100.0), (64.0, 140.0)]):
        history, compute = epochs(10.0 + seed, 20.0 + seed), {"seconds": seconds, "encoder_passes": 500}
        FakeRun(seed=seed, right=correctness(accuracy, seed), history=history, compute=compute).write(tmp_path)
    (row,) = load_rows(tmp_path)
    assert (row.name, row.labels, row.trained) == ("simclr", "none", True)
    assert row.top1 == pytest.approx((60.0, 64.0))
    assert row.mean == pytest.approx(62.0)
    assert row.std == pytest.approx(8**0.5)
    assert (row.seconds, row.encoder_passes) == ((100.0, 140.0), 500)
    assert row.curve("knn_top1") == [Point(1, 10.0, 10.5, 11.0), Point(2, 20.0, 20.5, 21.0)]


def test_the_best_mean_comes_first_and_what_was_not_judged_last(tmp_path: Path) -> None:
    write_seeds(tmp_path, [50.0, 52.0], task="byol")
    write_seeds(tmp_path, [70.0], task="supervised", facts={"labels": "fine"})
    FakeRun(task="dino", right=None).write(tmp_path)
    FakeRun(task="mae", status="failed", right=None).write(tmp_path)
    rows = load_rows(tmp_path)
    assert [(row.name, row.labels) for row in rows] == [("supervised", "fine"), ("byol", "none"), ("dino", "none")]
    assert not any(row.trained for row in rows)  # these have no epochs
    assert rows[0].std == 0


def test_an_epoch_without_the_measure_is_left_out() -> None:
    row = Row("dino", histories=(epochs(None, 20.0), epochs(None, 24.0), epochs(None)))
    assert row.curve("knn_top1") == [Point(2, 20.0, 22.0, 24.0)]
    assert row.curve("rotation_top1") == []


def test_names_say_what_tells_rows_apart_and_no_more(tmp_path: Path) -> None:
    write_seeds(tmp_path, [60.0, 61.0], encoder="small")
    write_seeds(tmp_path, [50.0, 51.0], encoder="large")
    write_seeds(tmp_path, [40.0, 41.0], task="byol", encoder="small")
    write_seeds(tmp_path, [30.0, 30.0], task="raw_pixels", encoder=None, budget=None)
    assert [row.name for row in load_rows(tmp_path)] == ["simclr, small", "simclr, large", "byol", "raw_pixels"]


def test_rows_of_one_pretext_task_are_named_by_their_options(tmp_path: Path) -> None:
    for temperature in (0.1, 0.2):
        options = {"queue_size": 64, "temperature": temperature}
        write_seeds(tmp_path, [60.0, 61.0], options=options, facts={"options_shown": options})
    assert {row.name for row in load_rows(tmp_path)} == {"simclr, temperature=0.1", "simclr, temperature=0.2"}


def test_rows_of_one_pretext_task_are_named_by_their_budgets(tmp_path: Path) -> None:
    for epochs, batch_size in ((1, 128), (40, 128), (40, 64)):
        write_seeds(tmp_path, [60.0, 61.0], budget={"epochs": epochs, "batch_size": batch_size})
    names = {"simclr, 1 epoch, batch 128", "simclr, 40 epochs, batch 128", "simclr, 40 epochs, batch 64"}
    assert {row.name for row in load_rows(tmp_path)} == names


def test_transfers_and_superseded_rows_are_left_out(tmp_path: Path) -> None:
    write_seeds(tmp_path, [60.0, 61.0])
    write_seeds(tmp_path, [30.0, 31.0], target=other_data())
    write_seeds(tmp_path, [20.0, 21.0], version=0, finished="2025-12-01T00:00:00+00:00")
    (row,) = load_rows(tmp_path)
    assert row.top1 == pytest.approx((60.0, 61.0))


def test_rows_of_several_suites_or_data_sets_are_refused_by_name(tmp_path: Path) -> None:
    write_seeds(tmp_path / "one", [60.0])
    write_seeds(tmp_path / "two", [60.0])
    with pytest.raises(ClvrBenchError, match="charts are of one suite, here are: one, two"):
        load_rows(tmp_path)
    assert len(load_rows(tmp_path, "one")) == 1
    write_seeds(tmp_path / "one", [60.0], dataset="STL-10", fingerprint="57110")
    with pytest.raises(ClvrBenchError, match="charts are of one data set, here are: CIFAR-10, STL-10"):
        load_rows(tmp_path, "one")
