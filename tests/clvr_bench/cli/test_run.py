from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import clvr_bench
from clvr_bench.cli.app import parse_duration
from clvr_bench.cli.plugin_flags import PluginFlags
from clvr_bench.errors import ClvrBenchError
from clvr_bench.records import Run, load_runs
from tests.conftest import CONTRACT_PLUGINS, TINY, Answer

Cli = Callable[..., Answer]
RECORDS = "results/custom"


def run_of(task: str, results: str = "results") -> Run:
    (run,) = (run for run in load_runs(Path(results)) if run.pretraining.identity["pretext_task"]["name"] == task)
    return run


def weights_of(task: str, results: str = "results") -> bytes:
    return (run_of(task, results).folder / "weights.safetensors").read_bytes()


def test_a_run_ends_in_a_leaderboard_on_screen_and_on_disk(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "simclr", "--pretext-task", "raw_pixels", "--epochs", 2)
    assert answer.code == 0, answer.err
    assert "Written: results/custom/leaderboard.csv" in answer.out
    frame = pd.read_csv(f"{RECORDS}/leaderboard.csv")
    assert sorted(frame["pretext_task"]) == ["raw_pixels", "simclr"]
    assert frame["status"].tolist() == ["done", "done"]
    assert frame.set_index("pretext_task").loc["simclr", "epochs"] == 2


@pytest.mark.parametrize("flags", [[], ["--compile"]])
def test_operations_are_compiled_where_that_is_asked_for(
    tiny_run: Cli, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function: asked.append(function) or function)
    assert tiny_run("--pretext-task", "simclr", "--epochs", 1, *flags).code == 0
    assert run_of("simclr").pretraining.provenance["compiled_operations"] is bool(flags)
    compiled = {getattr(function, "__name__", "") for function in asked}
    assert ({"_crop_resize", "_jitter_masked"} <= compiled) is bool(flags)


def test_compiling_where_torch_cannot_is_refused(tiny_run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object) -> object:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", broken)
    answer = tiny_run("--pretext-task", "simclr", "--epochs", 1, "--compile")
    assert answer.code == 2
    assert answer.err.startswith("clvr-bench: torch.compile does not work here (no compiler).")
    assert not list(Path(RECORDS).glob("runs/*"))


def test_progress_is_shown_throughout(tiny_run: Cli) -> None:
    out = tiny_run("--pretext-task", "simclr", "--epochs", 2).out
    assert "[1/1] simclr / tiny / simclr / shapes" in out
    assert "epoch 1, loss" in out
    assert "linear top-1" in out


def test_finished_work_is_not_repeated(tiny_run: Cli) -> None:
    tiny_run("--pretext-task", "simclr", "--epochs", 1)
    written = run_of("simclr").folder / "pretraining.json"
    before = written.stat().st_mtime_ns
    answer = tiny_run("--pretext-task", "simclr", "--epochs", 1)
    assert answer.code == 0
    assert "epoch 1" not in answer.out
    assert written.stat().st_mtime_ns == before


