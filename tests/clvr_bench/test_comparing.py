from __future__ import annotations

from itertools import accumulate, combinations
from pathlib import Path
from shutil import rmtree
from statistics import fmean

import numpy as np
import pytest

import clvr_bench
from clvr_bench.comparing import compare_rows
from clvr_bench.errors import ClvrBenchError
from clvr_bench.groups import group_runs, without_superseded
from clvr_bench.matchups import COLUMNS, PICTURE_COLUMNS, Matchup, disagreements, matchup_table
from clvr_bench.records import Run, load_runs
from clvr_bench.significance import LEVEL
from clvr_bench.standings import can_be_ranked, leaderboard
from tests.clvr_bench.records_fake import LABELS, FakeRun, correctness, other_data, write_realistic, write_seeds


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


@pytest.fixture(scope="module")
def realistic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ranked rows with three seeds each, and others."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    write_realistic(folder)
    for run in folder.glob("runs/vicreg--*"):  # only two of its seeds are done
        rmtree(run)
    return folder


def error_of(suite: Path, first: str = "simclr", second: str = "byol", **wanted: str) -> str:
    with pytest.raises(ClvrBenchError) as caught:
        compare_rows(suite, first, second, **wanted)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def known(suite: Path) -> Matchup:
    """Compare two seeds whose right pictures are known: of 1,000, in order."""
    ranges = {"simclr": [(0, 600), (0, 500)], "byol": [(200, 700), (100, 500)]}
    for task, seeds in ranges.items():
        for seed, (start, end) in enumerate(seeds):
            right = (np.arange(1000) >= start) & (np.arange(1000) < end)
            FakeRun(task=task, seed=seed, right=right).write(suite)
    return compare_rows(suite, "simclr", "byol")


def test_counts_of_each_seed_are_those_of_its_pictures(suite: Path) -> None:
    first, second = known(suite).by_seed
    assert (first.first_only, first.second_only, first.both, first.neither) == (200, 100, 400, 300)
    assert (second.first_only, second.second_only, second.both, second.neither) == (100, 0, 400, 500)
    assert (first.first_top1, first.second_top1, first.difference) == (60.0, 50.0, pytest.approx(10.0))


def test_counts_of_all_are_means_over_the_seeds(suite: Path) -> None:
    whole = known(suite).whole
    assert (whole.first_only, whole.second_only, whole.both, whole.neither) == (150, 50, 400, 400)
    assert (whole.first_top1, whole.second_top1, whole.difference) == (55.0, 45.0, pytest.approx(10.0))


def test_classes_share_out_the_pictures(suite: Path) -> None:
    for task, classes in {"simclr": [0, 1], "byol": [1, 2, 3]}.items():
        FakeRun(task=task, right=np.isin(LABELS, classes)).write(suite)
    found = compare_rows(suite, "simclr", "byol")
    assert [part.difference for part in found.by_class] == [100, 0, -100, -100, 0, 0, 0, 0, 0, 0]
    assert {part.pictures for part in found.by_class} == {100}
    assert sum(part.first_only for part in found.by_class) == found.whole.first_only


def test_pictures_that_one_got_right_more_often_come_with_the_largest_difference_first(suite: Path) -> None:
    labels = np.array([0, 0, 1, 1])
    right = {"simclr": ([1, 1, 0, 1], [1, 0, 0, 1]), "byol": ([0, 1, 1, 1], [0, 1, 0, 1])}
    for task, seeds in right.items():
        for seed, hits in enumerate(seeds):
            names = {"class_names": ["cat", "dog"]}
            FakeRun(task=task, seed=seed, right=np.array(hits, dtype=bool), labels=labels, facts=names).write(suite)
    frame = disagreements(compare_rows(suite, "simclr", "byol"))
    assert frame.columns.tolist() == list(PICTURE_COLUMNS)
    assert frame.values.tolist() == [
        [0, "cat", 2, 0, 2, "simclr", "byol"],
        [1, "cat", 1, 2, 2, "simclr", "byol"],
        [2, "dog", 0, 1, 2, "simclr", "byol"],
    ]


