import csv
import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from clvr_bench.errors import ClvrBenchError
from clvr_bench.standings import COLUMNS, leaderboard
from clvr_bench.tables import BOLD, HTML_WIDTH, LATEX_WIDTH, notes, render, rich_table, sheet, write_leaderboard
from tests.clvr_bench.records_fake import FakeRun, correctness, write_realistic, write_seeds


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny"


@pytest.fixture(scope="module")
def realistic_suite(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "tiny"
    write_realistic(folder)
    return folder


@pytest.fixture(scope="module")
def realistic(realistic_suite):
    return leaderboard(realistic_suite)


def csv_rows(frame):
    return list(csv.DictReader(StringIO(render(frame, "csv"))))


def on_terminal(frame, width: int) -> str:
    console = Console(width=width, record=True, file=StringIO(), color_system=None)
    console.print(rich_table(frame, width))
    return console.export_text()


def test_csv_has_two_decimals_for_accuracies_and_empty_cells_for_nothing(suite):
    write_seeds(suite, [60.0, 61.5])
    FakeRun(task="dino", status="failed").write(suite)
    done, failed = csv_rows(leaderboard(suite))
    assert (done["rank"], done["top1_mean"], done["top1_std"], done["params_m"]) == ("1", "60.75", "1.06", "11.20")
    assert (done["uniformity_mean"], done["encoder_passes"], done["seeds"]) == ("-2.5000", "1200000", "2")
    assert (failed["rank"], failed["top1_mean"], failed["seconds_mean"]) == ("", "", "")


def test_csv_has_every_column_in_order_and_unix_line_ends(realistic):
    text = render(realistic, "csv")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert "\r" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_cells_that_a_spreadsheet_would_run_are_neutralized(suite, start):
    write_seeds(suite, [60.0], task=f"{start}HYPERLINK()")
    assert csv_rows(leaderboard(suite))[0]["pretext_task"] == f"'{start}HYPERLINK()"


def test_tables_are_the_same_bytes_when_derived_again(realistic_suite, realistic):
    for kind in ("csv", "html", "json", "latex", "markdown"):
        assert render(leaderboard(realistic_suite), kind) == render(realistic, kind)


def test_written_leaderboard_lies_beside_the_runs_and_equals_the_csv(realistic_suite, realistic):
    path = write_leaderboard(realistic_suite)
    assert path == realistic_suite / "leaderboard.csv"
    assert path.read_bytes() == render(realistic, "csv").encode()


def test_json_has_null_for_nothing_and_numbers_as_in_the_csv(suite):
    write_seeds(suite, [60.0, 61.5])
    FakeRun(task="dino", status="failed").write(suite)
    done, failed = json.loads(render(leaderboard(suite), "json"))
    assert list(done) == list(COLUMNS)
    assert (done["rank"], done["top1_std"], done["status"]) == (1, 1.06, "done")
    assert (failed["rank"], failed["top1_mean"], failed["seeds"]) == (None, None, 0)


def test_unknown_format_names_those_there_are(realistic):
    with pytest.raises(
        ClvrBenchError, match=r"unknown table format 'pdf'\. Available: csv, html, json, latex, markdown"
    ):
        render(realistic, "pdf")


def test_markdown_lines_up_and_has_notes_below(realistic):
    table, remarks = render(realistic, "markdown").split("\n\n")
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(realistic)
    assert "| 66.0 ± 0.5 " in table
    assert "- simsiam: 1 of 3 seeds collapsed" in remarks.splitlines()


def test_markdown_escapes_pipes_and_tags(suite):
    write_seeds(suite, [60.0], task="a|b<script>")
    line = render(leaderboard(suite), "markdown").splitlines()[2]
    assert r"a\|b&lt;script>" in line
    assert line.replace(r"\|", "").count("|") == render(leaderboard(suite), "markdown").splitlines()[0].count("|")


def test_markdown_without_notes_is_the_table_alone(suite):
    write_seeds(suite, [60.0])
    assert len(render(leaderboard(suite), "markdown").splitlines()) == 3


def cells(frame, title: str, width: int = HTML_WIDTH):
    """Return the cells of a sheet's column."""
    laid_out = sheet(frame, width)
    column = [heading.title for heading in laid_out.headings].index(title)
    return [row[column] for row in laid_out.rows]


def bold(frame) -> list[str]:
    return [cell.text for cell in cells(frame, "top-1 %\n± std") if cell.is_best]


def test_the_best_ranked_rows_are_bold_and_so_are_ties_as_printed(suite):
    write_seeds(suite, [60.0, 62.0], task="byol")
    write_seeds(suite, [59.5, 62.4], task="simclr")
    write_seeds(suite, [59.9, 61.9], task="swav")
    write_seeds(suite, [90.0, 91.0], task="supervised", facts={"ranked": False})
    assert bold(leaderboard(suite)) == ["61.0 ± 1.4", "61.0 ± 2.1"]
    assert BOLD in sheet(leaderboard(suite), HTML_WIDTH).remarks


def test_each_data_set_has_its_best(suite):
    write_seeds(suite, [60.0, 62.0])
    write_seeds(suite, [30.0, 32.0], dataset="Shapes", fingerprint="beef")
    assert bold(leaderboard(suite)) == ["61.0 ± 1.4", "31.0 ± 1.4"]
    assert sheet(leaderboard(suite), HTML_WIDTH).ends == {0}


def test_nothing_is_bold_where_nothing_is_ranked(suite):
    write_seeds(suite, [60.0])
    write_seeds(suite, [50.0], task="byol")
    assert bold(leaderboard(suite)) == []
    assert BOLD not in sheet(leaderboard(suite), HTML_WIDTH).remarks


def test_labels_failures_and_notes_are_marked_at_the_pretext_task(realistic):
    marked = {cell.text: cell.notes for cell in cells(realistic, "pretext task")}
    assert marked["supervised"] == ("pretrained with labels (fine)",)
    assert marked["simsiam"] == ("1 of 3 seeds collapsed",)
    assert marked["dino"] == ("failed: CUDA out of memory",)
    assert marked["vicreg"][0] == "2 of 3 done, 1 failed"
    assert "failed: the loss was NaN at step 120 (seed 2)" in marked["vicreg"]
    assert marked["byol"] == ()


def test_what_all_rows_share_is_said_once_below(realistic):
    laid_out = sheet(realistic, HTML_WIDTH)
    assert "dataset" not in [heading.title for heading in laid_out.headings]
    assert any("dataset CIFAR-10" in remark for remark in laid_out.remarks)


def test_a_single_row_keeps_its_columns(suite):
    write_seeds(suite, [60.0])
    assert "encoder" in [heading.title for heading in sheet(leaderboard(suite), HTML_WIDTH).headings]


def test_a_page_of_paper_omits_the_least_important_columns_and_names_them(realistic):
    laid_out = sheet(realistic, LATEX_WIDTH)
    assert laid_out.omitted[:3] == ["options from", "peak MB", "img/s"]
    assert {"rank", "pretext task", "top-1 %\n± std"} <= {heading.title for heading in laid_out.headings}
    assert len(laid_out.headings) < len(sheet(realistic, HTML_WIDTH).headings)


def test_a_column_that_tells_rows_apart_is_never_omitted_from_a_page(suite):
    for name in ("crop", "a_very_long_augmentation_of_many_words", "rotate"):
        write_seeds(suite, [60.0, 61.0], chain=(name,))
    write_seeds(suite, [50.0], task="byol", chain=("an_augmentation",))
    assert "augmentation" in [heading.title for heading in sheet(leaderboard(suite), width=40).headings]


def test_a_column_of_names_is_omitted_where_the_others_tell_rows_apart(suite):
    write_seeds(suite, [60.0, 61.0], chain=("crop",))
    write_seeds(suite, [50.0], task="byol", chain=("rotate",))
    assert "augmentation" in sheet(leaderboard(suite), width=40).omitted


def test_epochs_tell_rows_apart_and_are_the_last_to_leave(suite):
    for epochs in (10, 40):
        said = [f"seen at {epochs}"]
        write_seeds(suite, [60.0], budget={"epochs": epochs, "batch_size": 128}, knn=30.0 + epochs, notes=said)
    frame = leaderboard(suite)
    narrow = on_terminal(frame, 38)
    assert "k-NN %" in narrow.split("Too narrow for:")[1]
    assert all(re.search(rf"simclr +{epochs} +60.0", narrow) for epochs in (10, 40))
    assert notes(frame) == ["simclr (10 epochs): linear: seen at 10", "simclr (40 epochs): linear: seen at 40"]


def test_epochs_stay_where_they_decide_who_is_ranked_together(suite):
    for task, epochs in (("simclr", 30), ("byol", 200)):  # told apart without them
        write_seeds(suite, [60.0, 61.0], task=task, budget={"epochs": epochs, "batch_size": 128})
    narrow = on_terminal(leaderboard(suite), 45)
    assert "epochs" in narrow.split("Too narrow for:")[0]
    assert all(re.search(rf"1 +{task} +{epochs} ", narrow) for task, epochs in (("simclr", 30), ("byol", 200)))


def test_each_budget_has_its_best(suite):
    for epochs, accuracy in ((10, 60.0), (40, 80.0)):
        write_seeds(suite, [accuracy, accuracy + 1], budget={"epochs": epochs, "batch_size": 128})
    assert bold(leaderboard(suite)) == ["80.5 ± 0.7", "60.5 ± 0.7"]


def test_suite_is_a_column_only_where_there_are_several(tmp_path):
    write_seeds(tmp_path / "first", [60.0])
    assert "suite" not in render(leaderboard(tmp_path), "markdown")
    write_seeds(tmp_path / "second", [60.0])
    assert "suite" in render(leaderboard(tmp_path), "markdown")


def test_options_are_shown_where_rows_look_the_same_without(realistic):
    text = render(realistic, "markdown")
    assert "| simclr (temperature=0.2) " in text
    assert "| moco_v2 " in text


def test_options_that_all_alike_have_are_left_out(suite):
    for temperature in (0.1, 0.2):
        options = {"queue_size": 64, "temperature": temperature}
        write_seeds(suite, [60.0], options=options, facts={"options_shown": options})
    text = render(leaderboard(suite), "markdown")
    assert "| simclr (temperature=0.1) " in text
    assert "| simclr (temperature=0.2) " in text


def test_options_are_left_out_where_nothing_is_mistaken_without(suite):
    write_seeds(suite, [60.0], facts={"options_shown": {"temperature": 0.2}})
    write_seeds(suite, [50.0], task="byol")
    assert "temperature" not in render(leaderboard(suite), "markdown")


def test_same_note_of_several_rows_is_one_line(suite):
    write_seeds(suite, [60.0], notes=["edge"])
    write_seeds(suite, [50.0], task="byol", notes=["edge"])
    assert notes(leaderboard(suite)) == ["simclr, byol: linear: edge"]


def test_note_names_what_tells_rows_of_a_task_apart(suite):
    write_seeds(suite, [60.0], notes=["edge"])
    write_seeds(suite, [50.0], encoder="vgg16", dataset="Shapes")
    assert notes(leaderboard(suite)) == ["simclr (resnet18_small, CIFAR-10): linear: edge"]


@pytest.mark.parametrize("width", [100, 140, 200])
def test_terminal_table_fits_and_breaks_no_name(realistic, width):
    lines = on_terminal(realistic, width).splitlines()
    assert max(map(len, lines)) <= width
    for name in realistic["pretext_task"]:
        assert any(name in line.split() for line in lines)


def test_terminal_table_names_the_columns_it_has_no_room_for(realistic):
    assert "Too narrow for: options from, peak MB" in on_terminal(realistic, 140)
    assert "Too narrow" not in on_terminal(realistic, 200)


def test_terminal_table_moves_what_all_rows_share_into_the_title(realistic):
    assert on_terminal(realistic, 140).splitlines()[0].strip() == "dataset CIFAR-10"


def test_terminal_table_shows_names_literally(suite):
    write_seeds(suite, [60.0], task="[red]simclr[/red]")
    assert "[red]simclr[/red]" in on_terminal(leaderboard(suite), 160)


@pytest.mark.parametrize(
    ("passes", "shown"), [(950, "950"), (12_345, "12k"), (999_700, "1.0M"), (3_100_000_000, "3.1B")]
)
def test_encoder_passes_are_shortened(suite, passes, shown):
    FakeRun(right=correctness(60.0), compute={"encoder_passes": passes}).write(suite)
    assert f" {shown} " in render(leaderboard(suite), "markdown")