def test_finished_work_says_what_its_suite_says_of_its_options_by_now(cli: Cli, tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"

    def rows(source: str) -> pd.DataFrame:
        task = f'[[pretext_tasks]]\nname = "simclr"\ntemperature = 0.3\noptions_source = "{source}"\n'
        budget = "budget = { epochs = 1, batch_size = 20 }"
        suite.write_text(f'name = "mine"\nencoders = ["tiny"]\ndatasets = ["shapes"]\n{budget}\n{task}')
        sizes = ("train_size=80", "test_size=40", "image_size=16")
        flags = [flag for size in sizes for flag in ("--set", f"shapes.{size}")]
        answer = cli("--plugins-dir", CONTRACT_PLUGINS, "run", suite, *flags)
        assert answer.code == 0, answer.err
        return clvr_bench.leaderboard("results/mine")

    before, after = rows("a guess"), rows("tuned on val (3 trials)")
    assert after["options_source"].tolist() == ["tuned on val (3 trials)"]
    assert after.drop(columns="options_source").equals(before.drop(columns="options_source"))


def test_a_missing_evaluation_is_made_up_without_pretraining_again(tiny_run: Cli) -> None:
    tiny_run("--pretext-task", "simclr", "--epochs", 1)
    run = run_of("simclr")
    (knn,) = run.folder.glob("evaluations/knn-*.json")
    scores = json.loads(knn.read_text())["metrics"]
    knn.unlink()
    before = (run.folder / "pretraining.json").stat().st_mtime_ns
    assert "(evaluating only)" in tiny_run("--pretext-task", "simclr", "--epochs", 1).out
    assert json.loads(knn.read_text())["metrics"] == scores
    assert (run.folder / "pretraining.json").stat().st_mtime_ns == before


def test_the_same_command_gives_the_same_numbers(tiny_run: Cli) -> None:
    for results in ("one", "two"):
        tiny_run("--pretext-task", "rotation", "--epochs", 2, "--results", results)
    first, second = (run_of("rotation", results) for results in ("one", "two"))
    assert [e.metrics for e in first.evaluations] == [e.metrics for e in second.evaluations]
    assert weights_of("rotation", "one") == weights_of("rotation", "two")


def test_a_failed_combination_is_a_row_and_the_others_go_on(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "raises_in_forward", "--pretext-task", "rotation", "--epochs", 1)
    assert answer.code == 1
    assert "2 combinations: 1 failed, 1 done." in answer.out
    frame = pd.read_csv(f"{RECORDS}/leaderboard.csv").set_index("pretext_task")
    assert frame.loc["raises_in_forward", "status"] == "failed"
    assert "forward raised KeyError" in frame.loc["raises_in_forward", "note"]
    assert frame.loc["rotation", "status"] == "done"
    assert "Traceback" in (run_of("raises_in_forward").folder / "error.txt").read_text()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("raises_in_constructor", "its constructor raised TypeError: no such layer"),
        ("loses_numbers", "the loss became NaN or infinite in epoch 1"),
        ("loses_gradient", "the loss must be one number with a gradient"),
        ("raises_in_representation", "its representation raised IndexError: no layer"),
        ("raises_in_groups", "parameter_groups raised KeyError: 'params'"),
    ],
)
def test_a_faulty_plugin_fails_its_own_run(tiny_run: Cli, task: str, message: str) -> None:
    answer = tiny_run("--pretext-task", task, "--epochs", 1)
    assert answer.code == 1
    assert message in answer.out.replace("\n", " ")
    assert "Traceback" not in answer.out + answer.err


def test_a_failed_run_keeps_the_history_of_the_epochs_before(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "late_failure"
    folder.mkdir()
    (folder / "late.py").write_text(
        "from clvr_bench import PretextTask, StepOutput, hookimpl\n\n"
        "@hookimpl\ndef register_pretext_tasks(register):\n"
        "    register('late', Late, summary='Fails late.', source='none', version=1)\n\n"
        "class Late(PretextTask):\n    views = 1\n\n    def __init__(self, encoder, data):\n"
        "        super().__init__()\n        self.encoder = encoder\n\n    def forward(self, batch):\n"
        "        factor = float('nan') if batch.progress.epoch else 1.0\n"
        "        return StepOutput(self.encoder(batch.views[0]).mean() * factor)\n"
    )
    flags = ["--plugins-dir", CONTRACT_PLUGINS, "--plugins-dir", folder, "run", *TINY]
    assert cli(*flags, "--pretext-task", "late", "--epochs", 3).code == 1
    record = run_of("late").pretraining
    assert [entry["epoch"] for entry in record.history] == [1]
    assert "NaN or infinite in epoch 2" in record.reason


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [("raises_in_evaluation", "raised RuntimeError: no such split"), ("not_finite", "'top1' is not finite")],
)
def test_a_faulty_evaluation_spares_the_others(cli: Cli, tmp_path: Path, evaluation: str, message: str) -> None:
    suite = tmp_path / "faulty.toml"
    suite.write_text(
        'name = "faulty"\nencoders = ["tiny"]\npretext_tasks = ["random_init"]\n'
        'datasets = [{ name = "shapes", train_size = 60, test_size = 20, image_size = 16 }]\n'
        f'evaluations = ["{evaluation}", "knn"]\n[budget]\nepochs = 1\nbatch_size = 20\n'
    )
    answer = cli("--plugins-dir", CONTRACT_PLUGINS, "run", suite)
    assert answer.code == 1
    assert message in answer.out
    records = {record.name: record for record in run_of("random_init").evaluations}
    assert records[evaluation].error
    assert records["knn"].metrics["top1"] > 0
    again = cli("--plugins-dir", CONTRACT_PLUGINS, "run", suite)
    assert again.code == 1
    assert "(evaluating only)" in again.out