def test_classes_are_called_what_the_record_calls_them(suite: Path) -> None:
    for task in ("simclr", "byol"):
        FakeRun(task=task, right=LABELS == 1, facts={"class_names": list("abcdefghij")}).write(suite)
    assert [part.of for part in compare_rows(suite, "simclr", "byol").by_class] == list("abcdefghij")


def test_classes_without_names_are_numbers(suite: Path) -> None:
    for task in ("simclr", "byol"):
        FakeRun(task=task, right=LABELS == 1).write(suite)
    assert [part.of for part in compare_rows(suite, "simclr", "byol").by_class] == list("0123456789")


def test_the_other_way_round_is_the_same_with_its_sign_turned(realistic: Path) -> None:
    there, back = compare_rows(realistic, "moco_v2", "swav"), compare_rows(realistic, "swav", "moco_v2")
    assert there.whole.difference == pytest.approx(-back.whole.difference)
    assert there.verdict is not None
    assert there.verdict == pytest.approx(back.verdict)


def test_adjusted_p_values_give_the_ranks_of_the_leaderboard(realistic: Path) -> None:
    groups = [group for group in without_superseded(group_runs(load_runs(realistic)))[0] if can_be_ranked(group)]
    groups.sort(key=lambda group: -fmean(group.values("linear", "top1")))
    names = [group.runs[0].folder.name for group in groups]
    better = dict.fromkeys(names, 0)
    for higher, lower in combinations(names, 2):
        verdict = compare_rows(realistic, higher, lower).verdict
        assert verdict is not None
        assert verdict.adjusted_p_value is not None
        better[lower] += verdict.adjusted_p_value < LEVEL
    frame = leaderboard(realistic)
    assert frame["rank"].dropna().tolist() == list(accumulate((1 + count for count in better.values()), max))
    assert frame["rank"].max() > 2


def test_the_pairs_are_all_those_of_ranked_rows(realistic: Path) -> None:
    frame = leaderboard(realistic)
    verdict = compare_rows(realistic, "moco_v2", "swav").verdict
    ranked = int(frame["rank"].notna().sum())
    assert verdict is not None
    assert verdict.pairs == ranked * (ranked - 1) / 2


def test_rows_of_other_data_do_not_enter_the_test(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0, 62.0])
    write_seeds(suite, [59.0, 60.0, 61.0], task="byol")
    alone = compare_rows(suite, "simclr", "byol").verdict
    for task in ("swav", "dino", "mae"):
        write_seeds(suite, [10.0, 50.0, 90.0], task=task, fingerprint="beef")
    assert compare_rows(suite, "simclr", "byol").verdict == alone
    write_seeds(suite, [10.0, 50.0, 90.0], task="swav")
    assert compare_rows(suite, "simclr", "byol").verdict != alone


def test_budgets_compare_but_are_not_in_one_test_of_the_leaderboard(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0, 62.0])
    (byol, *_) = write_seeds(suite, [59.0, 60.0, 61.0], task="byol")
    alone = compare_rows(suite, "simclr", "byol").verdict
    longer = write_seeds(suite, [70.0, 71.0, 72.0], task="byol", budget={"epochs": 400, "batch_size": 512})
    assert compare_rows(suite, "simclr", byol.folder.name).verdict == alone
    found = compare_rows(suite, "simclr", longer[0].folder.name)
    assert found.whole.difference == pytest.approx(-10)
    assert found.verdict is not None
    assert found.verdict.adjusted_p_value is None


@pytest.mark.parametrize("other", ["byol", "random_init"])
def test_the_order_of_two_names_changes_no_interval(suite: Path, other: str) -> None:
    for task, spread in (("simclr", 0.1), ("swav", 8.0), ("dino", 9.0)):
        write_seeds(suite, [60.0, 60.0 + spread, 60.0 - spread], task=task)
    write_seeds(suite, [50.0, 50.2, 49.9], task="byol", budget={"epochs": 400, "batch_size": 512})
    write_seeds(suite, [40.0, 40.2, 39.9], task="random_init", budget=None, facts={"ranked": False})
    there, back = compare_rows(suite, "simclr", other).verdict, compare_rows(suite, other, "simclr").verdict
    assert there is not None
    assert there == back
    assert there.pairs > 1


