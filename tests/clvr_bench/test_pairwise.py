from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clvr_bench
from clvr_bench.errors import ClvrBenchError
from clvr_bench.pairwise import COLUMNS, pair_study, pair_table, shown
from clvr_bench.standings import leaderboard
from clvr_bench.tables import csv_text
from tests.clvr_bench.records_fake import FakeRun, write_seeds

SCORES = {
    ("crop",): [40.0, 41.0, 42.0],
    ("color",): [20.0, 20.0, 20.0],
    ("crop", "color"): [55.0, 56.0, 57.0],
    ("color", "crop"): [50.0, 51.0, 52.0],
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "pairs"


def write(suite: Path, scores=SCORES, **fields) -> None:
    for chain, accuracies in scores.items():
        write_seeds(suite, accuracies, chain=chain, **fields)


def error_of(*arguments, **flags) -> str:
    with pytest.raises(ClvrBenchError) as caught:
        pair_study(*arguments, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_first_link_is_the_row_second_the_column_and_one_alone_the_diagonal(suite):
    write(suite)
    study = pair_study(suite)
    means = [[study.cell(first, second).mean for second in study.names] for first in study.names]
    assert study.names == ["crop", "color"]
    assert means == [[41.0, 56.0], [51.0, 20.0]]


def test_averages_are_those_of_the_rows_with_their_diagonals(suite):
    write(suite)
    assert pair_study(suite).averages == [48.5, 35.5]


def test_scores_are_those_of_the_leaderboard(suite):
    write(suite)
    frame = leaderboard(suite).set_index("augmentation")
    study = pair_study(suite)
    for chain, score in study.scores.items():
        row = frame.loc[" + ".join(chain)]
        assert score == (row.top1_mean, row.top1_std, row.top1_ci95, row.seeds)


def test_one_seed_has_no_deviation(suite):
    write(suite, {("crop",): [40.0], ("crop", "color"): [50.0]})
    score = pair_study(suite).cell("crop", "crop")
    assert score == (40.0, None, None, 1)
    assert shown(score) == "40.0"


def test_the_best_average_comes_first_and_equal_ones_by_name(suite):
    write(suite, {("b",): [30.0], ("a",): [30.0], ("c",): [35.0], ("a", "b"): [30.0], ("b", "a"): [30.0]})
    assert pair_study(suite).names == ["c", "a", "b"]


def test_what_was_not_run_is_missing_and_left_out_of_the_average(suite):
    write(suite, {("crop",): [40.0], ("crop", "color"): [50.0], ("crop", "blur"): [60.0], ("blur",): [10.0]})
    study = pair_study(suite)
    assert study.cell("blur", "crop") is None
    assert study.names == ["crop", "blur", "color"]
    assert study.averages == [50.0, 10.0, None]
    assert study.sentences[-1] == "-: no score, and left out of its row's average."


def test_what_failed_is_missing_not_zero(suite):
    write(suite, {("crop",): [40.0], ("color",): [20.0], ("color", "crop"): [30.0]})
    FakeRun(chain=("crop", "color"), status="failed", reason="NaN", right=None).write(suite)
    study = pair_study(suite)
    assert study.cell("crop", "color") is None
    assert not study.is_complete
    assert study.averages == [40.0, 25.0]
    row = pair_table(study).set_index(["first", "second"]).loc[("crop", "color")]
    assert row.seeds == 0
    assert np.isnan(row.top1_mean)


def test_seeds_that_failed_do_not_count(suite):
    write(suite)
    FakeRun(chain=("crop", "color"), seed=3, status="failed", reason="NaN", right=None).write(suite)
    assert pair_study(suite).cell("crop", "color").seeds == 3


def test_no_augmentation_is_the_baseline_and_has_neither_row_nor_column(suite):
    write(suite, {**SCORES, ("none",): [10.0, 11.0, 12.0]})
    study = pair_study(suite)
    assert study.names == ["crop", "color"]
    assert study.baseline[:2] == (11.0, 1.0)
    assert "no augmentation (none): 11.0 ± 1.0." in study.sentences


def test_no_augmentation_in_a_pair_has_a_row_like_any_other(suite):
    write(suite, {**SCORES, ("none",): [10.0], ("none", "crop"): [20.0]})
    study = pair_study(suite)
    assert study.baseline is None
    assert study.cell("none", "none").mean == 10.0


def test_an_augmentation_applied_twice_is_left_out_and_not_the_diagonal(suite):
    write(suite, {**SCORES, ("crop", "crop"): [99.0]})
    study = pair_study(suite)
    assert study.cell("crop", "crop").mean == 41.0
    assert study.averages == [48.5, 35.5]
    assert study.remarks == (
        "crop+crop left out: applied twice is not the augmentation alone, which the diagonal shows.",
    )


def test_longer_chains_are_left_out_and_counted(suite):
    write(suite, {**SCORES, ("crop", "color", "blur"): [99.0], ("blur", "crop", "color"): [99.0]})
    study = pair_study(suite)
    assert study.names == ["crop", "color"]
    assert study.remarks == ("2 chains of more than two augmentations left out.",)


def test_tasks_without_augmentation_are_not_in_the_way(suite):
    write(suite)
    write_seeds(suite, [15.0], task="random_init", chain=(), budget=None)
    assert pair_study(suite).names == ["crop", "color"]


def test_links_of_one_name_whose_options_differ_have_labels_that_say_so(suite):
    small = {"name": "crop", "options": {"area": [0.2, 1.0], "flip": True}}
    large = {"name": "crop", "options": {"area": [0.5, 1.0], "flip": True}}
    write(suite, {("color",): [20.0]})
    write_seeds(suite, [40.0], chain=(small,))
    write_seeds(suite, [50.0], chain=(small, "color"))
    write_seeds(suite, [30.0], chain=(large, "color"))
    study = pair_study(suite)
    assert study.names == ["crop (area=[0.2,1.0])", "crop (area=[0.5,1.0])", "color"]
    assert study.cell("crop (area=[0.5,1.0])", "color").mean == 30.0
    assert study.cell("crop (area=[0.5,1.0])", "crop (area=[0.5,1.0])") is None


def test_links_whose_options_look_alike_are_not_merged(suite):
    for mode, accuracy in ((None, 30.0), ("null", 40.0)):
        write_seeds(suite, [accuracy], chain=({"name": "crop", "options": {"mode": mode}}, "color"))
    assert len(pair_study(suite).scores) == 2


def test_links_whose_versions_differ_are_not_merged(suite):
    write_seeds(suite, [40.0], chain=({"name": "crop", "version": 1},))
    write_seeds(suite, [50.0], chain=({"name": "crop", "version": 2}, "color"))
    assert set(pair_study(suite).names) == {"crop (version=1)", "crop (version=2)", "color"}


def test_options_that_all_links_share_are_not_shown(suite):
    crop = {"name": "crop", "options": {"area": [0.2, 1.0]}}
    write_seeds(suite, [40.0], chain=(crop,))
    write_seeds(suite, [50.0], chain=(crop, "color"))
    assert set(pair_study(suite).names) == {"crop", "color"}


def test_a_newer_version_of_a_run_supersedes_the_older(suite):
    write(suite, version=1, finished="2026-01-01T00:00:00+00:00")
    write(suite, {chain: [50.0, 50.0, 50.0] for chain in SCORES}, version=2, finished="2026-02-01T00:00:00+00:00")
    assert pair_study(suite).averages == [50.0, 50.0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": 2}, "pretext_task.version is 1, 2"),
        ({"options": {"temperature": 0.2}}, "pretext_task.options.temperature is 0.1, 0.2"),
        ({"budget": {"epochs": 10, "batch_size": 512}}, "budget.epochs is 10, 200"),
        ({"fingerprint": "beef"}, 'dataset.fingerprint is "beef", "f00d"'),
        ({"protocol": "linear-v2"}, 'linear.protocol is "linear-v1", "linear-v2"'),
    ],
)
def test_chains_that_differ_in_more_than_augmentations_are_not_compared(suite, fields, said):
    write(suite, {("crop",): [40.0], ("crop", "color"): [50.0]})
    write(suite, {("color",): [20.0]}, **fields)
    assert error_of(suite) == (
        f"pairs: its chains differ in more than augmentations: {said}. "
        "Run the suite again, or keep every setting in a suite of its own."
    )


def test_the_one_study_of_a_folder_is_found_among_other_suites(suite):
    write(suite)
    write_seeds(suite.parent / "others", [60.0], task="byol", chain=("simclr",))
    assert pair_study(suite.parent).subject == ("pairs", "simclr", "resnet18_small", "CIFAR-10")


def test_several_suites_are_an_error_that_says_how_to_narrow(suite):
    write(suite)
    write(suite.parent / "more")
    expected = "pairs of augmentations in more than one suite (more, pairs). Choose one, such as --suite more."
    assert error_of(suite.parent) == f"{suite.parent}: {expected}"
    assert pair_study(suite.parent, "more").subject.suite == "more"


@pytest.mark.parametrize(
    ("field", "fields", "narrowed", "names"),
    [
        ("pretext task", {"task": "byol"}, {"pretext_task": "byol"}, "byol, simclr"),
        ("encoder", {"encoder": "a_net"}, {"encoder": "a_net"}, "a_net, resnet18_small"),
        ("data set", {"dataset": "A", "fingerprint": "a"}, {"dataset": "A"}, "A, CIFAR-10"),
    ],
)
def test_several_subjects_of_a_suite_are_an_error_that_says_how_to_narrow(suite, field, fields, narrowed, names):
    write(suite)
    write(suite, {chain: [10.0] for chain in SCORES}, **fields)
    flag = f"--{next(iter(narrowed)).replace('_', '-')}"
    expected = f"pairs of augmentations in more than one {field} ({names}). Choose one, such as {flag} "
    assert error_of(suite) == f"{suite}: {expected}{names.split(',')[0]}."
    assert pair_study(suite, **narrowed).averages == [10.0, 10.0]


def test_unknown_names_are_answered_with_those_there_are(suite):
    write(suite)
    expected = "pairs of augmentations: unknown pretext task 'simlcr'. Did you mean 'simclr'? Available: simclr."
    assert error_of(suite, pretext_task="simlcr") == f"{suite}, {expected}"


def test_no_records_are_an_error(tmp_path):
    assert "no runs found" in error_of(tmp_path)


def test_no_pairs_are_an_error_that_says_how_to_ask_for_one(suite):
    write(suite, {("crop",): [40.0], ("crop", "color", "blur"): [50.0]})
    hint = 'A suite asks for one with a list in its list: augmentations = [["FIRST", "SECOND"]].'
    assert error_of(suite) == f"{suite}: no chain of two augmentations among the runs. {hint}"


def test_no_scores_are_an_error(suite):
    FakeRun(chain=("crop", "color"), status="failed", reason="NaN", right=None).write(suite)
    assert error_of(suite) == "pairs: no chain of augmentations has a top-1 yet. Run the suite to its end."


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({("a",): [40.0], ("a", "b"): [50.0]}, "200 epochs, 1 seed;"),
        ({("a",): [40.0, 41.0], ("a", "b"): [50.0, 51.0]}, "200 epochs; mean ± standard deviation over 2 seeds;"),
        ({("a",): [40.0], ("a", "b"): [5.0, 6.0, 7.0]}, "200 epochs; mean ± standard deviation over 1 to 3 seeds;"),
    ],
)
def test_caption_counts_epochs_and_seeds(suite, scores, said):
    write(suite, scores)
    assert " ".join(pair_study(suite).sentences).startswith(said)


