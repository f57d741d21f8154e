from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import clvr_bench
from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import lock
from clvr_bench.records import EvaluationRecord, Run, load_runs
from tests.conftest import CONTRACT_PLUGINS, Answer

Cli = Callable[..., Answer]

PLUGIN = '''"""A data set of three classes whose content a file decides, and an encoder that takes one size alone."""

from pathlib import Path

import torch
from torch import nn

from clvr_bench import Dataset, Encoder, ResidentSplit, hookimpl


@hookimpl
def register_datasets(register):
    register("spots", Spots, summary="Three colours.", source="none", version=1)


@hookimpl
def register_encoders(register):
    register("one_size", OneSize, summary="Takes 16 px alone.", source="none", version=1)


class Spots(Dataset):
    title = "Spots"
    class_names = ("red", "green", "blue")

    def __init__(self, root, *, image_size: int = 20):
        self.image_size = image_size
        self._seed = int(Path("spots.txt").read_text()) if Path("spots.txt").is_file() else 0

    def _split(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        pixels = torch.randint(0, 80, (count, 3, self.image_size, self.image_size), generator=generator)
        pixels[torch.arange(count), labels] += 60
        return ResidentSplit(pixels.to(torch.uint8), labels)

    @property
    def train(self):
        return self._split(60, self._seed)

    @property
    def test(self):
        return self._split(30, 1000 + self._seed)


class OneSize(Encoder):
    def __init__(self, *, width: int = 4):
        super().__init__(mean=[0.5] * 3, std=[0.25] * 3)
        self.network = nn.Linear(3 * 16 * 16, width)

    def encode(self, images):
        return self.network(images.flatten(1))
'''


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("spots") / "spot_plugins", PLUGIN)


def written(folder: Path, plugin: str) -> Path:
    folder.mkdir()
    (folder / "spots.py").write_text(plugin)
    return folder


@pytest.fixture
def clvr(cli: Cli, folder: Path) -> Cli:
    """Run ``clvr-bench`` with the contract's plugins, and with spots."""

    def run(*arguments: object) -> Answer:
        return cli("--plugins-dir", CONTRACT_PLUGINS, "--plugins-dir", folder, *arguments)

    return run


@pytest.fixture
def pretrain(clvr: Cli) -> Callable[..., Run]:
    """Pretrain and evaluate one tiny run on spots, and return it."""

    def run(*flags: object, encoder: str = "tiny", task: str = "simclr") -> Run:
        fixed = ["--encoder", encoder, "--dataset", "spots", "--batch-size", 20, "--epochs", 1, "--device", "cpu"]
        answer = clvr("run", "--pretext-task", task, *fixed, *flags)
        assert answer.code == 0, answer.out + answer.err
        return newest()

    return run


def newest() -> Run:
    return max(load_runs(Path("results")), key=lambda run: run.pretraining.provenance["finished"])


def of(run: Run, name: str) -> EvaluationRecord:
    (record,) = (record for record in Run.load(run.folder).evaluations if record.name == name)
    return record


def table(suite: str = "custom") -> pd.DataFrame:
    return pd.read_csv(f"results/{suite}/leaderboard.csv", keep_default_na=False)


