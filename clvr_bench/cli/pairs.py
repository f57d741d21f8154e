"""The command that shows the study of pairs of augmentations: on the screen, as a picture, as CSV. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clvr_bench.cli.tables import check_format, write_output
from clvr_bench.pairwise import COLUMNS, Score, Study, pair_table, shown
from clvr_bench.tables import NOTHING, csv_text, fits


def show_pairs(study: Study, output: Path | None = None) -> None:
    """Print a study as a table, or write it to a file as its suffix says; and print what was left out.

    Raises:
        ClvrBenchError: The file cannot be written, or its suffix is none of ``FORMATS``.
    """
    check_format(output)
    console = Console()
    if output is None:
        console.print(terminal_table(study, console.width))
    else:
        write_output(output, _content(study, output.suffix.lower()))
    for remark in study.remarks:
        console.print(remark, markup=False, highlight=False, style="dim", soft_wrap=True)


def _content(study: Study, suffix: str) -> bytes:
    if suffix == ".csv":
        return csv_text(pair_table(study), COLUMNS).encode()
    from clvr_bench.heatmaps import picture  # matplotlib is imported by who draws

    return picture(study, suffix.removeprefix("."))


def terminal_table(study: Study, width: int) -> Table:
    """Lay a study out for a terminal: first augmentations downwards, second ones to the right, then the average.

    Args:
        study: From ``pair_study``.
        width: Columns of the terminal. Where they are too few, standard deviations are left out, then names broken.
    """
    layouts = ((True, False), (False, False), (False, True))
    tables = [_layout(study, with_spread=spread, break_names=breaks) for spread, breaks in layouts]
    return next((table for table in tables if fits(table, width)), tables[-1])


def _layout(study: Study, *, with_spread: bool, break_names: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    table.title, table.caption = Text(str(study.subject)), Text(_caption(study, with_spread))
    table.add_column(Text("first \\ second"), overflow="fold")
    for name in [*study.names, "average"]:
        table.add_column(Text(_broken(name)), justify="right")
    for first, average in zip(study.names, study.averages, strict=True):
        cells = [_cell(study.cell(first, second), with_spread) for second in study.names]
        cells.append(NOTHING if average is None else f"{average:.1f}")
        table.add_row(*map(Text, [_broken(first) if break_names else first, *cells]))
    return table


def _broken(name: str) -> str:
    return name.replace("_", "_\n")


def _caption(study: Study, with_spread: bool) -> str:
    dropped = any(score and score.std is not None for score in study.scores.values()) and not with_spread
    narrow = ["Too narrow for the cells' standard deviations; the CSV has them."] if dropped else []
    return " ".join(["Top-1 in percent;", *study.sentences, *narrow])


def _cell(score: Score | None, with_spread: bool) -> str:
    if score is None:
        return NOTHING
    return shown(score) if with_spread else f"{score.mean:.1f}"
