from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clvr_bench.matchups import COLUMNS, PICTURE_COLUMNS
from tests.clvr_bench.records_fake import write_seeds
from tests.conftest import Answer

Cli = Callable[..., Answer]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "tiny"
    for task, tops in {"byol": [60.0, 61.0], "simclr": [40.0, 41.0], "[red]swav": [50.0]}.items():
        write_seeds(folder, tops, task=task)
    return folder


@pytest.mark.usefixtures("suite")
def test_two_rows_are_shown_with_their_seeds_and_classes(cli: Cli) -> None:
    answer = cli("compare", "byol", "simclr")
    assert (answer.code, answer.err) == (0, "")
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["all", "1,000", "60.5", "40.5", "+20.0"] in [line[:5] for line in lines]
    assert ["seed", "1", "61.0", "41.0", "+20.0"] in [line[:5] for line in lines]
    assert sum(line[:1] == ["class"] for line in lines) == 5
    assert "byol - simclr: +20.00 points, 95% interval +" in answer.out
    assert "2 shared seeds (0, 1)." in answer.out
    assert "Adjusted to all pairs that the leaderboard ranks (Holm, 1): p = " in answer.out


@pytest.mark.usefixtures("suite")
def test_one_shared_seed_says_what_is_missing_and_names_are_shown_literally(cli: Cli) -> None:
    answer = cli("compare", "[red]swav", "simclr")
    assert "[red]swav - simclr: +10.00 points, of one shared seed (0): an interval and a test need two." in answer.out


def test_names_that_are_too_long_stand_in_the_title(cli: Cli, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_seeds(suite, [50.0, 51.0], encoder="an_encoder_of_many_layers", task="byol_v2")
    write_seeds(suite, [50.0, 51.0], encoder="another_encoder_of_many_layers", task="byol_v2")
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("compare", "byol_v2--an_", "byol_v2--another_").out.splitlines()
    assert [line.strip() for line in lines[1:3]] == [
        "first: byol_v2 (an_encoder_of_many_layers)",
        "second: byol_v2 (another_encoder_of_many_layers)",
    ]
    assert "first" in lines[5].split()
    assert max(map(len, lines[:-3])) <= 80
    assert "…" not in "".join(lines)


@pytest.mark.usefixtures("suite")
def test_it_is_written_as_csv_and_json(cli: Cli, tmp_path: Path) -> None:
    printed = cli("compare", "byol", "simclr", "--format", "csv")
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    assert (rows[0]["difference"], rows[1]["ci95"]) == ("20.00", "")
    assert cli("compare", "byol", "simclr", "--format", "json", "--output", "c.json").code == 0
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found[0]["difference"], found[1]["p_value"], found[1]["of"]) == (20.0, None, "0")


@pytest.mark.usefixtures("suite")
def test_a_file_is_written_as_its_name_says(cli: Cli, tmp_path: Path) -> None:
    assert cli("compare", "byol", "simclr", "--output", "c.json").code == 0
    assert json.loads((tmp_path / "c.json").read_text())[0]["difference"] == 20.0
    assert cli("compare", "byol", "simclr", "--output", "c.CSV").code == 0
    assert (tmp_path / "c.CSV").read_text().startswith("part,of,")
    assert cli("leaderboard", "--output", "t.md").code == 0
    assert (tmp_path / "t.md").read_text().startswith("| rank |")
    assert cli("leaderboard", "--output", "t.tex").code == 0
    assert "\\toprule" in (tmp_path / "t.tex").read_text()


@pytest.mark.usefixtures("suite")
def test_the_pictures_that_one_got_right_are_written(cli: Cli, tmp_path: Path) -> None:
    answer = cli("compare", "byol", "simclr", "--pictures", "p.csv")
    assert "Written: p.csv" in answer.out
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert list(rows[0]) == list(PICTURE_COLUMNS)
    whole = cli("compare", "byol", "simclr", "--format", "json")
    (counts, *_) = json.loads(whole.out)
    ahead = [int(row["first_right"]) - int(row["second_right"]) for row in rows]
    assert sum(ahead) / int(rows[0]["seeds"]) == counts["first_only"] - counts["second_only"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["byol", "simlcr"], "unknown row 'simlcr'. Did you mean 'simclr'?"),
        (["byol", "byol"], "are the same row"),
        (["byol", "simclr", "--output", "c.txt"], "--output c.txt: expected a name that ends in .csv or .json."),
        (
            ["byol", "simclr", "--format", "table", "--output", "c.csv"],
            "--format table is for the screen; for a file: csv, json.",
        ),
        (["byol", "simclr", "--pictures", "c.txt"], "--pictures c.txt: expected a name that ends in .csv."),
        (["byol", "simclr", "--format", "csv", "--output", "no/../results"], "--output"),
        (["byol", "simclr", "--suite", "other"], "no runs found"),
    ],
)
@pytest.mark.usefixtures("suite")
def test_bad_input_gets_one_line_and_exit_code_2(cli: Cli, arguments: list[str], said: str) -> None:
    answer = cli("compare", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1