def test_evaluations_that_are_missing_are_added_as_a_sweep_would_have_made_them(clvr: Cli, pretrain) -> None:
    run = pretrain()
    pretraining = (run.folder / "pretraining.json").read_bytes()
    made_by_sweep = {name: of(run, name) for name in ("linear", "knn", "health")}
    shutil.rmtree(run.folder / "evaluations")
    answer = clvr("evaluate", run.folder, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert (run.folder / "pretraining.json").read_bytes() == pretraining
    for name, record in made_by_sweep.items():
        again = of(run, name)
        assert (again.id, again.metrics, again.predictions) == (record.id, record.metrics, record.predictions)
    assert "Written: results/custom/leaderboard.csv" in answer.out
    assert "nothing to do" in clvr("evaluate", "simclr").out


def test_own_data_keep_their_identity_and_other_data_enter_it(clvr: Cli, pretrain) -> None:
    run = pretrain("--set", "spots.image_size=16")
    assert clvr("evaluate", "simclr", "--evaluation", "knn", "--set", "spots.image_size=16").code == 0
    assert "dataset" not in of(run, "knn").identity
    answer = clvr("evaluate", "simclr", "--evaluation", "knn", "--dataset", "spots")
    assert answer.code == 0, answer.err
    (record,) = (r for r in Run.load(run.folder).evaluations if "dataset" in r.identity)
    target = record.identity["dataset"]
    assert (target["name"], target["options"]) == ("spots", {"image_size": 20})
    assert target["fingerprint"] != run.pretraining.identity["dataset"]["fingerprint"]
    assert record.details["transfer"] == {
        "dataset": "Spots",
        "num_classes": 3,
        "class_names": ["red", "green", "blue"],
        "options_shown": {"image_size": 20},
    }
    assert table()["dataset"].tolist() == ["Spots", "Spots → Spots"]
    assert "evaluated_on.image_size=20" in table()["options"][1]
    assert clvr("verify").out.strip().endswith("0 problems.")


def test_transfer_to_other_classes_and_another_size_is_scored_on_those(clvr: Cli, pretrain) -> None:
    run = pretrain()
    small = ["--set", "shapes.train_size=100", "--set", "shapes.test_size=40", "--set", "shapes.image_size=16"]
    assert clvr("evaluate", "simclr", "--dataset", "shapes", *small).code == 0
    frame = table().set_index("dataset")
    assert frame.index.tolist() == ["Spots", "Spots → shapes"]
    (record,) = (r for r in Run.load(run.folder).evaluations if r.name == "linear" and "dataset" in r.identity)
    predictions, labels = run.predictions(record)
    assert predictions.shape == (40, 5)
    assert set(labels) == set(range(10))
    assert frame.loc["Spots", "top5_mean"] == ""  # of three classes
    assert frame.loc["Spots → shapes", "top5_mean"] != ""


def test_own_data_that_changed_are_a_transfer_and_said_to_be(clvr: Cli, pretrain) -> None:
    pretrain()
    before = Path("results/custom/leaderboard.csv").read_text()
    Path("spots.txt").write_text("7")
    answer = clvr("evaluate", "simclr")
    assert "a transfer, for these data are not those of the pretraining (fingerprint" in answer.out
    assert table()["dataset"].tolist() == ["Spots", "Spots → Spots"]
    assert "the data changed since pretraining: fingerprint" in table()["note"][1]
    assert before.splitlines()[1] in Path("results/custom/leaderboard.csv").read_text().splitlines()


def test_several_variants_of_an_evaluation_at_once(clvr: Cli, pretrain) -> None:
    pretrain()
    fractions = ["--evaluation", "finetune", "--set", "finetune.fraction=[0.5,1.0]", "--set", "finetune.epochs=1"]
    answer = clvr("evaluate", "simclr", *fractions)
    assert answer.code == 0, answer.err
    columns = {"finetune[fraction=0.5,epochs=1]_top1_mean", "finetune[epochs=1]_top1_mean"}
    assert columns <= set(table().columns)
    assert "finetune[fraction=0.5,epochs=1]: top1" in clvr("show", "simclr").out


def test_a_name_that_means_several_runs_needs_all(clvr: Cli, pretrain) -> None:
    pretrain("--seeds", "0,1")
    refused = clvr("evaluate", "simclr", "--evaluation", "knn")
    assert refused.code == 2
    assert "2 runs in results match" in refused.err
    assert "[2/2]" in clvr("evaluate", "simclr", "--all", "--evaluation", "knn").out
    assert "[2/2]" in clvr("evaluate", "--all", "--evaluation", "knn").out
    assert "[2/2]" in clvr("evaluate", "seed0", "seed1", "simclr", "--evaluation", "knn").out


def test_a_failing_evaluation_is_a_record_and_exit_code_1(clvr: Cli, pretrain) -> None:
    run = pretrain()
    answer = clvr("evaluate", "simclr", "--evaluation", "raises_in_evaluation", "--evaluation", "knn")
    assert answer.code == 1
    assert "raised RuntimeError: no such split" in of(run, "raises_in_evaluation").error
    assert f"failed: {run.folder.name}: raises_in_evaluation: " in answer.out


def test_a_damaged_evaluation_is_set_aside_and_made_anew(clvr: Cli, pretrain) -> None:
    run = pretrain()
    before = of(run, "knn")
    path = run.folder / "evaluations" / f"{before.file_stem}.json"
    path.write_text("{")
    assert "not a readable record" in clvr("leaderboard").err
    answer = clvr("evaluate", "simclr")
    assert answer.code == 0, answer.err
    assert f"{path}: not a readable record" in answer.err
    assert of(run, "knn").metrics == before.metrics
    assert path.with_name(f"{path.name}.damaged").read_text() == "{"


def lose_weights(run: Run) -> None:
    (run.folder / "weights.safetensors").unlink()


def damage_weights(run: Run) -> None:
    path = run.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")


def fail(run: Run) -> None:
    replace(run.pretraining, status="failed", reason="NaN").save(run.folder / "pretraining.json")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_weights, "no weights here. They are not kept in version control; run the suite again."),
        (damage_weights, "not the weights that were written"),
        (fail, "this run is failed (NaN), so it has no weights."),
    ],
)
def test_a_run_without_its_weights_is_refused_in_one_line(clvr: Cli, pretrain, spoil, message: str) -> None:
    run = pretrain()
    spoil(run)
    for command in (["evaluate", "simclr", "--evaluation", "few_label"], ["features", "simclr", "--output", "x.npz"]):
        answer = clvr(*command)
        assert answer.code == 2
        assert message in answer.err
        assert len(answer.err.splitlines()) == 1
    assert not Path("x.npz").exists()