def test_the_interval_leaves_out_zero_where_the_p_value_is_below_a_twentieth(realistic: Path) -> None:
    seen = set()
    for second in ("byol", "swav", "rotation", "barlow_twins"):
        found = compare_rows(realistic, "moco_v2", second)
        assert found.verdict is not None
        excludes = abs(found.whole.difference) > found.verdict.ci95
        assert excludes == (found.verdict.p_value < 0.05)
        seen.add(excludes)
    assert seen == {True, False}


def test_a_row_without_a_rank_is_tested_but_not_adjusted(realistic: Path) -> None:
    verdict = compare_rows(realistic, "moco_v2", "random_init").verdict
    assert verdict is not None
    assert verdict.p_value < 0.001
    assert verdict.adjusted_p_value is None


def test_one_shared_seed_has_counts_but_no_verdict(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0])
    FakeRun(task="byol", seed=1, right=correctness(50.0, 1)).write(suite)
    found = compare_rows(suite, "simclr", "byol")
    assert (found.seeds, found.verdict) == ((1,), None)
    assert found.whole.difference == pytest.approx(11.0)


def test_only_shared_seeds_count(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0, 90.0])
    write_seeds(suite, [50.0, 51.0], task="byol")
    found = compare_rows(suite, "simclr", "byol")
    assert found.seeds == (0, 1)
    assert found.whole.first_top1 == pytest.approx(60.5)
    assert found.verdict is not None
    assert found.verdict.adjusted_p_value is None


def test_a_pretext_task_comes_before_parts_of_names(suite: Path) -> None:
    write_seeds(suite, [60.0])
    write_seeds(suite, [61.0], task="simclr_v2")
    assert compare_rows(suite, "simclr", "simclr_v2").names == ("simclr", "simclr_v2")


def test_a_run_or_a_part_of_its_name_stands_for_its_row(suite: Path) -> None:
    run: Run = write_seeds(suite, [60.0, 61.0])[1]
    write_seeds(suite, [50.0, 51.0], encoder="vgg16")
    for name in (str(run.folder), run.folder.name, "simclr--resnet18"):
        found = compare_rows(suite, name, "simclr--vgg16")
        assert found.names == ("simclr (resnet18_small)", "simclr (vgg16)")
        assert found.seeds == (0, 1)


def test_rows_of_one_task_are_told_apart_by_what_differs(suite: Path) -> None:
    runs = [
        write_seeds(suite, [60.0], options=options, facts={"options_shown": options})
        for options in ({"queue_size": 64, "temperature": 0.1}, {"queue_size": 64, "temperature": 0.2})
    ]
    found = compare_rows(suite, *(seeds[0].folder.name for seeds in runs))
    assert found.names == ("simclr (temperature=0.1)", "simclr (temperature=0.2)")
    longer = write_seeds(suite, [60.0], budget={"epochs": 400, "batch_size": 512})
    usual = write_seeds(suite, [60.0])
    found = compare_rows(suite, usual[0].folder.name, longer[0].folder.name)
    assert found.names == ("simclr (200 epochs)", "simclr (400 epochs)")


def test_a_transfer_is_chosen_by_its_data(suite: Path) -> None:
    for task, own, other in (("simclr", 60.0, 30.0), ("byol", 50.0, 40.0)):
        for target, top1 in ((None, own), (other_data(), other)):
            FakeRun(task=task, right=correctness(top1), target=target).write(suite)
    assert compare_rows(suite, "simclr", "byol").whole.difference == pytest.approx(10.0)
    found = compare_rows(suite, "simclr", "byol", dataset="CIFAR-10 -> digits")
    assert found.whole.difference == pytest.approx(-10.0)
    assert found.dataset == "CIFAR-10 → digits"


