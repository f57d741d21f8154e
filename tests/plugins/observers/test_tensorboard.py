"""What TensorBoard's observer writes is read back as TensorBoard reads it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clvr_bench.errors import ClvrBenchError
from clvr_bench.plugins import load_plugins
from clvr_bench.records import Run, load_runs
from tests.conftest import CONTRACT_PLUGINS, TINY, Answer

pytest.importorskip("tensorboard")
event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

Curves = dict[str, list[tuple[int, float]]]
Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    observer = sys.modules.get("clvr_plugins.observers.tensorboard")
    if observer:
        observer._close()


def watched(cli: Cli, *arguments: object) -> Answer:
    return cli("--plugins-dir", CONTRACT_PLUGINS, "--plugin", "tensorboard", "run", *TINY, *arguments)


def curves(run: Run) -> Curves:
    """Return step and value of all scalars of a run, what was taken back left out."""
    events = event_accumulator.EventAccumulator(str(folder_of(run)), purge_orphaned_data=True)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def folder_of(run: Run) -> Path:
    return run.folder.parent.parent / "tensorboard" / run.folder.name


def run_of(task: str) -> Run:
    (run,) = (r for r in load_runs(Path("results")) if r.pretraining.identity["pretext_task"]["name"] == task)
    return run


def test_curves_and_scores_are_those_of_the_records(cli: Cli) -> None:
    answer = watched(cli, "--pretext-task", "simclr", "--pretext-task", "rotation", "--epochs", 3)
    assert answer.code == 0
    assert "warning" not in answer.out
    for task in ("simclr", "rotation"):
        run = run_of(task)
        found = curves(run)
        for name in set(run.pretraining.history[0]) - {"epoch"}:
            expected = [(entry["epoch"], pytest.approx(entry[name], rel=1e-6)) for entry in run.pretraining.history]
            assert found.pop(name) == expected
        for record in run.evaluations:
            for name, value in record.metrics.items():
                assert found.pop(f"{record.name}/{name}") == [(3, pytest.approx(value, rel=1e-6))]
        assert not found


def test_the_options_are_told(cli: Cli) -> None:
    watched(cli, "--pretext-task", "simclr", "--set", "simclr.temperature=0.37", "--epochs", 1)
    events = event_accumulator.EventAccumulator(str(folder_of(run_of("simclr"))))
    events.Reload()
    (text,) = events.Tensors("identity/text_summary")
    assert '"temperature": 0.37' in text.tensor_proto.string_val[0].decode()


def test_a_run_begun_anew_takes_the_earlier_curve_back(cli: Cli) -> None:
    watched(cli, "--pretext-task", "simclr", "--epochs", 2)
    (run_of("simclr").folder / "pretraining.json").unlink()
    assert watched(cli, "--pretext-task", "simclr", "--epochs", 2).code == 0
    assert [step for step, _ in curves(run_of("simclr"))["loss"]] == [1, 2]


def test_a_resumed_run_goes_on_with_its_curve(cli: Cli) -> None:
    watched(cli, "--pretext-task", "simclr", "--epochs", 2)
    run, observer = run_of("simclr"), sys.modules["clvr_plugins.observers.tensorboard"]
    observer.run_started(run.folder, run.pretraining.identity)
    observer.epoch_finished(run.folder, {"epoch": 2, "loss": 7.0})
    observer.epoch_finished(run.folder, {"epoch": 3, "loss": 8.0})
    first = pytest.approx(run.pretraining.history[0]["loss"], rel=1e-6)
    assert curves(run)["loss"] == [(1, first), (2, 7.0), (3, 8.0)]


def test_evaluations_alone_leave_the_curve_as_it_is(cli: Cli) -> None:
    watched(cli, "--pretext-task", "simclr", "--epochs", 2)
    run, observer = run_of("simclr"), sys.modules["clvr_plugins.observers.tensorboard"]
    observer._begin(run.folder.parent / "another")
    for file in run.folder.glob("evaluations/knn-*.json"):
        file.unlink()
    watched(cli, "--pretext-task", "simclr", "--epochs", 2)
    found = curves(run)
    assert [step for step, _ in found["loss"]] == [1, 2]
    assert [step for step, _ in found["knn/top1"]] == [2, 2]


def test_a_task_that_trains_nothing_has_scores_alone(cli: Cli) -> None:
    watched(cli, "--pretext-task", "raw_pixels")
    found = curves(run_of("raw_pixels"))
    assert "linear/top1" in found
    assert "loss" not in found


def test_nothing_is_written_where_nobody_asks(cli: Cli) -> None:
    assert cli("--plugins-dir", CONTRACT_PLUGINS, "run", *TINY, "--pretext-task", "raw_pixels").code == 0
    assert not list(Path("results").rglob("*tfevents*"))


def test_its_files_trouble_neither_verify_nor_the_leaderboard(cli: Cli) -> None:
    watched(cli, "--pretext-task", "simclr", "--epochs", 1)
    assert cli("verify", "--results", "results").code == 0
    assert cli("runs", "--results", "results").code == 0
    assert cli("leaderboard", "--results", "results").code == 0


def test_without_tensorboard_asking_for_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("torch.utils.tensorboard", "tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "clvr_plugins.observers.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ClvrBenchError, match=r"^--plugin tensorboard: .*pip install 'clvr-bench\[tensorboard\]'$"):
        load_plugins(requested=["tensorboard"])
    assert {plugin.state for plugin in load_plugins().found} == {"loaded", "waiting"}
