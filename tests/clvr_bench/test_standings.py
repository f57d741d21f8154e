import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.standings import COLUMNS, leaderboard
from tests.clvr_bench.records_fake import CLASSES, LABELS, FakeRun, correctness, write_realistic, write_seeds


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


def only_row(suite: Path):
    frame = leaderboard(suite)
    assert len(frame) == 1
    return frame.iloc[0]


def by_task(suite: Path):
    return leaderboard(suite).set_index("pretext_task")


def test_columns_come_in_the_documented_order(suite):
    write_seeds(suite, [60.0])
    frame = leaderboard(suite)
    assert list(frame.columns) == list(COLUMNS)
    assert list(frame.columns[:8]) == [
        "rank",
        "pretext_task",
        "encoder",
        "params_m",
        "augmentation",
        "dataset",
        "epochs",
        "top1_mean",
    ]


def test_seeds_of_a_combination_make_one_row_with_mean_deviation_and_interval(suite):
    write_seeds(suite, [60.0, 61.0, 62.0])
    row = only_row(suite)
    assert (row.top1_mean, row.top1_std, row.seeds) == (61.0, 1.0, 3)
    assert row.top1_ci95 == pytest.approx(2.484138, abs=1e-6)  # 4.302653 / sqrt(3)


def test_one_seed_has_neither_interval_nor_rank(suite):
    write_seeds(suite, [60.0])
    row = only_row(suite)
    assert row[["rank", "top1_std", "top1_ci95"]].isna().all()
    assert row.top1_mean == 60.0


def test_row_shows_what_the_records_know(suite):
    shown = {"queue_size": 4096, "recipe.optimizer": "lars", "encoder.norm": "layer", "symmetric": True}
    write_seeds(suite, [60.0, 60.0], facts={"options_shown": shown}, compute={"peak_memory_mb": 2000.0})
    row = only_row(suite)
    assert row.options == "queue_size=4096; recipe.optimizer=lars; encoder.norm=layer; symmetric=true"
    assert (row.params_m, row.epochs, row.batch_size, row.encoder_passes) == (11.2, 200, 512, 1_200_000)
    assert (row.seconds_mean, row.images_per_second_mean, row.peak_memory_mb) == (100.0, 900.0, 2000.0)
    assert (row.encoder, row.augmentation, row.dataset, row.suite) == ("resnet18_small", "simclr", "CIFAR-10", "tiny")
    assert (row.options_source, row.precision, row.uses_labels, row.evaluation) == ("paper", "bf16", "no", "linear@1")
    assert (row.knn_top1_mean, row.spread_mean, row.uniformity_mean) == (55.0, 0.8, -2.5)


def test_labels_that_a_task_uses_are_named(suite):
    write_seeds(suite, [60.0], facts={"labels": "partial"})
    assert only_row(suite).uses_labels == "partial"


def test_task_without_encoder_and_budget_has_empty_cells(suite):
    FakeRun(encoder=None, budget=None, facts={"ranked": False}).write(suite)
    row = only_row(suite)
    assert row.encoder == ""
    assert row[["epochs", "batch_size"]].isna().all()


def test_different_options_are_different_rows(suite):
    write_seeds(suite, [60.0, 61.0], options={"temperature": 0.1})
    write_seeds(suite, [60.0, 61.0], options={"temperature": 0.2})
    assert len(leaderboard(suite)) == 2


def test_different_data_are_different_rows_ranked_apart(suite):
    write_seeds(suite, [80.0, 80.0], task="byol", fingerprint="one")
    write_seeds(suite, [60.0, 60.0], fingerprint="two")
    assert leaderboard(suite)["rank"].tolist() == [1, 1]


def test_budgets_are_ranked_apart(suite):
    for epochs, accuracy in ((10, 60.0), (40, 80.0)):
        write_seeds(suite, [accuracy, accuracy + 1], budget={"epochs": epochs, "batch_size": 128})
        write_seeds(suite, [accuracy - 30, accuracy - 29], task="byol", budget={"epochs": epochs, "batch_size": 128})
    rows = leaderboard(suite)
    assert list(rows["epochs"]) == [40, 10, 40, 10]
    assert list(rows["rank"]) == [1, 1, 2, 2]


def test_suites_are_ranked_apart(tmp_path):
    write_seeds(tmp_path / "first", [80.0, 80.0])
    write_seeds(tmp_path / "second", [60.0, 60.0], task="byol")
    frame = leaderboard(tmp_path)
    assert frame["suite"].tolist() == ["first", "second"]
    assert frame["rank"].tolist() == [1, 1]
    assert leaderboard(tmp_path, "second")["pretext_task"].tolist() == ["byol"]