def test_caption_is_of_one_epoch_or_of_none(suite):
    write(suite, {("a",): [40.0], ("a", "b"): [50.0]}, budget={"epochs": 1, "batch_size": 8})
    assert pair_study(suite).sentences[0] == "1 epoch, 1 seed;"
    write(suite, {("a",): [40.0], ("a", "b"): [50.0]}, budget=None, task="untrained")
    assert pair_study(suite, pretext_task="untrained").sentences[0] == "1 seed;"


def test_table_has_a_row_a_chain_in_the_studys_order(suite):
    write(suite, {**SCORES, ("none",): [10.0, 11.0, 12.0]})
    frame = pair_table(pair_study(suite))
    assert list(frame.columns) == list(COLUMNS)
    assert list(zip(frame["first"], frame["second"], strict=True)) == [
        ("none", ""), ("crop", ""), ("crop", "color"), ("color", ""), ("color", "crop"),
    ]  # fmt: skip
    row = frame.iloc[2]
    assert (row.pretext_task, row.encoder, row.dataset, row.epochs) == ("simclr", "resnet18_small", "CIFAR-10", 200)


def test_csv_is_short_and_the_same_bytes_again(suite):
    write(suite)
    text = csv_text(pair_table(pair_study(suite)), COLUMNS)
    assert text == csv_text(pair_table(pair_study(suite)), COLUMNS)
    assert text.splitlines()[:2] == [
        "first,second,top1_mean,top1_std,top1_ci95,seeds,pretext_task,encoder,dataset,epochs",
        "crop,,41.00,1.00,2.48,3,simclr,resnet18_small,CIFAR-10,200",
    ]


def test_python_gets_the_table_and_makes_the_matrix_as_documented(suite):
    write(suite)
    frame = clvr_bench.pairs(suite.parent, suite="pairs", pretext_task="simclr")
    pd.testing.assert_frame_equal(frame, pair_table(pair_study(suite)))
    frame["second"] = frame["second"].where(frame["second"] != "", frame["first"])
    matrix = frame.pivot(index="first", columns="second", values="top1_mean")
    assert matrix.loc["crop", "color"] == 56.0
    assert matrix.loc["color", "color"] == 20.0