def test_of_several_runs_one_without_weights_is_left_out(clvr: Cli, pretrain) -> None:
    pretrain("--seeds", "0,1")
    first, second = load_runs(Path("results"))
    lose_weights(first)
    answer = clvr("evaluate", "simclr", "--all", "--evaluation", "few_label")
    assert answer.code == 1
    assert "left out: " in answer.out
    assert f"failed: {first.folder / 'weights.safetensors'}: no weights here" in answer.out
    assert of(second, "few_label").metrics
    assert len(Run.load(first.folder).evaluations) == 3


def test_of_several_runs_those_that_never_had_weights_are_no_failure(clvr: Cli, pretrain) -> None:
    pretrain("--seeds", "0,1,2")
    first, second, third = load_runs(Path("results"))
    fail(first)
    (second.folder / "pretraining.json").write_text("{")
    answer = clvr("evaluate", "simclr", "--all", "--evaluation", "few_label")
    assert answer.code == 0, answer.err
    assert "left out: it is failed, so it has no weights" in answer.out
    assert f"{second.folder / 'pretraining.json'}: not a readable record" in answer.err
    assert of(third, "few_label").metrics


def test_an_encoder_that_cannot_take_the_size_is_refused_in_one_line(clvr: Cli, pretrain) -> None:
    run = pretrain("--set", "spots.image_size=16", encoder="one_size", task="random_init")
    answer = clvr("evaluate", "random_init", "--dataset", "spots")
    assert answer.code == 2
    assert "'one_size' cannot take the 20 px pictures of Spots (RuntimeError: " in answer.err
    assert "Choose another image size, such as --set spots.image_size=16." in answer.err
    assert len(answer.err.splitlines()) == 1
    assert len(Run.load(run.folder).evaluations) == 3


def test_code_of_another_version_is_refused_in_one_line(cli: Cli, pretrain, tmp_path: Path) -> None:
    pretrain("--set", "spots.image_size=16", encoder="one_size", task="random_init")
    edited = written(tmp_path / "edited_spots", PLUGIN + "\n# edited\n")
    answer = cli("--plugins-dir", edited, "evaluate", "random_init", "--evaluation", "few_label")
    assert answer.code == 2
    assert "this run was made by encoder 'one_size' version 1+" in answer.err


