"""What a run scored on other data, or with other options of an evaluation, as tables have it."""

from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.merge import merge
from clvr_bench.pairwise import pair_study
from clvr_bench.records import Run, load_runs
from clvr_bench.standings import leaderboard
from clvr_bench.tables import render, write_leaderboard
from clvr_bench.verify import verify
from tests.clvr_bench.records_fake import CLASSES, LABELS, FakeRun, correctness, other_data, write_seeds

TRANSFERRED = "CIFAR-10 → digits"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


def rows(suite: Path):
    """Return the rows by what they were pretrained and evaluated on."""
    return leaderboard(suite).set_index("dataset")


def only_row(suite: Path):
    frame = leaderboard(suite)
    assert len(frame) == 1
    return frame.iloc[0]


def test_transfer_is_a_row_of_its_own_over_the_seeds_that_have_it(suite):
    write_seeds(suite, [60.0, 61.0, 62.0])
    write_seeds(suite, [80.0, 82.0], target=other_data())
    frame = rows(suite)
    assert frame.index.tolist() == ["CIFAR-10", TRANSFERRED]
    assert frame["top1_mean"].tolist() == [61.0, 81.0]
    assert frame["seeds"].tolist() == [3, 2]
    assert frame.loc[TRANSFERRED, "status"] == "done"


def test_row_on_a_runs_own_data_does_not_change_by_a_transfer(suite):
    write_seeds(suite, [60.0, 61.0], notes=["edge"])
    write_seeds(suite, [50.0, 50.5], task="byol")
    before = render(leaderboard(suite), "csv")
    write_seeds(suite, [90.0, 91.0], target=other_data())
    write_seeds(suite, [95.0, 96.0], task="byol", target=other_data())
    after = render(leaderboard(suite), "csv")
    assert [line for line in after.splitlines() if "→" not in line] == before.splitlines()


def test_transfers_are_ranked_among_those_of_the_same_two_data_sets(suite):
    for task, own, digits, letters in (("byol", 80.0, 60.0, 70.0), ("simclr", 60.0, 80.0, 70.2)):
        write_seeds(suite, [own, own + 0.1], task=task)
        write_seeds(suite, [digits, digits + 0.1], task=task, target=other_data())
        write_seeds(suite, [letters], task=task, target=other_data(name="letters"), target_facts={"dataset": "letters"})
    frame = leaderboard(suite).set_index(["dataset", "pretext_task"])
    assert frame.loc["CIFAR-10", "rank"].to_dict() == {"byol": 1, "simclr": 2}
    assert frame.loc[TRANSFERRED, "rank"].to_dict() == {"simclr": 1, "byol": 2}
    assert frame.loc["CIFAR-10 → letters", "rank"].isna().all()


def test_transfers_with_other_options_are_rows_apart_and_show_them(suite):
    for size in (16, 32):
        shown = {"options_shown": {"image_size": size}}
        write_seeds(suite, [60.0], target=other_data(options={"image_size": size}), target_facts=shown)
    frame = leaderboard(suite)
    assert sorted(frame["options"]) == ["", "evaluated_on.image_size=16", "evaluated_on.image_size=32"]
    assert frame["note"].tolist() == ["", "", ""]


def test_run_that_was_only_transferred_keeps_its_own_row(suite):
    write_seeds(suite, [60.0], target=other_data())
    assert rows(suite)["status"].to_dict() == {"CIFAR-10": "not evaluated", TRANSFERRED: "done"}


def test_transfer_without_the_linear_evaluation_says_so_and_has_its_other_scores(suite):
    FakeRun(right=None, knn=44.0, target=other_data()).write(suite)
    row = rows(suite).loc[TRANSFERRED]
    assert (row.status, row.knn_top1_mean) == ("no linear evaluation", 44.0)


def test_collapse_is_judged_by_the_classes_of_the_evaluated_data(suite):
    scores = {"knn": 25.0, "spread": 0.01, "target": other_data()}
    FakeRun(**scores, target_facts={"num_classes": 4}).write(suite)
    FakeRun(task="byol", **scores, target_facts={"num_classes": CLASSES}).write(suite)
    notes = leaderboard(suite).query("dataset == @TRANSFERRED").set_index("pretext_task")["note"]
    assert notes.to_dict() == {"simclr": "1 of 1 seeds collapsed", "byol": ""}


def test_row_on_the_own_data_set_with_other_content_says_so(suite):
    changed = {"name": "cifar10", "version": 1, "options": {}, "fingerprint": "beefbeefbeef"}
    FakeRun(fingerprint="f00df00df00d", target=changed, target_facts={"dataset": "CIFAR-10"}).write(suite)
    said = "the data changed since pretraining: fingerprint f00df00d then, beefbeef now"
    assert rows(suite).loc["CIFAR-10 → CIFAR-10", "note"] == said