def test_clear_winner_is_first_and_ties_share_a_rank(suite):
    write_seeds(suite, [80.0, 80.2, 79.9], task="byol")
    write_seeds(suite, [60.0, 60.3, 60.1], task="simclr")
    write_seeds(suite, [60.2, 60.1, 59.9], task="moco_v2")
    frame = leaderboard(suite)
    assert frame["pretext_task"].tolist() == ["byol", "simclr", "moco_v2"]
    assert frame["rank"].tolist() == [1, 2, 2]


def test_encoders_are_ranked_together(suite):
    write_seeds(suite, [80.0, 80.0], encoder="resnet50_small")
    write_seeds(suite, [60.0, 60.0])
    assert leaderboard(suite)["rank"].tolist() == [1, 2]


def test_yardsticks_are_listed_in_order_but_not_ranked(suite):
    write_seeds(suite, [90.0, 90.0], task="supervised", facts={"ranked": False})
    write_seeds(suite, [60.0, 60.0])
    frame = leaderboard(suite)
    assert frame["pretext_task"].tolist() == ["supervised", "simclr"]
    assert frame["rank"].isna().tolist() == [True, False]
    assert frame["rank"].iloc[1] == 1


def test_other_linear_evaluations_are_not_compared(suite):
    write_seeds(suite, [80.0, 80.0], task="byol", protocol="linear-v2")
    write_seeds(suite, [60.0, 60.0])
    assert leaderboard(suite)["rank"].tolist() == [1, 1]


def test_evaluation_that_was_done_again_counts_as_it_was_done_last(suite):
    run = FakeRun(right=correctness(60.0), protocol="linear-v1", finished="2026-01-01T00:00:00+00:00")
    run.write(suite)
    again = FakeRun(right=correctness(70.0), protocol="linear-v2", finished="2026-01-02T00:00:00+00:00")
    again.write(suite)
    assert only_row(suite).top1_mean == 70.0


def test_missing_predictions_cost_the_rank_and_nothing_else(suite):
    runs = write_seeds(suite, [80.0, 80.0], task="byol")
    write_seeds(suite, [60.0, 60.0])
    next((runs[1].folder / "evaluations").glob("linear-*.npz")).unlink()
    rows = by_task(suite)
    assert np.isnan(rows["rank"].astype(float)["byol"])
    assert rows.note["byol"] == "not ranked: the predictions of seed 1 are missing or damaged"
    assert (rows.top1_mean["byol"], rows["rank"]["simclr"]) == (80.0, 1)


def test_predictions_for_other_labels_cost_the_rank(suite):
    write_seeds(suite, [80.0, 80.0], task="byol")
    write_seeds(suite, [60.0, 60.0], labels=(LABELS + 1) % CLASSES)
    assert leaderboard(suite)["rank"].isna().sum() == 1
    assert "test labels differ" in "".join(leaderboard(suite).note)


def test_failed_seed_is_counted_and_explained(suite):
    write_seeds(suite, [60.0, 61.0])
    FakeRun(seed=2, status="failed", reason="the loss was NaN; step 3\nTraceback").write(suite)
    row = only_row(suite)
    assert (row.status, row.seeds, row.top1_mean) == ("2 of 3 done, 1 failed", 2, 60.5)
    assert row.note == "failed: the loss was NaN, step 3 Traceback (seed 2)"


def test_failed_and_skipped_rows_come_last_with_their_reasons(suite):
    FakeRun(task="aaa", status="failed", reason="out of memory").write(suite)
    FakeRun(task="bbb", status="skipped", reason="needs patch tokens").write(suite)
    write_seeds(suite, [10.0, 10.0])
    frame = leaderboard(suite)
    assert frame["status"].tolist() == ["done", "failed", "skipped"]
    assert frame["note"].tolist() == ["", "failed: out of memory", "skipped: needs patch tokens"]
    assert frame["seeds"].tolist() == [2, 0, 0]


def test_long_reasons_are_shortened(suite):
    FakeRun(status="failed", reason="word " * 200).write(suite)
    note = only_row(suite).note
    assert len(note) <= 160
    assert note.endswith(" ...")


def test_failed_evaluation_is_not_a_score_of_zero(suite):
    FakeRun(error="the solver diverged").write(suite)
    row = only_row(suite)
    assert (row.status, row.note, row.seeds) == ("evaluation failed", "linear failed: the solver diverged", 0)
    assert np.isnan(row.top1_mean)
    assert row.knn_top1_mean == 55.0


