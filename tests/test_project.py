"""What holds for the project as a whole: who may import what, what is packaged, what the documents say."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import typer.main
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from clvr_bench import leaderboard
from clvr_bench.cli.app import app
from clvr_bench.hooks import Hooks
from clvr_bench.records import load_runs
from tests.clvr_bench.records_fake import write_seeds
from tests.conftest import Answer

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
PUBLIC = re.compile(r"clvr_bench(\.toolbox|\.ops(\.\w+)?)?")
COMMITTED = [p.name for p in (ROOT / "results").iterdir() if p.is_dir() and p.name not in ("quickstart", "custom")]
WITHOUT_TORCH = (
    "cli",
    "cli.app",
    "cli.tables",
    "cli.figure2",
    "cli.pairs",
    "cli.comparing",
    "cli.finding",
    "cli.inventory",
    "cli.report",
    "inventory",
    "standings",
    "tables",
    "typesetting",
    "comparing",
    "matchups",
    "pairwise",
    "heatmaps",
    "charts.rows",
    "charts.learning",
    "charts.costs",
    "figure2.comparison",
    "figure2.drawing",
    "report.page",
    "records",
    "merge",
    "verify",
    "significance",
    "files",
    "interruption",
    "api",
    "literature",
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and name of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_import_only_what_is_public_and_never_one_another(path: Path) -> None:
    for line, name in imports(path):
        own = name.split(".")[0]
        assert own not in ("clvr_plugins", "plugins"), f"{path}:{line} imports another plugin, {name}"
        assert not name.startswith("."), f"{path}:{line} imports relatively"
        assert own != "clvr_bench" or PUBLIC.fullmatch(name), f"{path}:{line} imports {name}, which is not public"


@pytest.mark.parametrize("path", sorted((ROOT / "clvr_bench").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_harness_never_imports_a_plugin(path: Path) -> None:
    for line, name in imports(path):
        assert name.split(".")[0] not in ("clvr_plugins", "plugins"), f"{path}:{line} imports {name}"


@pytest.mark.parametrize("module", sorted((ROOT / "clvr_bench" / "contracts").glob("*.py")), ids=lambda p: p.stem)
def test_contracts_import_only_contracts_draws_and_errors(module: Path) -> None:
    for line, name in imports(module):
        if name.startswith("clvr_bench"):
            assert re.match(r"clvr_bench\.(contracts|draws|errors)", name), f"{module}:{line} imports {name}"


def test_commands_that_read_records_never_import_torch() -> None:
    modules = ", ".join(f"clvr_bench.{name}" for name in WITHOUT_TORCH)
    program = f"import sys, clvr_bench, {modules}; sys.exit(bool({{'torch', 'timm', 'pydantic'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_help_and_suites_never_import_torch_or_matplotlib() -> None:
    helped = ("run", "evaluate", "runs", "preview")
    for arguments in (["--help"], *([command, "--help"] for command in helped), ["list", "suites"]):
        program = (
            f"import sys; sys.argv = ['clvr-bench', *{arguments}]\nfrom clvr_bench.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_every_package_is_listed() -> None:
    found = {
        ".".join(["clvr_plugins" if part == "plugins" else part for part in path.parent.relative_to(ROOT).parts])
        for top in ("clvr_bench", "plugins")
        for path in (ROOT / top).rglob("__init__.py")
    }
    missing = sorted(found - set(PROJECT["tool"]["setuptools"]["packages"]))
    assert not missing, "add to packages in pyproject.toml:\n" + "\n".join(f'    "{name}",' for name in missing)
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_plugin_file_has_an_entry_point() -> None:
    files = (p for p in (ROOT / "plugins").glob("*/*.py") if p.stem != "__init__")
    found = {f"clvr_plugins.{p.parent.name}.{p.stem}" for p in files}
    points = PROJECT["project"]["entry-points"]
    listed = {*points["clvr_bench"].values(), *points["clvr_bench.on_request"].values()}
    lines = [f'{name.rsplit(".")[-1]} = "{name}"' for name in sorted(found - listed)]
    assert found == listed, "add to the entry points in pyproject.toml:\n" + "\n".join(lines)


def test_a_plugin_file_starts_with_its_registration() -> None:
    for path in (ROOT / "plugins").glob("*/*.py"):
        definitions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
        first = definitions[0].name if definitions else "register_"
        assert first.startswith("register_") or first in vars(Hooks), path


def documented(block: str) -> list[str]:
    """Return the code blocks of a language in the README."""
    return re.findall(rf"```{block}\n(.*?)```", README, flags=re.DOTALL)


def test_the_readmes_method_in_one_file_works_as_printed(cli: Callable[..., Answer], tmp_path: Path) -> None:
    (text,) = (block for block in documented("python") if "register_pretext_tasks" in block)
    folder = tmp_path / "my_plugins"
    folder.mkdir()
    (folder / "view_pair.py").write_text(text)
    flags = ["--plugins-dir", folder]
    assert "view_pair" in cli(*flags, "list", "pretext-tasks").out
    small = ["--set", "shapes.train_size=100", "--set", "shapes.test_size=40", "--batch-size", 32, "--epochs", 1]
    answer = cli(*flags, "run", "--pretext-task", "view_pair", *small)
    assert answer.code == 0, answer.out + answer.err
    assert "view_pair" in cli("leaderboard").out


def test_the_readmes_suite_is_sound(tmp_path: Path) -> None:
    from clvr_bench.combinations import Planner
    from clvr_bench.plugins import load_plugins
    from clvr_bench.suites import load_suite

    (text,) = documented("toml")
    (tmp_path / "suite.toml").write_text(text)
    assert Planner(load_suite(str(tmp_path / "suite.toml")), load_plugins().registry).combinations()


def test_every_command_is_in_the_readme() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group of commands
    for name in commands:
        assert re.search(rf"clvr-bench( --plugins-dir \S+)? {name}\b", README), (
            f"README.md does not show 'clvr-bench {name}'"
        )


def test_every_hook_is_documented() -> None:
    documents = README + "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    for name in vars(Hooks):
        assert name.startswith("_") or name in documents, f"the hook {name} is not documented"


def test_every_top_level_module_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "clvr_bench").iterdir():
        if path.suffix == ".py" and not path.stem.startswith("__"):
            assert f"`{path.stem}`" in text, f"docs/architecture.md does not mention {path.stem}"


@pytest.mark.parametrize("suite", COMMITTED)
def test_committed_tables_are_those_of_their_records(suite: str) -> None:
    from clvr_bench.verify import verify

    checked = verify(ROOT / "results" / suite)
    assert checked.problems == ()
    assert checked.tables == 1


def script(name: str) -> ModuleType:
    """Load one of the scripts in ``docs/``."""
    specification = importlib.util.spec_from_file_location(f"documents_{name}", ROOT / "docs" / f"{name}.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # where its dataclasses look their types up
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents_tables() -> ModuleType:
    return script("tables")


@pytest.fixture(scope="module")
def documents_results() -> ModuleType:
    return script("results")


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*/trials.csv")), ids=lambda path: path.parent.name)
def test_a_row_has_the_best_of_the_trials_that_it_counts(path: Path) -> None:
    trials = pd.read_csv(path, keep_default_na=False)
    settings = ["pretext_task", "encoder", "augmentation", "epochs", "batch_size", "options"]
    assert list(trials) == [*settings, "val_top1", "chosen"]  # nothing of test
    identities = [(run.pretraining.identity, run) for run in load_runs(path.parent)]
    first = {
        (identity["pretext_task"]["name"], identity["budget"]["epochs"]): run
        for identity, run in identities
        if identity["seed"] == 0 and identity["budget"]
    }
    rows = leaderboard(path.parent)
    for row in rows[rows["epochs"].notna()].to_dict("records"):
        own = trials[trials["pretext_task"] == row["pretext_task"]]
        counted = re.search(r"best on val \((\d+) trial", row["options_source"])
        assert counted, row["options_source"]
        assert int(counted[1]) == len(own), row["pretext_task"]
        (chosen,) = own[own["chosen"] == "yes"].to_dict("records")
        alike = own[(own["epochs"] == chosen["epochs"]) & (own["val_top1"] != "")]
        assert float(chosen["val_top1"]) == alike["val_top1"].astype(float).max()
        assert chosen["augmentation"] == row["augmentation"]
        shown = [part for part in row["options"].split("; ") if not part.startswith("dataset.")]
        assert chosen["options"] == "; ".join(shown)
        run = first[row["pretext_task"], chosen["epochs"]]
        (linear,) = (evaluation for evaluation in run.evaluations if evaluation.name == "linear")
        assert float(chosen["val_top1"]) == linear.metrics["val_top1"]


def test_the_pages_of_the_tasks_are_those_of_plugins_and_records() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "docs" / "tasks").iterdir()}
    assert written == script("tasks").pages(), "run 'make tables'"


def test_pages_leave_out_what_was_not_seen_in_print() -> None:
    page = (ROOT / "docs" / "tasks" / "nnclr.md").read_text()
    assert "2 not seen in print" in page
    assert not any(figure in page for figure in ("75.6", "75.4"))


def test_a_pretext_task_without_a_kind_is_named_with_what_to_add() -> None:
    with pytest.raises(LookupError, match="Add 'simclr_v9' to KINDS, under one of: Contrastive, Distilling"):
        script("tasks").kind_of("simclr_v9")


def test_a_pretext_task_has_one_kind() -> None:
    names = [name for names in script("tasks").KINDS.values() for name in names]
    assert sorted(set(names)) == sorted(names)


def test_the_documents_tables_are_those_of_the_records(documents_tables: ModuleType) -> None:
    for document in documents_tables.DOCUMENTS:
        text = document.read_text()
        message = f"{document} has other numbers than the records: run 'make tables'"
        assert documents_tables.updated(document) == text, message
        assert text.count("| supervised |") >= 1


def test_a_table_of_the_best_rows_has_all_yardsticks_too(documents_tables: ModuleType) -> None:
    whole = documents_tables.tables("contract-shapes").splitlines()
    best = documents_tables.tables("contract-shapes", "2").splitlines()
    assert set(best[:-1]) < set(whole)
    tasks = [line.split(" | ")[1].strip() for line in best[2:-2]]
    labelled = ["supcon", "semi_supervised", "supervised", "weakly_supervised"]
    assert sorted(tasks) == sorted([*labelled, "rotation", "amdim", "raw_pixels", "random_init", "random_init"])
    assert best[-1].endswith("; the best 2 of 32 that were trained without labels*")


def test_rows_of_another_budget_have_a_table_of_their_own(
    documents_tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_tables, "ROOT", tmp_path)
    for task, epochs in (("simclr", 30), ("byol", 30), ("byol", 200)):
        budget = {"epochs": epochs, "batch_size": 512}
        write_seeds(tmp_path / "results" / "study", [60.0, 61.0], task=task, budget=budget)
    write_seeds(tmp_path / "results" / "study", [20.0, 21.0], task="random_init", budget=None)
    usual, longer = documents_tables.tables("study").split("\nOf 200 epochs:\n\n")
    tasks = [[line.split(" | ")[1] for line in text.splitlines()[2:-2]] for text in (usual, longer)]
    assert tasks == [["byol", "simclr", "random_init"], ["byol"]]
    best = documents_tables.tables("study", "1")
    assert best.count("| byol |") == 1
    assert best.endswith("*Left out: rows of 200 epochs.*\n")


def test_rows_of_one_task_are_told_apart_by_what_differs(
    documents_tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_tables, "ROOT", tmp_path)
    study = tmp_path / "results" / "study"
    for weight, augmentation, accuracy in ((0.0, "simclr", 60.0), (0.5, "simclr", 55.0), (0.5, "moco_v2", 50.0)):
        shown = {"queue_size": 1024} | ({"weight": weight} if weight else {})
        facts = {"options_shown": shown, "augmentation": augmentation}
        write_seeds(study, [accuracy, accuracy + 1], task="infomin", chain=(augmentation,), options=shown, facts=facts)
    write_seeds(study, [60.0, 61.0], task="byol")
    head, _, *rows = (line.strip("| ").split(" | ") for line in documents_tables.tables("study").splitlines()[:-2])
    assert head[:4] == ["rank", "pretext task", "augmentation", "options"]
    assert {tuple(row[1:4]) for row in rows} == {
        ("byol", "", ""),
        ("infomin", "simclr", ""),
        ("infomin", "simclr", "weight=0.5"),
        ("infomin", "moco_v2", "weight=0.5"),
    }


def test_the_document_of_results_is_that_of_the_records(documents_results: ModuleType) -> None:
    text = documents_results.DOCUMENT.read_text()
    assert documents_results.updated(text) == text, (
        "docs/results.md shows other numbers than the records: run 'make tables'"
    )
    assert "<!-- results: contract-shapes -->" in text


def test_pictures_of_results_are_those_of_the_records(documents_results: ModuleType) -> None:
    for suite in documents_results.shown():
        for chart in documents_results.charts(ROOT / "results" / suite):
            path = ROOT / "results" / suite / chart.file
            assert path.is_file(), f"{path} is missing: run 'make tables'"
            committed, drawn = Image.open(path), Image.open(BytesIO(chart.png()))
            assert committed.text["Description"] == chart.digest, (
                f"{path} shows other numbers than the records: run 'make tables'"
            )
            assert path.stat().st_size < 200_000
            if committed.text["Software"] == documents_results.software():  # else some pixels differ
                assert committed.size == drawn.size, f"{path} is drawn otherwise now: run 'make tables'"
                difference = ImageChops.difference(committed.convert("RGB"), drawn.convert("RGB"))
                assert max(ImageStat.Stat(difference).mean) < 0.1, f"{path} is drawn otherwise now: run 'make tables'"


def test_a_suite_with_records_gets_a_section_and_what_is_written_by_hand_stays(
    documents_results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_results, "ROOT", tmp_path)
    monkeypatch.setattr(documents_results, "SUITES", {"study": "cifar10", "not-run-yet": ""})
    for task, accuracy in (("simclr", 60.0), ("byol", 55.0)):
        history = [{"epoch": 1, "loss": 2.0, "knn_top1": 20.0}]
        write_seeds(tmp_path / "results" / "study", [accuracy, accuracy + 1], task=task, history=history)
    text = documents_results.updated("# Results\n")
    assert "not-run-yet" not in text
    assert "**Setting.** 47,500 pictures to train on" in text
    assert "1,000 of test. 200 epochs in batches of 512, in bf16" in text
    assert "two cores, threads a run: 1, torch 2.0." in text
    assert "by seconds `simclr`; by encoder passes, among rows with the encoder that most have, `simclr`." in text
    assert "| `simclr` | resnet18_small | 200 | 512 | 55.0 | ResNet-18 (CIFAR stem) | 200 | 128 | 84.7 | k-NN" in text
    assert "Beside the published order" not in text  # of two methods there is no order to speak of
    assert "are left out" not in text
    by_hand = text.replace("byol", "bygones") + "\nWhy: by hand.\n"
    assert documents_results.updated(by_hand) == text + "\nWhy: by hand.\n"
    files = {chart.file for chart in documents_results.charts(tmp_path / "results" / "study")}
    assert all(f"../results/study/{file}" in text for file in files)


def test_curves_of_another_length_are_left_out_and_said_to_be(
    documents_results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_results, "ROOT", tmp_path)
    monkeypatch.setattr(documents_results, "SUITES", {"study": ""})
    study = tmp_path / "results" / "study"
    for task, epochs in (("simclr", 2), ("byol", 2), ("byol", 5)):
        history = [{"epoch": epoch, "loss": 2.0, "knn_top1": 20.0} for epoch in range(1, 1 + epochs)]
        budget = {"epochs": epochs, "batch_size": 512}
        write_seeds(study, [50.0, 51.0], task=task, history=history, budget=budget)
    assert "which has all of them. Rows of 5 epochs are left out." in documents_results.updated("# Results\n")
    shown = {chart.file: {row["name"] for row in chart.numbers} for chart in documents_results.charts(study)}
    assert shown["learning.png"] == shown["losses.png"] == {"simclr", "byol, 2 epochs"}
    assert shown["seconds.png"] == {"simclr", "byol, 2 epochs", "byol, 5 epochs"}


def test_a_picture_says_what_it_shows_and_is_the_same_to_the_byte(documents_results: ModuleType) -> None:
    def chart(numbers: list[float]) -> Any:
        return documents_results.Chart("x.png", numbers, lambda: Figure(figsize=(8.5, 1)))

    first, same, other = chart([1.0]), chart([1.0]), chart([1.5])
    assert first.png() == same.png()
    assert Image.open(BytesIO(first.png())).size == (1700, 200)
    assert Image.open(BytesIO(other.png())).text["Description"] == other.digest != first.digest


def test_committed_pairs_are_those_of_their_records(documents_tables: ModuleType) -> None:
    for suite in documents_tables.PAIRS:
        message = f"{suite}/pairs.csv has other numbers than the records: run 'make tables'"
        assert (suite / "pairs.csv").read_text() == documents_tables.pairs(suite), message
        assert (suite / "pairs.png").is_file()  # its bytes depend on the version of matplotlib


def test_pairs_are_written_beside_their_records_and_nowhere_else(documents_tables: ModuleType, tmp_path: Path) -> None:
    documents_tables.write_pairs(tmp_path / "nothing-run-yet")
    assert not (tmp_path / "nothing-run-yet").exists()
    for chain in (("crop",), ("rotate",), ("crop", "rotate"), ("rotate", "crop")):
        write_seeds(tmp_path / "study", [60.0, 61.0], chain=chain)
    documents_tables.write_pairs(tmp_path / "study")
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"pairs.csv", "pairs.png", "runs"}
    assert (tmp_path / "study" / "pairs.csv").read_text().splitlines()[1].startswith("crop,,60.50,0.71,6.35,2,simclr,")