def test_transfers_to_data_that_changed_between_runs_say_so(suite):
    FakeRun(target=other_data(fingerprint="aaaaaaaaaaaa"), fingerprint="f00d").write(suite)
    FakeRun(target=other_data(fingerprint="bbbbbbbbbbbb"), fingerprint="f00d", seed=1).write(suite)
    notes = leaderboard(suite).query("dataset == @TRANSFERRED")["note"].tolist()
    told = "the data changed between runs: fingerprint f00d → {} here, f00d → {} in a row that looks the same"
    assert sorted(notes) == [told.format("aaaaaaaa", "bbbbbbbb"), told.format("bbbbbbbb", "aaaaaaaa")]


def test_rows_whose_data_changed_between_runs_say_so(suite):
    write_seeds(suite, [60.0], fingerprint="0123456789abcdef")
    write_seeds(suite, [70.0], fingerprint="fedcba9876543210")
    write_seeds(suite, [50.0], task="byol", fingerprint="fedcba9876543210")
    frame = leaderboard(suite)
    assert frame["note"].tolist() == [
        "the data changed between runs: fingerprint fedcba98 here, 01234567 in a row that looks the same",
        "the data changed between runs: fingerprint 01234567 here, fedcba98 in a row that looks the same",
        "",
    ]


def test_notes_on_data_are_shown_and_a_transfer_tells_both_apart(suite):
    facts = {"data_notes": ["3 files left out; they cannot be decoded"]}
    FakeRun(facts=facts).write(suite)
    FakeRun(facts=facts, target=other_data(), target_facts={"data_notes": ["5 of test are also in train"]}).write(suite)
    frame = rows(suite)
    assert frame.loc["CIFAR-10", "note"] == "3 files left out, they cannot be decoded"
    told = "pretraining data: 3 files left out, they cannot be decoded; 5 of test are also in train"
    assert frame.loc[TRANSFERRED, "note"] == told


def test_labels_that_nobody_knows_of_are_shown_as_unknown(suite):
    write_seeds(suite, [60.0], task="weights", facts={"labels": "unknown"})
    assert only_row(suite).uses_labels == "unknown"


def test_transfer_of_older_code_stays_until_the_newer_run_is_transferred_too(suite):
    old = {"version": 1, "finished": "2026-01-01T00:00:00+00:00"}
    new = {"version": 2, "finished": "2026-02-01T00:00:00+00:00"}
    write_seeds(suite, [60.0], **old)
    write_seeds(suite, [70.0], **old, target=other_data())
    write_seeds(suite, [61.0], **new)
    frame = rows(suite)
    assert frame["top1_mean"].tolist() == [61.0, 70.0]
    assert frame.loc["CIFAR-10", "note"] == "1 row of older versions left out"
    assert "of an older version's weights" in frame.loc[TRANSFERRED, "note"]
    write_seeds(suite, [71.0], **new, target=other_data())
    frame = rows(suite)
    assert frame["top1_mean"].tolist() == [61.0, 71.0]
    assert frame["note"].tolist() == ["1 row of older versions left out"] * 2


def test_transfer_to_the_same_data_by_newer_code_replaces_the_older(suite):
    write_seeds(suite, [60.0], target=other_data(version=1), finished="2026-01-01T00:00:00+00:00")
    run = FakeRun(right=correctness(70.0), target=other_data(version=2), finished="2026-01-02T00:00:00+00:00")
    run.write(suite)
    assert rows(suite).loc[[TRANSFERRED], "top1_mean"].tolist() == [70.0]


def test_variants_of_an_evaluation_have_columns_of_their_own(suite):
    finetune = {"extra": {"finetune": {"top1": 70.0}}}
    FakeRun(**finetune).write(suite)
    FakeRun(extra={"finetune": {"top1": 50.0}}, shown={"finetune": {"fraction": 0.01}}).write(suite)
    FakeRun(extra={"finetune": {"top1": 60.0}}, shown={"finetune": {"fraction": 0.1, "schedule": "steps"}}).write(suite)
    row = only_row(suite)
    assert row["finetune_top1_mean"] == 70.0
    assert row["finetune[fraction=0.01]_top1_mean"] == 50.0
    assert row["finetune[fraction=0.1,schedule=steps]_top1_mean"] == 60.0
    compact = render(leaderboard(suite), "markdown").splitlines()[0]
    assert "| finetune % | finetune [fraction=0.01] % | finetune [fraction=0.1,schedule=steps] % |" in compact


def test_what_a_variant_says_is_told_with_its_options(suite):
    FakeRun().write(suite)
    FakeRun(notes=["it is slow"], shown={"linear": {"penalty": 1}}, knn=None, spread=None).write(suite)
    assert only_row(suite).note == "linear[penalty=1]: it is slow"


def test_top1_is_that_of_the_linear_evaluation_with_default_options_where_there_is_one(suite):
    FakeRun(right=correctness(70.0), shown={"linear": {"penalty": 1}}).write(suite)
    row = only_row(suite)
    assert (row.top1_mean, row.evaluation, row.status) == (70.0, "linear@1[penalty=1]", "done")
    FakeRun(right=correctness(60.0)).write(suite)
    row = only_row(suite)
    assert (row.top1_mean, row.evaluation) == (60.0, "linear@1")
    assert row["linear[penalty=1]_top1_mean"] == 70.0