def test_an_unknown_row_is_answered_with_the_nearest(suite: Path) -> None:
    write_seeds(suite, [60.0])
    message = error_of(suite, "simlcr", "simclr")
    assert message.startswith("compare: unknown row 'simlcr'. Did you mean 'simclr'? Available: simclr.")


def test_a_name_of_several_rows_says_how_to_choose(suite: Path) -> None:
    write_seeds(suite, [60.0])
    write_seeds(suite, [60.0], encoder="vgg16")
    message = error_of(suite)
    assert message.startswith("compare simclr: 2 rows match, with the runs ")
    assert "--resnet18_small--" in message
    assert "--vgg16--" in message
    assert "Choose with --suite or --dataset, or name a run" in message
    write_seeds(suite, [60.0], budget={"epochs": 400, "batch_size": 512})
    message = error_of(suite)
    assert "(resnet18_small, 200 epochs)" in message
    assert "(resnet18_small, 400 epochs)" in message


def test_one_row_is_not_compared_with_itself(suite: Path) -> None:
    write_seeds(suite, [60.0])
    assert error_of(suite, "simclr", "simclr--resnet18") == (
        "compare: 'simclr' and 'simclr--resnet18' are the same row. Name two."
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fingerprint": "beef"}, "judged on different data: CIFAR-10 (fingerprint f00d, version 1), CIFAR-10 (finger"),
        ({"protocol": "linear-v2"}, "judged differently: linear@1 (linear-v1), linear@1 (linear-v2)."),
        (
            {"shown": {"linear": {"steps": 9}}},
            "judged differently: linear@1 (linear-v1), linear@1[steps=9] (linear-v1)",
        ),
    ],
)
def test_rows_that_were_not_judged_alike_are_refused(suite: Path, fields: dict, said: str) -> None:
    write_seeds(suite, [60.0, 61.0])
    write_seeds(suite, [60.0, 61.0], task="byol", **fields)
    assert f"compare: simclr and byol are {said}" in error_of(suite)


def test_rows_of_different_suites_are_refused(suite: Path) -> None:
    write_seeds(suite, [60.0])
    write_seeds(suite.parent / "other", [60.0], task="byol")
    assert "simclr and byol are of different suites: tiny, other." in error_of(suite.parent)


def test_rows_without_a_shared_seed_are_refused(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0])
    FakeRun(task="byol", seed=7).write(suite)
    assert error_of(suite) == ("compare: no seed is shared: simclr has 0, 1; byol has 7. Run both with the same seeds.")


def test_a_row_that_was_not_judged_is_refused(suite: Path) -> None:
    write_seeds(suite, [60.0])
    FakeRun(task="byol", status="failed", right=None).write(suite)
    assert "compare byol: no run of it has been judged by the linear evaluation." in error_of(suite)


def test_missing_predictions_are_named(suite: Path) -> None:
    write_seeds(suite, [60.0, 61.0])
    for path in write_seeds(suite, [50.0, 51.0], task="byol")[1].folder.glob("evaluations/*.npz"):
        path.unlink()
    assert error_of(suite) == ("compare byol: the predictions of seed 1 are missing or damaged. Run its suite again.")


def test_an_unknown_data_set_is_answered_with_those_there_are(suite: Path) -> None:
    write_seeds(suite, [60.0])
    assert "unknown data set 'CIFAR'. Did you mean 'CIFAR-10'?" in error_of(suite, dataset="CIFAR")


def test_the_table_has_all_then_seeds_then_classes(suite: Path) -> None:
    frame = matchup_table(known(suite))
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame["part"]) == ["all", *["seed"] * 2, *["class"] * 10]
    assert list(frame["of"])[:4] == ["", "0", "1", "0"]
    assert frame["p_value"].notna().tolist() == [True, *[False] * 12]
    assert frame.loc[0, "difference"] == pytest.approx(10.0)
    assert set(frame["first"]) == {"simclr"}


def test_python_gives_the_same_table(suite: Path) -> None:
    expected = matchup_table(known(suite))
    assert clvr_bench.compare(suite.parent, "simclr", "byol", "tiny").equals(expected)
