import json
from pathlib import Path

import numpy as np
import pytest

from clvr_bench.errors import ClvrBenchError, DamagedFile
from clvr_bench.records import PretrainingRecord, Run, digest, load_runs, run_folders
from tests.clvr_bench.records_fake import LABELS, FakeRun, correctness


def rewritten(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_equal_identities_hash_alike_whatever_the_order_of_their_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(None)) == 12


def test_record_comes_back_as_it_was_saved(tmp_path):
    record = FakeRun().pretraining()
    record.save(tmp_path / "pretraining.json")
    assert PretrainingRecord.load(tmp_path / "pretraining.json") == record


def test_provenance_does_not_change_the_id():
    assert FakeRun(finished="2026-01-01").pretraining().id == FakeRun(finished="2027-01-01").pretraining().id


def test_seed_changes_the_id():
    assert FakeRun(seed=0).pretraining().id != FakeRun(seed=1).pretraining().id


def test_score_that_is_not_a_number_is_never_saved(tmp_path):
    record = PretrainingRecord({}, compute={"seconds": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.save(tmp_path / "pretraining.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"id": "0"}', '{"id": "0", "format": "one"}'])
def test_damaged_record_is_a_clear_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "pretraining.json"
    path.write_text(content)
    with pytest.raises(ClvrBenchError, match=r"pretraining\.json: not a readable record"):
        PretrainingRecord.load(path)


def test_record_of_a_newer_format_asks_for_an_upgrade(tmp_path):
    path = rewritten(FakeRun().write(tmp_path / "s").folder / "pretraining.json", format=99)
    with pytest.raises(ClvrBenchError, match=r"format 99 is newer than this version reads\. Upgrade"):
        PretrainingRecord.load(path)


def test_edited_identity_is_refused(tmp_path):
    path = rewritten(FakeRun().write(tmp_path / "s").folder / "pretraining.json", identity={"seed": 1})
    with pytest.raises(ClvrBenchError, match="it was edited"):
        PretrainingRecord.load(path)


def test_folder_name_is_readable_and_safe():
    record = FakeRun(task="../simclr", dataset="Tiny ImageNet/200").pretraining()
    assert record.folder_name == f"simclr--resnet18_small--Tiny-ImageNet-200--seed0--{record.id}"


def test_folder_name_of_a_task_without_encoder():
    assert "--none--" in FakeRun(encoder=None).pretraining().folder_name


def test_predictions_come_back_as_they_were_written(tmp_path):
    run = FakeRun(right=correctness(37.0)).write(tmp_path / "s")
    linear = next(record for record in run.evaluations if record.name == "linear")
    predictions, labels = run.predictions(linear)
    assert np.array_equal(labels, LABELS)
    assert predictions.shape == (len(LABELS), 5)
    assert (predictions[:, 0] == labels).mean() == 0.37


def test_predictions_that_were_not_recorded_are_refused(tmp_path):
    run = FakeRun().write(tmp_path / "s")
    knn = next(record for record in run.evaluations if record.name == "knn")
    with pytest.raises(ClvrBenchError, match="missing, or not the file that was recorded"):
        run.predictions(knn)


def test_changed_predictions_are_refused(tmp_path):
    run = FakeRun().write(tmp_path / "s")
    linear = next(record for record in run.evaluations if record.name == "linear")
    path = run.folder / "evaluations" / f"{linear.file_stem}.npz"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ClvrBenchError, match="not the file that was recorded"):
        run.predictions(linear)


def test_suite_is_known_from_within_its_folder(tmp_path, monkeypatch):
    FakeRun().write(tmp_path / "s")
    monkeypatch.chdir(tmp_path / "s")
    assert [run.suite for run in load_runs(Path(), "s")] == ["s"]


def test_runs_are_found_in_all_suites_or_one(tmp_path):
    for name in ("b", "a"):
        FakeRun().write(tmp_path / name)
    assert [run.suite for run in load_runs(tmp_path)] == ["a", "b"]
    assert [run.suite for run in load_runs(tmp_path, "b")] == ["b"]
    assert [run.suite for run in load_runs(tmp_path / "a")] == ["a"]


def test_unfinished_run_is_not_listed(tmp_path):
    done = FakeRun().write(tmp_path / "s")
    (done.folder.parent / "unfinished" / "evaluations").mkdir(parents=True)
    assert list(run_folders(tmp_path)) == [done.folder]


def test_evaluations_are_sorted_by_name(tmp_path):
    run = FakeRun(extra={"another": {"score": 1.0}}).write(tmp_path / "s")
    assert [record.name for record in Run.load(run.folder).evaluations] == ["another", "health", "knn", "linear"]


def test_missing_runs_say_what_to_do(tmp_path):
    with pytest.raises(ClvrBenchError, match=r"suite 'x' in .*: no runs found\. Run a suite first: clvr-bench run"):
        load_runs(tmp_path, "x")


def test_damaged_records_are_named_and_left_out_where_somebody_is_told(tmp_path):
    whole, broken, half = (FakeRun(seed=seed).write(tmp_path / "s") for seed in range(3))
    (broken.folder / "pretraining.json").write_text("{}")
    (knn,) = half.folder.glob("evaluations/knn-*.json")
    knn.write_bytes(knn.read_bytes()[:100])
    with pytest.raises(DamagedFile):
        load_runs(tmp_path)
    told = []
    runs = load_runs(tmp_path, on_damaged=told.append)
    assert {run.folder: len(run.evaluations) for run in runs} == {whole.folder: 3, half.folder: 2}
    assert len(told) == 2
    assert all(any(str(path) in line for line in told) for path in (broken.folder / "pretraining.json", knn))


def test_a_newer_record_is_not_taken_for_a_damaged_one(tmp_path):
    run = FakeRun().write(tmp_path / "s")
    path = run.folder / "pretraining.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ClvrBenchError, match="newer than this version reads") as caught:
        load_runs(tmp_path, on_damaged=print)
    assert not isinstance(caught.value, DamagedFile)