def test_run_without_linear_evaluation_says_so(suite):
    FakeRun(right=None).write(suite)
    row = only_row(suite)
    assert (row.status, row.evaluation) == ("no linear evaluation", "")


def test_notes_of_evaluations_are_merged_over_seeds(suite):
    write_seeds(suite, [60.0, 61.0], notes=["penalty at the edge"])
    assert only_row(suite).note == "linear: penalty at the edge"


@pytest.mark.parametrize(
    ("knn", "spread", "is_collapsed"),
    [(14.0, 0.05, True), (15.0, 0.05, False), (14.0, 0.2, False), (None, 0.05, False)],
)
def test_seed_is_collapsed_where_knn_is_near_chance_and_spread_is_low(suite, knn, spread, is_collapsed):
    # ten classes: near chance is below 10 + 5% of 90 = 14.5
    write_seeds(suite, [60.0, 61.0])
    FakeRun(seed=2, right=correctness(10.0), knn=knn, spread=spread).write(suite)
    row = only_row(suite)
    assert ("1 of 3 seeds collapsed" in row.note) is is_collapsed
    assert row.seeds == 3


def test_newer_version_supersedes_and_the_note_counts_the_older(suite):
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    write_seeds(suite, [40.0, 41.0], version="a1", finished=old)
    write_seeds(suite, [60.0, 61.0], version="b2", finished=new)
    row = only_row(suite)
    assert (row.top1_mean, row.seeds, row.note) == (60.5, 2, "1 row of older versions left out")


def test_newest_is_told_across_time_zones(suite):
    write_seeds(suite, [40.0], version=1, finished="2026-01-02T01:00:00+09:00")  # 16:00 the day before, in UTC
    write_seeds(suite, [60.0], version=2, finished="2026-01-01T23:00:00+00:00")
    assert only_row(suite).top1_mean == 60.0


def test_failure_of_older_code_is_superseded(suite):
    FakeRun(version="a1", status="failed", reason="bug", finished="2026-01-01T00:00:00+00:00").write(suite)
    FakeRun(version="b2", finished="2026-01-02T00:00:00+00:00").write(suite)
    assert only_row(suite).status == "done"


def test_changed_default_of_newer_code_supersedes_too(suite):
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    write_seeds(suite, [40.0], version=1, options={"temperature": 0.5}, finished=old)
    write_seeds(suite, [60.0], version=2, options={"temperature": 0.1}, finished=new)
    assert only_row(suite).top1_mean == 60.0


def test_option_that_was_asked_for_is_not_superseded(suite):
    shown = {"options_shown": {"temperature": 0.2}}
    write_seeds(suite, [40.0], version=1, options={"temperature": 0.2}, facts=shown)
    write_seeds(suite, [60.0], version=2, finished="2026-01-02T00:00:00+00:00")
    assert len(leaderboard(suite)) == 2


def test_further_metrics_become_columns_at_the_end(suite):
    write_seeds(suite, [60.0, 61.0], extra={"robustness": {"blur": 3.0}, "linear": {"ece": 0.25}})
    frame = leaderboard(suite)
    assert list(frame.columns[-2:]) == ["linear_ece_mean", "robustness_blur_mean"]
    assert frame[["linear_ece_mean", "robustness_blur_mean"]].iloc[0].tolist() == [0.25, 3.0]


def test_same_records_give_the_same_frame_wherever_they_were_written_first(tmp_path):
    write_realistic(tmp_path / "one" / "suite")
    first = leaderboard(tmp_path / "one")
    assert first.equals(leaderboard(tmp_path / "one" / "suite"))
    assert len(first) == 14


def test_suite_is_named_after_its_folder_when_it_is_the_working_directory(suite, monkeypatch):
    write_seeds(suite, [60.0])
    monkeypatch.chdir(suite)
    assert only_row(Path())["suite"] == "tiny"


def test_folder_without_runs_is_a_clear_error(tmp_path):
    with pytest.raises(ClvrBenchError, match="no runs found"):
        leaderboard(tmp_path)


def test_tables_come_without_torch(suite):
    write_seeds(suite, [60.0, 61.0])
    code = (
        "import sys; from pathlib import Path\n"
        "import clvr_bench.merge, clvr_bench.verify, clvr_bench.tables\n"
        "from clvr_bench.standings import leaderboard\n"
        "leaderboard(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'timm', 'pydantic', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(suite)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
