from io import StringIO
from itertools import product

import pytest
from rich.console import Console

from clvr_bench.cli.pairs import terminal_table
from clvr_bench.pairwise import COLUMNS, pair_study, pair_table
from clvr_bench.tables import csv_text
from tests.clvr_bench.records_fake import write_seeds

NAMES = ("crop", "rotate", "gaussian_noise")


@pytest.fixture
def suite(tmp_path):
    """Three augmentations; noise before rotation was not run."""
    folder = tmp_path / "results" / "pairs"
    for number, (first, second) in enumerate(product(NAMES, repeat=2)):
        if (first, second) != ("gaussian_noise", "rotate"):
            chain = (first,) if first == second else (first, second)
            write_seeds(folder, [60.0 - 3 * number, 62.0 - 3 * number], chain=chain)
    write_seeds(folder, [12.0, 14.0], chain=("none",))
    return folder


def on_terminal(suite, width: int) -> str:
    console = Console(width=width, record=True, file=StringIO(), color_system=None)
    console.print(terminal_table(pair_study(suite), width))
    return console.export_text()


def test_pairs_are_shown_on_the_screen(cli, suite):
    answer = cli("pairs")
    assert (answer.code, answer.err) == (0, "")
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["crop", "61.0", "±", "1.4", "58.0", "±", "1.4", "55.0", "±", "1.4", "58.0"] in lines
    assert ["gaussian_noise", "43.0", "±", "1.4", "-", "37.0", "±", "1.4", "40.0"] in lines
    assert "simclr with resnet18_small on CIFAR-10" in answer.out
    assert "no augmentation (none): 13.0 ± 1.4" in " ".join(answer.out.split())


def test_narrow_terminals_lose_deviations_before_names(suite):
    assert "± 1.4  " in on_terminal(suite, 100)
    text = on_terminal(suite, 50)
    assert [line.split() for line in text.splitlines() if "rotate" in line][-1] == [
        "rotate",
        "52.0",
        "49.0",
        "46.0",
        "49.0",
    ]
    assert "Too narrow for the cells' standard deviations" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 50


def test_csv_is_that_of_the_study_whatever_it_is_written_over(cli, suite, tmp_path):
    (tmp_path / "table.csv").write_text("old")
    answer = cli("pairs", "--output", "table.csv")
    assert (answer.code, answer.out) == (0, "")
    assert (tmp_path / "table.csv").read_text() == csv_text(pair_table(pair_study(suite)), COLUMNS)


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("new/a.PDF", b"%PDF")])
def test_pictures_are_drawn_by_the_files_suffix(cli, suite, tmp_path, name, start):
    assert cli("pairs", "--results", suite, "--output", name).code == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_what_was_left_out_is_said(cli, suite):
    write_seeds(suite, [10.0, 11.0], chain=("crop", "crop"))
    assert "crop+crop left out: applied twice" in cli("pairs").out
    assert "crop+crop left out: applied twice" in cli("pairs", "--output", "a.csv").out


def test_flags_narrow(cli, suite):
    for task, accuracy in (("byol", 10.0), ("swav", 20.0)):
        write_seeds(suite, [accuracy], task=task, chain=("crop", "rotate"), encoder="a_net")
    assert "byol with a_net" in cli("pairs", "--suite", "pairs", "--pretext-task", "byol").out
    assert "simclr with" in cli("pairs", "--encoder", "resnet18_small", "--dataset", "CIFAR-10").out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--results", "nowhere"], "nowhere: no runs found."),
        (["--suite", "others"], "suite 'others' in results: no runs found."),
        (["--pretext-task", "simlcr"], "unknown pretext task 'simlcr'. Did you mean 'simclr'?"),
        (["--output", "a.jpg"], "--output a.jpg: expected a name that ends in .csv, .pdf, .png or .svg."),
        (["--output", "a"], "--output a: expected a name that ends in"),
        (["--output", "file/a.csv"], "--output file/a.csv: cannot be written (File exists)."),
        (["--output", "folder.png"], "--output folder.png: cannot be written (Is a directory)."),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(cli, suite, tmp_path, flags, said):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    answer = cli("pairs", *flags)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("clvr-bench: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_several_studies_are_a_mistake_too(cli, suite):
    write_seeds(suite, [10.0], task="byol", chain=("crop", "rotate"))
    answer = cli("pairs")
    assert answer.code == 2
    assert "more than one pretext task (byol, simclr). Choose one, such as --pretext-task byol." in answer.err


def test_a_suffix_is_refused_before_anything_is_read(cli):
    assert "expected a name" in cli("pairs", "--results", "nowhere", "--output", "a.jpg").err
