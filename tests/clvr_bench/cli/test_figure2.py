from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clvr_bench.records_fake import write_seeds
from tests.conftest import Answer

Cli = Callable[..., Answer]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "tiny"
    for task, top1 in {"byol": 60.0, "simclr": 50.0, "swav": 40.0}.items():
        write_seeds(folder, [top1, top1 + 1], task=task)
    return folder


def test_without_runs_the_published_figure_is_shown_with_its_notes(cli: Cli) -> None:
    answer = cli("figure2")
    assert (answer.code, answer.err) == (0, "")
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["BYOL", "(4x)", "2020", "ResNet-50", "(4x)", "375", "78.6"] in lines
    assert "CPC v2: shares PIRL's marker." in answer.out
    assert "PIRL (2x): the figure draws it near 96M and 67.6." in answer.out
    assert "rho" not in answer.out


def test_runs_stand_beside_it_with_how_far_both_orders_agree(cli: Cli, suite: Path) -> None:
    answer = cli("figure2", "--results", suite.parent)
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["BYOL", "2020", "ResNet-50", "24", "74.3", "60.5", "±", "0.7", "2"] in lines
    assert ["InfoMin", "2020", "ResNet-50", "24", "73.0", "-", "-"] in lines
    assert "order of encoders of one width: Spearman's rho -0.50, n = 3." in answer.out


@pytest.mark.parametrize("name", ["f.png", "f.svg", "f.pdf", "f.PNG"])
def test_it_is_drawn_as_the_suffix_says(cli: Cli, suite: Path, tmp_path: Path, name: str) -> None:
    assert cli("figure2", "--results", suite, "--output", name, "--size", "one-column").code == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[name[-3:].lower()]
    assert (tmp_path / name).read_bytes().startswith(start)


def test_it_is_written_as_a_table_of_23_rows(cli: Cli, suite: Path, tmp_path: Path) -> None:
    assert cli("figure2", "--results", suite, "--output", "f.csv").code == 0
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert len(lines) == 24
    assert lines[2].startswith("SwAV,swav,2020,ResNet-50,24.0,75.3,40.50,0.71,2,CIFAR-10,")


def test_it_is_written_for_a_paper_and_a_page(cli: Cli, suite: Path, tmp_path: Path) -> None:
    answer = cli("figure2", "--results", suite, "--output", "f.tex")
    assert "Spearman's rho -0.50, n = 3." in answer.out
    latex = (tmp_path / "f.tex").read_text()
    assert r"BYOL & 2020 & ResNet-50 & 24 & 74.3 & \textbf{60.5~$\pm$~0.7} & 2 \\" in latex.splitlines()
    assert "rho -0.50, n = 3." in latex
    assert cli("figure2", "--output", "f.html").code == 0
    page = (tmp_path / "f.html").read_text()
    assert '<td>PIRL (2x)<sup title="the figure draws it near 96M and 67.6">a</sup></td>' in page
    assert "<p><sup>a</sup> the figure draws it near 96M and 67.6</p>" in page
    assert "rho" not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "f.gif"], "--output f.gif: expected a name that ends in .csv, .html, .pdf, .png, .svg or .tex."),
        (
            ["--suite", "tiny"],
            "figure2: --suite, --dataset and --epochs choose among runs. Name their folder with --results DIR.",
        ),
        (["--epochs", "0"], "Name their folder with --results DIR."),
        (["--results", "results", "--epochs", "7"], "figure2: no row of 7 epochs. There are rows of: 200."),
        (["--results", "nowhere"], "nowhere"),
        (["--results", "results", "--dataset", "x"], "figure2: no row of data set 'x'. There are: CIFAR-10."),
        (["--results", "results", "--suite", "other"], "other"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(cli: Cli, suite: Path, arguments: list[str], said: str) -> None:
    answer = cli("figure2", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not list(suite.parent.parent.glob("f.*"))
