from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CONTRACT_PLUGINS, Answer

Cli = Callable[..., Answer]
SMALL = ["--set", "shapes.train_size=120", "--set", "shapes.test_size=60", "--set", "shapes.image_size=16"]
FAST = ["--epochs", 1, "--batch-size", 20, "--device", "cpu"]
TINY = ["--encoder", "tiny", *FAST]


def next_commands(answer: Answer) -> list[list[str]]:
    return [shlex.split(line) for line in answer.out.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("kind", "column", "flags"),
    [
        ("pretext-task", "pretext_task", [*SMALL, *TINY]),
        ("augmentation", "augmentation", [*SMALL, *TINY]),
        ("encoder", "encoder", [*SMALL, *FAST, "--encoder", "fresh", "--set", "fresh.width=4"]),
        ("dataset", "dataset", ["--set", "fresh.train_size=90", "--set", "fresh.image_size=8", *TINY]),
        ("evaluation", "fresh_top1_mean", [*SMALL, *TINY]),
    ],
)
def test_a_new_plugin_is_listed_and_run_by_the_printed_commands(
    cli: Cli, kind: str, column: str, flags: list[object]
) -> None:
    import pandas as pd

    folder = f"my {kind} plugins"  # Python knows a file by its folder's and its own name, so each test has a folder
    made = cli("new", kind, "fresh", "--output", folder)
    assert made.code == 0, made.err
    check, listing, run = next_commands(made)
    assert check == ["clvr-bench", "check", f"{folder}/fresh.py"]
    assert "fresh (version 1+" in cli(*listing[1:]).out
    answer = cli("--plugins-dir", CONTRACT_PLUGINS, *run[1:], *flags)
    assert answer.code == 0, answer.out + answer.err
    frame = pd.read_csv("results/fresh/leaderboard.csv")
    assert set(frame["status"]) == {"done"}
    assert frame[column].notna().all() if kind == "evaluation" else "fresh" in set(frame[column])


def test_a_new_plugin_passes_the_check_as_printed(cli: Cli) -> None:
    check, *_ = next_commands(cli("new", "evaluation", "fresh"))
    answer = cli(*check[1:])
    assert answer.code == 0, answer.out
    assert "evaluation 'fresh'" in answer.out


def test_a_new_package_says_how_to_install_check_and_run_it(cli: Cli) -> None:
    answer = cli("new", "pretext-task", "fresh_one", "--package", "--output", "work")
    assert answer.code == 0, answer.err
    assert next_commands(answer) == [
        ["cd", "work/clvr-bench-fresh-one"],
        ["python", "-m", "pip", "install", "--editable", ".[test]"],
        ["clvr-bench", "check", "fresh_one"],
        ["clvr-bench", "list", "pretext-tasks"],
        ["clvr-bench", "run", "fresh_one.toml"],
        ["python", "-m", "pytest"],
    ]
    for path in [line.removeprefix("Written: ") for line in answer.out.splitlines() if line.startswith("Written: ")]:
        assert Path(path).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretext-task", "View-Pair"], "new: 'View-Pair' cannot be a plugin's name."),
        (["pretext-task", "simclr"], "new: pretext task 'simclr' is registered by plugin 'simclr' (clvr-bench"),
        (["encoder", "json", "--package"], "new: a package cannot be called 'json'"),
        (["encoder", "fresh", "--output", "my.plugins"], "my.plugins cannot be imported, for its name has a dot"),
        (["method", "fresh"], "'method' is not one of 'pretext-task'"),
        (["encoder"], "Missing argument 'NAME'"),
    ],
)
def test_what_cannot_be_written_is_one_clear_line(cli: Cli, arguments: list[str], message: str) -> None:
    answer = cli("new", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_name_of_a_plugins_directory_is_taken_too(cli: Cli) -> None:
    answer = cli("--plugins-dir", CONTRACT_PLUGINS, "new", "pretext-task", "queued")
    assert answer.code == 2
    assert "registered by plugin 'awkward'" in answer.err


def test_a_second_call_overwrites_nothing(cli: Cli) -> None:
    cli("new", "encoder", "fresh")
    Path("fresh.py").write_text("edited")
    answer = cli("new", "encoder", "fresh")
    assert answer.code == 2
    assert "fresh.py is there already" in answer.err
    assert Path("fresh.py").read_text() == "edited"


def test_neither_help_nor_a_misspelt_name_waits_for_torch() -> None:
    for arguments in (["new", "--help"], ["new", "encoder", "A"]):
        program = (
            f"import sys; sys.argv = ['clvr-bench', *{arguments}]\nfrom clvr_bench.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\nsys.exit('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