def test_a_combination_that_makes_no_sense_is_a_skipped_row(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "picky", "--pretext-task", "raw_pixels")
    assert answer.code == 0
    frame = pd.read_csv(f"{RECORDS}/leaderboard.csv").set_index("pretext_task")
    assert frame.loc["picky", "status"] == "skipped"
    assert "tiny has no patch tokens" in frame.loc["picky", "note"]


def test_a_mended_plugin_file_replaces_its_failed_row(cli: Cli, tmp_path: Path) -> None:
    source = (CONTRACT_PLUGINS / "tiny.py").read_text() + (
        "\n\nfrom clvr_bench import PretextTask, StepOutput\n\n@hookimpl\ndef register_pretext_tasks(register):\n"
        "    register('mine', Mine, summary='Mine.', source='none', version=1)\n\n"
        "class Mine(PretextTask):\n    def __init__(self, encoder, data):\n        super().__init__()\n"
        "        self.encoder = encoder\n\n    def forward(self, batch):\n"
        "        return StepOutput(self.encoder(batch.views[0]).mean() * FACTOR)\n\nFACTOR = float('nan')\n"
    )
    for name, factor, status in (("broken_state", "float('nan')", "failed"), ("mended_state", "1.0", "done")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.py").write_text(source.replace("float('nan')", factor))
        cli("--plugins-dir", folder, "run", *TINY, "--pretext-task", "mine", "--epochs", 1)
        assert pd.read_csv(f"{RECORDS}/leaderboard.csv")["status"].tolist() == [status]


def test_the_time_limit_stops_at_a_checkpoint(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "simclr", "--epochs", 100000, "--time-limit", "1s")
    assert answer.code == 3
    assert "the same command goes on from the last checkpoint" in answer.out
    assert list(Path(RECORDS).glob("runs/*/checkpoint.pt"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pretext-task", "simlcr"], "unknown pretext task 'simlcr'. Did you mean 'simclr'?"),
        (["--pretext-task", "simclr", "--encoder", "resnet19"], "unknown encoder 'resnet19'. Did you mean 'resnet18'?"),
        (["--pretext-task", "simclr", "--augmentation", "simcrl"], "unknown augmentation 'simcrl'"),
        (["--pretext-task", "simclr", "--set", "simclr.temprature=1"], "unknown option 'temprature'"),
        (["--pretext-task", "simclr", "--set", "simclr.temperature=hot"], "temperature must be float, got 'hot'"),
        (
            ["--pretext-task", "simclr", "--set", "simclr.temperature=-1"],
            "simclr: temperature must be positive, got -1",
        ),
        (["--pretext-task", "refuses_its_options"], "refuses_its_options: temperature must be positive"),
        (["--pretext-task", "simclr", "--batch-size", 5000], "batch_size 5000 is larger than the 110 training samples"),
        (
            ["--pretext-task", "simclr", "--batch-size", 1],
            "budget.batch_size: input should be greater than or equal to 2",
        ),
        (["--pretext-task", "simclr", "--epochs", "ten"], "Invalid value for '--epochs'"),
        (["--no-such-option"], "No such option: --no-such-option"),
        (["--pretext-task", "simclr", "--epochs", 0], "budget.epochs: input should be greater than or equal to 1"),
        (["--pretext-task", "simclr", "--set", "simclr.recipe.optimizer=sdg"], "unknown optimizer 'sdg'. Did you mean"),
        (["--pretext-task", "simclr", "--augmentation", "none+fixed_pair"], "'fixed_pair' cannot stand there"),
        (
            ["--pretext-task", "multi_view", "--augmentation", "global_local+none"],
            "'global_local' cannot stand in a chain",
        ),
        (
            ["--pretext-task", "simclr", "--encoder", "vgg11_bn", "--set", "vgg11_bn.norm=layer"],
            "cannot replace all of its",
        ),
        (["--pretext-task", "simclr", "--seeds", "a,b"], "--seeds a,b: expected whole numbers"),
        (["--pretext-task", "simclr", "--time-limit", "soon"], "--time-limit soon: expected a duration"),
        (["--pretext-task", "simclr", "--device", "mps"], "--device mps: not available here. Available: auto, cpu"),
        ([], "a TOML file, or at least one --pretext-task"),
        (["nosuch"], "unknown suite 'nosuch'"),
        (["--pretext-task", "simclr", "--encoder", "inception_v3"], "cannot take 16 px pictures"),
        (
            ["--pretext-task", "simclr", "--dataset", "folder"],
            "it needs a folder of pictures. Name it with --data-root",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(tiny_run: Cli, flags: list[object], message: str) -> None:
    answer = tiny_run(*flags)
    assert answer.code == 2, answer.out + answer.err
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not list(Path().glob("results/*/runs/*"))


def test_a_results_folder_that_cannot_be_written_is_refused(tiny_run: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = tiny_run("--pretext-task", "simclr", "--results", tmp_path / "file")
    assert answer.code == 2
    assert "--results: cannot write to" in answer.err


def test_a_broken_plugin_is_a_warning_to_who_does_not_ask_for_it(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "half_broken"
    folder.mkdir()
    (folder / "broken.py").write_text("import nothing_like_this\n")
    flags = ["--plugins-dir", CONTRACT_PLUGINS, "--plugins-dir", folder, "run", *TINY]
    answer = cli(*flags, "--pretext-task", "raw_pixels")
    assert answer.code == 0
    assert "warning: plugin 'broken' did not load: ModuleNotFoundError" in answer.err
    answer = cli(*flags, "--pretext-task", "broken_task")
    assert answer.code == 2
    assert "Plugins that did not load: 'broken'" in answer.err


def test_a_dry_run_shows_everything_and_trains_nothing(tiny_run: Cli) -> None:
    answer = tiny_run("--pretext-task", "simclr", "--pretext-task", "picky", "--seeds", "0,1", "--dry-run")
    assert answer.code == 0
    assert "Combinations: 4, on cpu" in answer.out
    assert "picky / tiny / none / shapes" in answer.out
    assert "tiny has no patch tokens" in answer.out
    assert not list(Path(RECORDS).glob("runs/*"))


def test_a_flag_narrows_a_suite_and_keeps_its_options(cli: Cli, tmp_path: Path) -> None:
    from clvr_bench.cli.reading import ReadingFlags
    from clvr_bench.cli.running import RunRequest, requested_suite

    request = RunRequest(
        suite="quickstart", pretext_tasks=["simclr"], encoders=["resnet34"], augmentations=["crop_flip+none"],
        datasets=[], reading=ReadingFlags(), seeds="3,4", epochs=7, batch_size=None, overrides=[], results=tmp_path,
        device="cpu", time_limit=None, dry_run=False, compiled=False, plugins=PluginFlags(),
    )  # fmt: skip
    suite = requested_suite(request)
    (task,) = suite.pretext_tasks
    assert isinstance(task, dict)
    assert task["name"] == "simclr"
    assert len(task) > 1
    assert (suite.seeds, suite.encoders, suite.budget.epochs) == ([3, 4], ["resnet34"], 7)
    assert suite.augmentations == [["crop_flip", "none"]]


def test_observers_are_told_and_a_raising_one_stops_nothing(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "observers"
    folder.mkdir()
    (folder / "observer.py").write_text(
        "from pathlib import Path\nfrom clvr_bench import hookimpl\n\n"
        "@hookimpl\ndef run_started(run, identity):\n    raise RuntimeError('no tracker')\n\n"
        "@hookimpl\ndef epoch_finished(run, epoch):\n    Path(f\"told_{epoch['epoch']}\").touch()\n\n"
        "@hookimpl\ndef run_finished(run, record):\n    Path(f'told_{record.status}').touch()\n"
    )
    flags = ["--plugins-dir", CONTRACT_PLUGINS, "--plugins-dir", folder, "run", *TINY]
    answer = cli(*flags, "--pretext-task", "simclr", "--epochs", 2)
    assert answer.code == 0
    assert "an observer's run_started raised RuntimeError: no tracker (observer.py)" in answer.out
    assert sorted(path.name for path in Path().glob("told_*")) == ["told_1", "told_2", "told_done"]


def test_a_pretrained_encoder_loads_and_encodes(tiny_run: Cli) -> None:
    tiny_run("--pretext-task", "simclr", "--epochs", 1)
    encoder = clvr_bench.load_encoder(run_of("simclr").folder, plugins_dirs=[CONTRACT_PLUGINS])
    assert not encoder.training
    assert encoder(torch.rand(2, 3, 16, 16)).shape == (2, 8)


def test_loading_what_cannot_be_loaded_is_refused(tiny_run: Cli, tmp_path: Path) -> None:
    tiny_run("--pretext-task", "simclr", "--pretext-task", "loses_numbers", "--epochs", 1)
    with pytest.raises(ClvrBenchError, match="no run here"):
        clvr_bench.load_encoder(tmp_path)
    with pytest.raises(ClvrBenchError, match="this run is failed"):
        clvr_bench.load_encoder(run_of("loses_numbers").folder)
    folder = run_of("simclr").folder
    with pytest.raises(ClvrBenchError, match="unknown encoder 'tiny'"):
        clvr_bench.load_encoder(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ClvrBenchError, match="no weights here"):
        clvr_bench.load_encoder(folder, plugins_dirs=[CONTRACT_PLUGINS])


def test_python_runs_a_suite_and_returns_its_leaderboard(tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'name = "mine"\nencoders = ["tiny"]\npretext_tasks = ["random_init"]\nevaluations = ["linear"]\n'
        'datasets = [{ name = "shapes", train_size = 60, test_size = 20, image_size = 16 }]\n'
        "[budget]\nepochs = 1\nbatch_size = 20\n"
    )
    frame = clvr_bench.run(suite, results=tmp_path / "results", plugins_dirs=[CONTRACT_PLUGINS], device="cpu")
    assert frame["pretext_task"].tolist() == ["random_init"]
    pd.testing.assert_frame_equal(frame, clvr_bench.leaderboard(tmp_path / "results"))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("9m", 540), ("2h", 7200), ("45", 45), ("1.5m", 90)])
def test_durations_are_read_in_their_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3s", "0", "9 minutes"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ClvrBenchError, match="expected a duration"):
        parse_duration(text)


def test_records_know_what_classes_are_called(tiny_run: Cli) -> None:
    tiny_run("--pretext-task", "raw_pixels")
    assert run_of("raw_pixels").pretraining.facts["class_names"][:3] == ["arrow", "house", "tee"]


@pytest.mark.parametrize("flag", ["--plugin", "--no-plugin", "--plugins-dir"])
def test_a_flag_that_belongs_before_the_command_says_so(cli: Cli, flag: str) -> None:
    answer = cli("run", flag, "x", "quickstart")
    assert (answer.code, answer.err) == (
        2,
        f"clvr-bench: {flag} belongs before the command: clvr-bench {flag} ... COMMAND ...\n",
    )
