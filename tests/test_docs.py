"""The author's guide: every example works, and every part of the contract is in it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import clvr_bench
from clvr_bench import toolbox
from clvr_bench.contracts import augmentation, dataset, encoder, evaluation, pretext_task, recipe, values
from clvr_bench.hooks import Hooks
from clvr_bench.plugins import Plugins, load_plugins
from clvr_bench.registry import Entry
from clvr_bench.testing import Subject, checks_of
from tests.conftest import Answer

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "plugins.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, flags=re.DOTALL))
PLUGIN_FILES = [name for name, code in EXAMPLES.items() if "@hookimpl\ndef register_" in code]
CONTRACT = [
    member
    for module in (augmentation, dataset, encoder, evaluation, pretext_task, recipe, values)
    for member in vars(module).values()
    if inspect.isclass(member) and member.__module__ == module.__name__
]
FOR_THE_HARNESS = {
    "Encoder.bind", "Encoder.passes", "Encoder.forward", "Recipe.peak_rate", "Recipe.identity", "Images.whole",
    "Evaluation.__call__", "ResidentSplit.images", "ResidentSplit.subset", "ResidentSplit.joined", "ResidentSplit.to",
    "ResidentSplit.fingerprint",
}  # fmt: skip
"""What authors neither write nor call."""


@cache
def written() -> Path:
    folder = Path(_FOLDER.name) / "guide_plugins"
    folder.mkdir()
    for name in [*PLUGIN_FILES, "log_lines.py"]:
        (folder / name).write_text(EXAMPLES[name])
    return folder


_FOLDER = TemporaryDirectory()


@cache
def guide_plugins() -> Plugins:
    return load_plugins([written()])


def members(contract: type) -> list[str]:
    """Return the names of a class of the contract that an author may meet."""
    own = {*vars(contract), *getattr(contract, "__annotations__", {})}
    fields = {field.name for field in dataclasses.fields(contract)} if dataclasses.is_dataclass(contract) else set()
    return sorted(name for name in own | fields if not name.startswith("_"))


@pytest.mark.parametrize("name", PLUGIN_FILES)
def test_an_example_keeps_the_contract(name: str) -> None:
    (plugin,) = [plugin for plugin in guide_plugins().found if plugin.name == Path(name).stem]
    assert plugin.state == "loaded", plugin.reason
    entries = [item for item in plugin.registered if isinstance(item, Entry)]
    assert entries
    for entry in entries:
        findings = [check.finding() for check in checks_of(Subject(entry, guide_plugins().registry))]
        assert {finding.title: finding.detail for finding in findings if finding.state == "fails"} == {}


def test_the_observer_of_the_guide_sees_a_run(cli: Callable[..., Answer]) -> None:
    small = ["--set", "dots.train_size=80", "--batch-size", 16, "--epochs", 2, "--encoder", "little_net"]
    answer = cli("--plugins-dir", written(), "run", "--pretext-task", "hidden_quadrant", "--dataset", "dots", *small)
    assert answer.code == 0, answer.out + answer.err
    lines = Path("log.txt").read_text().splitlines()
    assert lines[0] == "start hidden_quadrant"
    assert [line.split(":")[0] for line in lines[1:3]] == ["epoch 1", "epoch 2"]
    assert lines[3] == "end done"
    (record,) = Path("results/custom/runs").glob("*/pretraining.json")
    assert {line.split(":")[0] for line in lines[4:]} == {
        f"{name} of {record.parent.name}" for name in ("linear", "knn", "health")
    }


def test_the_guides_own_test_collects_and_passes() -> None:
    namespace: dict[str, object] = {}
    code = EXAMPLES["test_view_pair.py"]
    exec(compile(code, "test_view_pair.py", "exec"), namespace)
    test = namespace["test_it_keeps_the_contract"]
    (mark,) = test.pytestmark  # type: ignore[attr-defined]  # pytest's own attribute
    _, checks = mark.args
    checks[0]()


def test_every_python_block_is_a_tested_example() -> None:
    assert GUIDE.count("```python\n") == len(EXAMPLES)
    assert set(EXAMPLES) == {*PLUGIN_FILES, "log_lines.py", "test_view_pair.py"}


@pytest.mark.parametrize("contract", CONTRACT, ids=lambda contract: contract.__name__)
def test_every_member_of_the_contract_is_in_the_guide(contract: type) -> None:
    for name in members(contract):
        if f"{contract.__name__}.{name}" not in FOR_THE_HARNESS:
            assert re.search(rf"\b{name}\b", GUIDE), f"docs/plugins.md does not show {contract.__name__}.{name}"


def test_every_hook_is_in_the_guide() -> None:
    for name in vars(Hooks):
        assert name.startswith("_") or re.search(rf"\b{name}\b", GUIDE), f"docs/plugins.md does not show {name}"


def test_every_public_name_is_in_the_guide() -> None:
    in_readme = {"run", "evaluate", "leaderboard", "compare", "pairs", "published", "load_encoder"}
    elsewhere = in_readme | {"SampleRandom", "Draws", "Register"}  # types
    for name in set(clvr_bench.__all__) - elsewhere:
        assert re.search(rf"\b{name}\b", GUIDE), f"docs/plugins.md does not show {name}"


def test_every_shared_piece_is_in_the_guide() -> None:
    for name in toolbox.__all__:
        assert f"`{name}`" in GUIDE, f"docs/plugins.md does not list toolbox.{name}"
    for path in (ROOT / "clvr_bench" / "ops").glob("[!_]*.py"):
        assert f"`{path.stem}`" in GUIDE, f"docs/plugins.md does not list ops.{path.stem}"
