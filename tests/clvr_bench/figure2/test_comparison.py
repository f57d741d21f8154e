from __future__ import annotations

from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.figure2.comparison import COLUMNS, Comparison, Measured, compare, table
from clvr_bench.figure2.sheets import agreement
from clvr_bench.standings import leaderboard
from clvr_bench.tables import csv_text
from tests.clvr_bench.records_fake import FakeRun, write_seeds


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


def measured(comparison: Comparison, label: str) -> Measured | None:
    return next(found for entry, found in comparison.pairs if entry.label == label)


def error_of(suite: Path, dataset: str | None = None) -> str:
    with pytest.raises(ClvrBenchError) as caught:
        compare(leaderboard(suite), dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_runs_nothing_is_measured_or_called_missing() -> None:
    comparison = compare()
    assert len(comparison.pairs) == 23
    assert comparison.measured == []
    assert not any("not measured" in note for note in table(comparison)["note"])


def test_an_entry_takes_mean_spread_and_parameters_of_its_pretext_tasks_row(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0, 62.0], task="byol")
    comparison = compare(leaderboard(suite))
    found = measured(comparison, "BYOL")
    assert found is not None
    assert (found.top1, found.std, found.seeds, found.encoder) == (61.0, 1.0, 3, "resnet18_small")
    assert found.params_m == pytest.approx(11.2)
    assert found.interval == pytest.approx(2.484138, abs=1e-6)
    assert [entry.label for entry, _ in comparison.measured] == ["BYOL"]
    assert (comparison.dataset, comparison.epochs, comparison.encoder) == ("CIFAR-10", 200, "resnet18_small")


def test_one_seed_has_no_spread(suite: Path) -> None:
    write_seeds(suite, [60.0], task="byol")
    found = measured(compare(leaderboard(suite)), "BYOL")
    assert found is not None
    assert (found.std, found.interval) == (None, None)


def test_a_widened_entry_takes_only_a_row_with_that_very_encoder(suite: Path) -> None:
    write_seeds(suite, [60.0], task="simclr", encoder="resnet50")
    write_seeds(suite, [70.0], task="simclr", encoder="resnet50x2")
    comparison = compare(leaderboard(suite))
    tops = {label: measured(comparison, label) for label in ("SimCLR", "SimCLR (2x)", "SimCLR (4x)")}
    assert {label: found.top1 if found else None for label, found in tops.items()} == {
        "SimCLR": 60.0, "SimCLR (2x)": 70.0, "SimCLR (4x)": None,
    }  # fmt: skip
    assert comparison.encoder == ""


def test_a_method_whose_only_entry_is_widened_takes_its_row_but_no_place_in_the_order(suite: Path) -> None:
    write_seeds(suite, [30.0], task="bigbigan")
    write_seeds(suite, [60.0], task="simclr")
    comparison = compare(leaderboard(suite))
    assert measured(comparison, "BigBiGAN-Big") is not None
    assert [move.entry.label for move in comparison.moves] == ["SimCLR"]


def test_of_several_rows_the_own_encoder_comes_first_then_the_usual_one_then_the_best_on_val(suite: Path) -> None:
    write_seeds(suite, [50.0], task="cpc_v1", encoder="resnet101_stage3")
    write_seeds(suite, [60.0], task="cpc_v1", encoder="resnet18_small")
    write_seeds(suite, [40.0], task="byol", encoder="vit")
    write_seeds(suite, [30.0], task="byol", encoder="resnet18_small")
    for temperature, test, val in ((0.1, 70.0, 20.0), (0.2, 60.0, 30.0)):
        facts = {"options_shown": {"temperature": temperature}}
        extra = {"linear": {"val_top1": val}}
        write_seeds(suite, [test], task="simclr", options={"temperature": temperature}, facts=facts, extra=extra)
    comparison = compare(leaderboard(suite))
    found = {label: measured(comparison, label) for label in ("CPC v1", "BYOL", "SimCLR")}
    assert {label: each.top1 for label, each in found.items() if each} == {"CPC v1": 50.0, "BYOL": 30.0, "SimCLR": 60.0}
    assert found["SimCLR"] is not None
    assert found["SimCLR"].note.startswith("of several rows, that of resnet18_small, simclr, temperature=0.2")