def test_evaluation_of_fewer_seeds_than_the_row_has_says_so(suite):
    write_seeds(suite, [60.0, 61.0])
    FakeRun(extra={"finetune": {"top1": 70.0}}, right=correctness(60.0, 0)).write(suite)
    assert only_row(suite).note == "finetune: of 1 of 2 seeds"


def test_leaderboard_names_a_damaged_record_and_goes_on_with_the_rest(suite):
    write_seeds(suite, [60.0, 61.0])
    damaged = FakeRun(task="byol").write(suite).folder / "pretraining.json"
    damaged.write_text("{")
    told: list[str] = []
    assert leaderboard(suite, on_damaged=told.append)["pretext_task"].tolist() == ["simclr"]
    assert [line.split(":")[0] for line in told] == [str(damaged)]
    with pytest.raises(ClvrBenchError, match="not a readable record"):
        leaderboard(suite)
    assert write_leaderboard(suite, on_damaged=told.append).is_file()
    assert len(told) == 2


def study(suite: Path, **fields) -> None:
    for chain, score in (
        (("crop",), 60.0),
        (("rotate",), 50.0),
        (("crop", "rotate"), 65.0),
        (("rotate", "crop"), 55.0),
    ):
        write_seeds(suite, [score], chain=chain, **fields)


def test_pairs_are_those_of_the_runs_own_data_unless_transfers_are_named(suite):
    study(suite)
    before = pair_study(suite)
    study(suite, target=other_data())
    assert pair_study(suite) == before
    assert pair_study(suite, dataset="CIFAR-10") == before
    transferred = pair_study(suite, dataset="CIFAR-10 -> digits")
    assert transferred.subject.dataset == TRANSFERRED
    assert transferred.scores.keys() == before.scores.keys()
    with pytest.raises(ClvrBenchError, match=f"unknown data set 'letters'. Available: CIFAR-10, {TRANSFERRED}"):
        pair_study(suite, dataset="letters")


def test_pairs_of_transfers_to_different_content_are_not_put_in_one_table(suite):
    study(suite, target=other_data())
    write_seeds(suite, [60.0], chain=("blur",), target=other_data(fingerprint="bbbb"))
    with pytest.raises(ClvrBenchError, match=r"differ in more than augmentations: evaluated on\.fingerprint"):
        pair_study(suite, dataset=TRANSFERRED)


def test_pairs_name_a_damaged_record_and_go_on(suite):
    study(suite)
    folder = FakeRun(task="byol").write(suite).folder
    (folder / "pretraining.json").write_text("{")
    told: list[str] = []
    assert len(pair_study(suite, on_damaged=told.append).scores) == 4
    assert len(told) == 1


def transferred(run: Run) -> Path:
    """Return the record of a run's linear evaluation on other data."""
    (record,) = (r for r in run.evaluations if r.name == "linear" and "dataset" in r.identity)
    return run.folder / "evaluations" / f"{record.file_stem}.json"


def test_verify_scores_transfers_again(suite):
    FakeRun().write(suite)
    FakeRun(right=correctness(70.0), target=other_data()).write(suite)
    checked = verify(suite)
    assert (checked.runs, checked.evaluations, checked.predictions, checked.problems) == (1, 6, 2, ())


def test_verify_finds_tampered_predictions_of_a_transfer(suite):
    run = FakeRun(target=other_data()).write(suite)
    path = transferred(run).with_suffix(".npz")
    path.write_bytes(path.read_bytes() + b"x")
    assert verify(suite).problems == (f"{path}: missing, or not the file that was recorded. Run the suite again.",)


def test_verify_finds_a_score_of_a_transfer_that_its_predictions_do_not_give(suite):
    path = transferred(FakeRun(target=other_data()).write(suite))
    path.write_text(path.read_text().replace('"top1": 60.0', '"top1": 66.0'))
    (problem,) = verify(suite).problems
    assert problem == f"{path}: says top1 66.000000, its predictions say 60.000000."


def test_verify_finds_a_transfer_to_the_runs_own_data(suite):
    own = {"name": "cifar10", "version": 1, "options": {}, "fingerprint": "f00d"}
    FakeRun(target=own, knn=None, spread=None).write(suite)
    (problem,) = verify(suite).problems
    assert problem.endswith("says that it judges on other data than the run's own, and names the run's own.")


def test_merge_brings_transfers_along(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    FakeRun().write(here / "tiny")
    FakeRun().write(there / "tiny")
    run = FakeRun(target=other_data()).write(there / "tiny")
    report = merge([there], here)
    assert sorted(line.split(": ")[1].split("-")[0] for line in report.copied) == ["health", "knn", "linear"]
    (merged,) = load_runs(here)
    assert merged.evaluations == run.evaluations
    assert verify(here).problems == ()
    assert merge([there], here).duplicates == (f"tiny/{run.folder.name}",)


def test_merge_finds_transfers_that_differ(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    FakeRun(target=other_data(), right=correctness(60.0)).write(here / "tiny")
    FakeRun(target=other_data(), right=correctness(61.0), labels=LABELS).write(there / "tiny")
    (conflict,) = merge([there], here).conflicts
    assert "scores of evaluation linear-" in conflict