def test_a_run_that_another_process_is_at_work_on_is_refused(clvr: Cli, pretrain) -> None:
    run = pretrain()
    with lock(run.folder / ".lock"):
        answer = clvr("evaluate", "simclr", "--evaluation", "few_label")
    assert answer.code == 2
    assert "another process is at work on this run" in answer.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "evaluate: name a run, or --all, or --weights FILE."),
        (["nothing"], "results: no runs found"),
        (["x", "--weights", "w.pt"], "RUN and --weights exclude each other"),
        (["--all", "--weights", "w.pt"], "RUN and --weights exclude each other"),
        (["--weights", "w.pt", "--dataset", "spots"], "evaluate --weights w.pt: name --encoder too, such as"),
        (["--weights", "w.pt", "--encoder", "tiny"], "evaluate --weights w.pt: name --dataset too, such as"),
        (["--weights", "w.pt", "--encoder", "tiny", "--dataset", "spots"], "there is no file 'w.pt'"),
        (["x", "--encoder", "tiny"], "evaluate: --encoder needs --weights FILE"),
        (["x", "--partial"], "evaluate: --partial needs --weights FILE"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(clvr: Cli, flags: list[object], message: str) -> None:
    answer = clvr("evaluate", *flags)
    assert answer.code == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not Path("results").exists() or not list(Path("results").glob("*/runs/*"))


def test_wrong_names_are_refused_before_anything_is_evaluated(clvr: Cli, pretrain) -> None:
    pretrain()
    for flags, message in (
        (["zzz"], "evaluate zzz: 0 runs in results match (none)."),
        (["simclr", "--evaluation", "linaer"], "unknown evaluation 'linaer'. Did you mean 'linear'?"),
        (["simclr", "--dataset", "spoots"], "unknown dataset 'spoots'. Did you mean 'spots'?"),
        (["simclr", "--set", "finetune.fraction=0.1"], "--set finetune.fraction=0.1: unknown name 'finetune'"),
        (["simclr", "--set", "knn.k=1"], "unknown option 'k'"),
    ):
        answer = clvr("evaluate", *flags)
        assert (answer.code, len(answer.err.splitlines())) == (2, 1)
        assert message in answer.err


def test_ready_made_weights_are_a_suite_of_one_row_that_says_where_they_are_from(clvr: Cli, pretrain) -> None:
    run = pretrain()
    shutil.copy(run.folder / "weights.safetensors", "mine.safetensors")
    flags = ["--encoder", "tiny", "--dataset", "spots", "--labels", "none", "--name", "my SimCLR", "--device", "cpu"]
    answer = clvr("evaluate", "--weights", "mine.safetensors", *flags, "--evaluation", "linear")
    assert answer.code == 0, answer.out + answer.err
    assert "mine.safetensors as tiny: Format clvr_bench" in answer.out
    assert "0 missing, 0 unexpected" in answer.out
    (row,) = table("evaluated").to_dict("records")
    assert (row["pretext_task"], row["encoder"], row["dataset"], row["status"]) == ("weights", "tiny", "Spots", "done")
    assert (row["uses_labels"], row["options_source"]) == ("no", "my SimCLR (mine.safetensors)")
    assert row["top1_mean"] == round(of(run, "linear").metrics["top1"], 2)
    assert row["options"].startswith("file=mine.safetensors@")


def test_ready_made_weights_are_transferred_without_their_file(clvr: Cli, pretrain) -> None:
    run = pretrain()
    weights = shutil.copy(run.folder / "weights.safetensors", "mine.safetensors")
    flags = ["--encoder", "tiny", "--dataset", "spots", "--suite", "zoo", "--evaluation", "knn"]
    assert clvr("evaluate", "--weights", weights, *flags).code == 0
    Path(weights).unlink()
    other = ["--dataset", "spots", "--set", "spots.image_size=16", "--evaluation", "knn"]
    assert clvr("evaluate", "weights", *other).code == 0
    assert clvr("evaluate", "simclr", *other).code == 0
    scores = [
        record.metrics
        for found in load_runs(Path("results"))
        for record in found.evaluations
        if "dataset" in record.identity
    ]
    assert len(scores) == 2
    assert scores[0] == scores[1]


def test_weights_that_do_not_fit_are_refused_and_leave_no_run(clvr: Cli) -> None:
    torch.save({"other.weight": torch.zeros(2)}, "other.pt")
    answer = clvr("evaluate", "--weights", "other.pt", "--encoder", "tiny", "--dataset", "spots")
    assert answer.code == 2
    assert "other.pt: nothing in it fits the encoder" in answer.err
    assert not list(Path("results").glob("*/runs/*"))


def test_python_evaluates_a_run_and_returns_its_leaderboard(pretrain, folder: Path) -> None:
    run = pretrain()
    frame = clvr_bench.evaluate(
        run.folder,
        evaluations=["knn", {"name": "few_label", "draws": [1, 2]}],
        dataset={"name": "spots", "image_size": 16},
        device="cpu",
        plugins_dirs=[CONTRACT_PLUGINS, folder],
    )
    assert frame["dataset"].tolist() == ["Spots", "Spots → Spots"]
    assert {"few_label[draws=1]_top1_10pct_mean", "few_label[draws=2]_top1_10pct_mean"} <= set(frame.columns)
    assert table()["dataset"].tolist() == frame["dataset"].tolist()
    own = clvr_bench.evaluate(run.folder, evaluations=["few_label"], plugins_dirs=[CONTRACT_PLUGINS, folder])
    assert own["few_label_top1_10pct_mean"].notna().tolist() == [True, False]
    with pytest.raises(ClvrBenchError, match="no run here"):
        clvr_bench.evaluate("nowhere")


def test_features_are_those_that_the_linear_evaluation_saw(clvr: Cli, pretrain, monkeypatch) -> None:
    run = pretrain()
    seen = seen_by_linear(clvr, monkeypatch)
    answer = clvr("features", "simclr", "--output", "deep/x.npz", "--device", "cpu")
    assert answer.code == 0, answer.err
    with np.load("deep/x.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {*seen, "class_names", "provenance"}
        for name, expected in seen.items():
            assert arrays[name].dtype == (np.float32 if name.endswith("features") else np.int64)
            np.testing.assert_array_equal(arrays[name], expected)
        assert arrays["class_names"].tolist() == ["red", "green", "blue"]
        about = json.loads(str(arrays["provenance"]))
    assert about["pretraining"] == run.pretraining.id
    assert about["dataset"] == run.pretraining.identity["dataset"]
    assert [path.name for path in Path("deep").iterdir()] == ["x.npz"]


def seen_by_linear(clvr: Cli, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Evaluate the run linearly once more, on a fresh record, and return what the evaluation was given."""
    from clvr_plugins.evaluations.linear import LinearProbe

    seen, judge = {}, LinearProbe.__call__

    def spy(self: LinearProbe, frozen: clvr_bench.Frozen) -> clvr_bench.Scores:
        for split in ("train", "val", "test"):
            seen[f"{split}_features"] = frozen.features(split).numpy().copy()
            seen[f"{split}_labels"] = frozen.labels(split).numpy().copy()
        return judge(self, frozen)

    for path in Path("results").glob("custom/runs/*/evaluations/linear-*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(LinearProbe, "__call__", spy)
        assert clvr("evaluate", "simclr", "--evaluation", "linear", "--device", "cpu").code == 0
    return seen


def test_features_of_other_data_and_of_some_splits(clvr: Cli, pretrain) -> None:
    pretrain()
    flags = ["--dataset", "spots", "--set", "spots.image_size=16", "--split", "test,train"]
    assert clvr("features", "simclr", "--output", "x.npz", *flags).code == 0
    with np.load("x.npz") as arrays:
        assert {name for name in arrays if name.endswith("features")} == {"train_features", "test_features"}
        assert json.loads(str(arrays["provenance"]))["image_size"] == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "x.txt"], "--output x.txt: features are a NumPy archive. Name a file that ends in .npz."),
        (["--output", "x.npz", "--split", "train,tst"], "--split train,tst: expected some of train,val,test"),
        (["--output", "x.npz", "--split", "test,test"], "--split test,test: expected some of train,val,test"),
        (["--output", "file/x.npz"], "file/x.npz: cannot be written (File exists)"),
        (["--output", "x.npz"], "results: no runs found"),
    ],
)
def test_features_that_cannot_be_written_are_refused(clvr: Cli, flags: list[str], message: str) -> None:
    Path("file").write_text("in the way")
    answer = clvr("features", "simclr", *flags)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert message in answer.err
    assert not list(Path().glob("*.npz"))
    assert not list(Path().glob(".*.partial"))


def test_a_disk_that_fills_up_leaves_no_part_of_a_features_file(clvr: Cli, pretrain, monkeypatch) -> None:
    pretrain()
    Path("x.npz").write_bytes(b"older")

    def fill_up(file, **arrays: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fill_up)
    answer = clvr("features", "simclr", "--output", "x.npz")
    assert answer.code == 2
    assert "x.npz: cannot be written (No space left on device)" in answer.err
    assert Path("x.npz").read_bytes() == b"older"
    assert not list(Path().glob(".*.partial"))