def test_only_rows_of_the_budget_that_most_have_are_compared(suite: Path) -> None:
    for task in ("byol", "simclr", "moco_v2"):
        write_seeds(suite, [60.0], task=task, budget={"epochs": 30, "batch_size": 512})
    for task, accuracy in (("simclr", 80.0), ("swav", 85.0)):
        write_seeds(suite, [accuracy], task=task, budget={"epochs": 200, "batch_size": 512})
    write_seeds(suite, [30.0], task="random_init", budget=None)
    usual, longer = compare(leaderboard(suite)), compare(leaderboard(suite), epochs=200)
    assert {entry.label: found.top1 for entry, found in usual.measured} == {"BYOL": 60, "SimCLR": 60, "MoCo v2": 60}
    assert (usual.epochs, usual.other_epochs) == (30, (200,))
    assert agreement(usual)[1] == "Only rows of 30 epochs; there are also rows of 200."
    assert {entry.label: found.top1 for entry, found in longer.measured} == {"SwAV": 85, "SimCLR": 80}
    assert (longer.epochs, longer.other_epochs) == (200, (30,))


def test_settings_of_one_method_do_not_outvote_methods(suite: Path) -> None:
    for temperature in (0.1, 0.2, 0.3):
        short = {"epochs": 5, "batch_size": 512}
        write_seeds(suite, [60.0], task="simclr", options={"temperature": temperature}, budget=short)
    for task in ("byol", "simclr"):
        write_seeds(suite, [70.0], task=task)
    for task in ("rotation", "jigsaw", "exemplar"):  # not in the figure
        write_seeds(suite, [70.0], task=task, budget={"epochs": 5, "batch_size": 512})
    assert compare(leaderboard(suite)).epochs == 200


def test_without_a_method_of_the_figure_nothing_is_measured(suite: Path) -> None:
    write_seeds(suite, [70.0], task="rotation")
    assert compare(leaderboard(suite)).measured == []


def test_of_equally_common_budgets_the_longest_is_compared(suite: Path) -> None:
    for epochs in (30, 200, 100):
        write_seeds(suite, [60.0 + epochs / 100], task="byol", budget={"epochs": epochs, "batch_size": 512})
    assert compare(leaderboard(suite)).epochs == 200


def test_a_budget_that_no_row_has_is_refused_with_those_there_are(suite: Path) -> None:
    write_seeds(suite, [60.0], task="byol")
    with pytest.raises(ClvrBenchError, match=r"^figure2: no row of 30 epochs. There are rows of: 200.$"):
        compare(leaderboard(suite), epochs=30)


def test_moves_are_places_gained_and_the_largest_are_named(suite: Path) -> None:
    for task, top1 in {"swav": 20.0, "byol": 50.0, "simclr": 40.0, "instdisc": 60.0, "supervised": 90.0}.items():
        write_seeds(suite, [top1], task=task)
    comparison = compare(leaderboard(suite))
    places = {move.entry.label: (move.published, move.measured) for move in comparison.moves}
    assert places == {"SwAV": (1, 4), "BYOL": (2, 2), "SimCLR": (3, 3), "InstDisc": (4, 1)}
    assert [(move.entry.label, move.places) for move in comparison.moved_most] == [("InstDisc", 3), ("SwAV", -3)]
    assert comparison.agreement.rho == pytest.approx(-0.8)
    assert comparison.agreement.n == 4


def test_rows_of_several_suites_or_data_sets_are_refused_until_one_is_named(suite: Path, tmp_path: Path) -> None:
    write_seeds(suite, [60.0])
    write_seeds(suite, [50.0], dataset="shapes", fingerprint="beef")
    assert error_of(suite) == "figure2: rows of several datasets: CIFAR-10, shapes. Name one with --dataset."
    assert compare(leaderboard(suite), "shapes").dataset == "shapes"
    assert error_of(suite, "digits") == "figure2: no row of data set 'digits'. There are: CIFAR-10, shapes."
    write_seeds(suite.parent / "other", [50.0])
    assert error_of(suite.parent, "CIFAR-10").startswith("figure2: rows of several suites: other, tiny.")


def test_runs_without_a_linear_evaluation_are_refused(suite: Path) -> None:
    FakeRun(right=None).write(suite)
    assert error_of(suite) == "figure2: no run has been judged by the linear evaluation."


def test_the_table_has_23_rows_and_says_what_was_not_measured(suite: Path) -> None:
    write_seeds(suite, [60.0, 62.0], task="byol", notes=["a note"])
    frame = table(compare(leaderboard(suite)))
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 23
    rows = frame.set_index("method")
    assert (rows.loc["BYOL", "measured_top1_mean"], rows.loc["BYOL", "seeds"]) == (61.0, 2)
    assert rows.loc["BYOL", "note"] == "linear: a note"
    assert rows.loc["SwAV", "note"] == "not measured"
    assert rows.loc["PIRL (2x)", "note"] == "the figure draws it near 96M and 67.6; not measured"
    lines = csv_text(frame, COLUMNS).splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[3].startswith("BYOL,byol,2020,ResNet-50,24.0,74.3,61.00,1.41,2,CIFAR-10,")
    assert lines[3].endswith(",linear: a note,resnet18_small,11.20")
