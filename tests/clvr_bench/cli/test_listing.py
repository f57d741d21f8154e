from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CONTRACT_PLUGINS, TINY, Answer

Cli = Callable[..., Answer]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("pretext-tasks", ["simclr", "Chen et al. 2020", "temperature: float = 0.1"]),
        ("encoders", ["resnet18_small_w16", "names of timm", "norm: 'own' | 'layer'"]),
        ("augmentations", ["crop_flip", "area: tuple[float, float]"]),
        ("datasets", ["folder", "shapes", "train_size: int"]),
        ("evaluations", ["linear", "knn", "health"]),
        ("suites", ["quickstart", "raw_pixels, random_init, supervised, rotation, simclr"]),
    ],
)
def test_a_list_shows_names_sources_and_options_with_defaults(cli: Cli, kind: str, expected: list[str]) -> None:
    answer = cli("list", kind)
    assert answer.code == 0
    for text in expected:
        assert text in answer.out


def test_a_directorys_plugins_are_listed_with_the_others(cli: Cli) -> None:
    assert "queued" in cli("--plugins-dir", CONTRACT_PLUGINS, "list", "pretext-tasks").out


def test_an_unknown_kind_is_refused(cli: Cli) -> None:
    assert cli("list", "methods").code == 2


def test_plugins_are_listed_with_origin_and_state(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "listed"
    folder.mkdir()
    (folder / "broken.py").write_text("import nothing_like_this\n")
    answer = cli("--plugins-dir", folder, "--plugins-dir", CONTRACT_PLUGINS, "--no-plugin", "rotation", "plugins")
    assert answer.code == 1
    lines = answer.out.splitlines()
    (simclr,) = (line for line in lines if line.startswith("simclr "))
    assert simclr.split() == ["simclr", "clvr-bench", "0.1.0", "pretext", "task", "simclr", "loaded"]
    assert any(line.startswith("rotation") and line.rstrip().endswith("blocked") for line in lines)
    assert "broken: broken: ModuleNotFoundError: No module named 'nothing_like_this'" in answer.out


def test_all_loaded_plugins_exit_with_0(cli: Cli) -> None:
    assert cli("plugins").code == 0


@pytest.fixture
def finished(cli: Cli) -> None:
    cli("--plugins-dir", CONTRACT_PLUGINS, "run", *TINY, "--pretext-task", "simclr", "--epochs", 2)


@pytest.mark.usefixtures("finished")
def test_show_finds_a_run_by_a_part_of_its_name(cli: Cli) -> None:
    answer = cli("show", "simclr")
    assert answer.code == 0
    for text in ("status", "temperature=0.1", "linear: top1", "knn_top1", "threads"):
        assert text in answer.out


@pytest.mark.usefixtures("finished")
def test_show_says_what_it_found_instead(cli: Cli) -> None:
    answer = cli("show", "byol")
    assert answer.code == 2
    assert "show byol: 0 runs in results match" in answer.err


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("format_name", "start"),
    [
        ("csv", "rank,pretext_task"),
        ("markdown", "| "),
        ("json", "["),
        ("latex", "% Linear top-1"),
        ("html", "<!DOCTYPE html>"),
    ],
)
def test_a_leaderboard_is_exported(cli: Cli, format_name: str, start: str) -> None:
    printed = cli("leaderboard", "--format", format_name)
    assert printed.code == 0
    assert printed.out.startswith(start)
    cli("leaderboard", "--format", format_name, "--output", "board")
    assert Path("board").read_text() == printed.out


@pytest.mark.usefixtures("finished")
def test_a_leaderboard_of_nothing_says_what_to_do(cli: Cli) -> None:
    for arguments in (["--results", "nowhere"], ["--suite", "nowhere"]):
        answer = cli("leaderboard", *arguments)
        assert answer.code == 2
        assert "no runs found. Run a suite first" in answer.err


@pytest.mark.usefixtures("finished")
def test_merged_results_verify(cli: Cli) -> None:
    answer = cli("merge", "results", "--results", "merged")
    assert answer.code == 0
    assert "copied: " in answer.out
    assert cli("merge", "results", "--results", "merged").out.count("duplicate: ") == 1
    assert cli("verify", "--results", "merged").code == 0


@pytest.mark.usefixtures("finished")
def test_verify_names_a_changed_prediction(cli: Cli) -> None:
    (path,) = Path("results/custom/runs").glob("*/evaluations/linear-*.npz")
    path.write_bytes(path.read_bytes() + b"x")
    answer = cli("verify")
    assert answer.code == 1
    assert path.name in answer.out
