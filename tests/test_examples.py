"""The example package and a fresh one, really installed and used from the command line of their environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from clvr_bench.scaffold import Draft, write

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "clvr-bench-align-uniform"
FRESH = Draft("evaluation", "fresh_means")
LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "results")
TINY = [
    "--set", "shapes.train_size=200", "--set", "shapes.test_size=60", "--set", "shapes.image_size=16", "--epochs", "1",
    "--batch-size", "32", "--device", "cpu",
]  # fmt: skip


COMMANDS = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
import pytest
from clvr_bench.cli import main

for line in json.loads(sys.argv[1]):
    sys.argv, out, code = line, StringIO(), 0
    with redirect_stdout(out), redirect_stderr(out):
        try:
            code = pytest.main(line[1:]) if line[0] == "pytest" else main()
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code, out.getvalue()]))
"""
"""Runs several command lines in one interpreter, for importing torch takes seconds; prints exit codes and outputs."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the packages of the one that the tests run in."""

    folder: Path

    def path(self, name: str) -> Path:
        base = str(self.folder / "venv")
        return Path(sysconfig.get_path(name, "venv", vars={"base": base, "platbase": base}))

    @property
    def python(self) -> str:
        return str(self.path("scripts") / "python")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "160", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    venv.create(made.folder / "venv", symlinks=os.name != "nt")
    parents = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({parent!r})\n" for parent in sorted(parents)]  # reads their .pth files too
    (made.path("purelib") / "parent.pth").write_text("".join(lines))
    shutil.copytree(EXAMPLE, made.folder / EXAMPLE.name, ignore=LEFTOVERS)  # setuptools builds in the source folder
    write(FRESH, made.folder, package=True)
    pip = [sys.executable, "-m", "pip", "--python", made.python, "--disable-pip-version-check", "install", "--quiet"]
    offline = ["--no-index", "--no-build-isolation"]
    packages = [f"./{EXAMPLE.name}", f"./{FRESH.distribution}"]
    done = subprocess.run([*pip, *offline, *packages], cwd=made.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture(scope="module")
def outputs(environment: Environment) -> dict[str, str]:
    """What each command printed; all of them succeeded."""
    suite = environment.folder / EXAMPLE.name / "align_uniform.toml"
    with_the_evaluation = 'evaluations = ["linear", "knn", "health", "fresh_means"]\n\n[budget]'
    suite.write_text(suite.read_text().replace("[budget]", with_the_evaluation))
    lines = [
        ["clvr-bench", "list", "pretext-tasks"],
        ["clvr-bench", "check", "align_uniform"],
        ["clvr-bench", "run", str(suite), *TINY],
        ["pytest", "-p", "no:cacheprovider", f"{EXAMPLE.name}/tests/test_losses.py", FRESH.distribution],
    ]
    printed = environment.run("-c", COMMANDS, json.dumps(lines)).splitlines()
    answers = {line[1]: json.loads(text) for line, text in zip(lines, printed, strict=True)}
    for code, text in answers.values():
        assert not code, text
    return {command: text for command, (_, text) in answers.items()}


def test_an_installed_task_is_listed_with_its_options(outputs: dict[str, str]) -> None:
    assert "align_uniform (version 1, plugin align_uniform)" in outputs["list"]
    assert "align_weight: float = 1.0" in outputs["list"]


def test_an_installed_task_keeps_the_contract(outputs: dict[str, str]) -> None:
    assert re.search(r"\d\d hold, 0 fail", outputs["check"])


def test_the_tests_of_installed_packages_pass(outputs: dict[str, str]) -> None:
    assert re.search(r"\d\d passed", outputs["-p"])


@pytest.mark.usefixtures("outputs")
def test_an_installed_task_and_evaluation_are_rows_and_columns_of_the_leaderboard(environment: Environment) -> None:
    environment.run("-m", "clvr_bench", "leaderboard", "--format", "csv", "--output", "table.csv")
    frame = pd.read_csv(environment.folder / "table.csv").set_index("pretext_task")
    assert sorted(frame.index) == ["align_uniform", "random_init", "raw_pixels"]
    assert set(frame["status"]) == {"done"}
    assert frame["top1_mean"].notna().all()
    assert frame["fresh_means_top1_mean"].notna().all()


def test_the_example_is_laid_out_as_new_packages_are(tmp_path: Path) -> None:
    draft = Draft("pretext task", "align_uniform")
    written = {path.relative_to(tmp_path): path for path in write(draft, tmp_path, package=True)}
    for path, fresh in written.items():
        kept = ROOT / "examples" / path
        assert kept.is_file(), f"{kept} is missing"
        if kept.name in ("pyproject.toml", ".gitignore", "test_align_uniform.py", "__init__.py"):
            assert kept.read_text() == fresh.read_text(), f"{kept} is not what 'clvr-bench new' writes"


def test_the_example_imports_only_what_is_public() -> None:
    from tests.test_project import PUBLIC, imports

    for path in EXAMPLE.rglob("*.py"):
        for line, name in imports(path):
            own = name.split(".")[0]
            assert own != "clvr_plugins", f"{path}:{line} imports {name}"
            allowed = PUBLIC.fullmatch(name) or (name == "clvr_bench.testing" and "tests" in path.parts)
            assert own != "clvr_bench" or allowed, f"{path}:{line} imports {name}, which is not public"


def test_the_examples_project_file_is_sound() -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    assert project["name"] == EXAMPLE.name
    assert project["entry-points"]["clvr_bench"] == {"align_uniform": "align_uniform.pretext_task"}
