"""The evaluations in a real run: variants of one name stay apart, and the records verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clvr_bench.records import EvaluationRecord, load_runs
from clvr_bench.verify import verify
from tests.conftest import CONTRACT_PLUGINS, Answer

SUITE = """
name = "variants"
encoders = ["tiny"]
datasets = [{ name = "shapes", train_size = 120, test_size = 60, image_size = 16 }]
pretext_tasks = ["random_init"]
evaluations = [
    "linear",
    { name = "few_label", draws = 2 },
    { name = "finetune", fraction = [0.1, 1.0], epochs = 2, batch_size = 30 },
    { name = "finetune", fraction = 0.1, epochs = 3, batch_size = 30 },
    { name = "linear_sgd", epochs = 2 },
    { name = "linear_sgd", preset = "simclr", epochs = 2 },
]
budget = { epochs = 1, batch_size = 20 }
"""
RUN = ["run", "suite.toml", "--device", "cpu"]


@pytest.fixture
def run(cli: Callable[..., Answer]) -> Callable[[], Answer]:
    """Run the suite in this test's folder."""
    Path("suite.toml").write_text(SUITE)
    return lambda: cli("--plugins-dir", CONTRACT_PLUGINS, *RUN)


def records() -> list[EvaluationRecord]:
    (run,) = load_runs(Path("results"))
    return run.evaluations


def options(record: EvaluationRecord, *names: str) -> tuple[Any, ...]:
    return tuple(record.identity["evaluation"]["options"][name] for name in names)


def test_variants_of_an_evaluation_are_kept_apart_and_verify(run: Callable[[], Answer]) -> None:
    answer = run()
    assert answer.code == 0, answer.out + answer.err
    found = records()
    assert [record.error for record in found] == [""] * 7
    assert len({record.file_stem for record in found}) == 7
    tuned = {options(record, "fraction", "epochs"): record for record in found if record.name == "finetune"}
    assert set(tuned) == {(0.1, 2), (1.0, 2), (0.1, 3)}
    assert [tuned[key].details["samples"] for key in sorted(tuned)] == [10, 10, 120]
    assert {options(record, "preset") for record in found if record.name == "linear_sgd"} == {("moco",), ("simclr",)}
    checked = verify(Path("results"))
    assert (checked.problems, checked.evaluations, checked.predictions) == ((), 7, 6)  # few_label predicts nothing


def test_what_is_done_is_not_done_again_and_a_lost_evaluation_comes_back_with_the_same_numbers(
    run: Callable[[], Answer],
) -> None:
    run()
    before = {record.file_stem: record for record in records()}
    (lost,) = [path for path in Path("results").rglob("finetune-*.json") if '"epochs": 3' in path.read_text()]
    lost.unlink()
    assert run().code == 0
    after = {record.file_stem: record for record in records()}
    again = after[lost.stem]
    assert after.keys() == before.keys()
    assert (again.metrics, again.predictions) == (before[lost.stem].metrics, before[lost.stem].predictions)
    assert again.details["losses"] == before[lost.stem].details["losses"]
    others = after.keys() - {lost.stem}
    assert all(after[stem].provenance == before[stem].provenance for stem in others)
