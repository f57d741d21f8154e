"""The leaderboard as text: CSV, Markdown, JSON, LaTeX, HTML, for the terminal. Numbers come from ``leaderboard``."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clvr_bench.budgets import epochs_said
from clvr_bench.errors import ClvrBenchError
from clvr_bench.files import write_atomically
from clvr_bench.standings import COLUMNS, COUNT, TEXT, leaderboard
from clvr_bench.typesetting import Cell, Heading, Sheet, html_text, latex_text, line_width

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Row = Mapping[str, Any]

FURTHER_DECIMALS = 4
"""Of metrics that evaluations other than the built-in ones add."""
NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
FURTHER_TOP1 = re.compile(r"(.+)(?<!_val)_top1(_\w+)?_mean")
"""A column of top-1 that an evaluation adds: its label, and which part of the labels or the like it is about."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet would run (OWASP, CSV injection)."""
NOTHING = "-"
LATEX_WIDTH, HTML_WIDTH = 80, 200
"""Characters of a row, the space between columns among them: what LaTeX's article class has room for, and a screen."""
COLUMN_SPACE = 2
NAMES = ("suite", "pretext task", "encoder", "augmentation", "dataset", "epochs")
"""Columns that say what a row is of."""
RANKED_BY = ("suite", "dataset", "evaluation", "epochs")
"""Columns in which rows that are ranked together do not differ."""
BOLD = "Bold: the best top-1 of rows that are ranked together."
SAID_BELOW = ("labels", "status")
"""Columns that are notes in a sheet, where there is anything to say."""


def render(frame: pd.DataFrame, format: str) -> str:  # noqa: A002 - the word that the command line uses
    """Write a leaderboard as text that ends in a line feed; the same frame always gives the same bytes.

    Args:
        frame: From ``leaderboard``.
        format: ``"csv"`` and ``"json"`` have every column; ``"markdown"``, ``"html"`` and ``"latex"`` have the
            notes, and the columns that fit a page.

    Raises:
        ClvrBenchError: The format is none of these.
    """
    renderers: dict[str, Callable[[pd.DataFrame], str]] = {
        "csv": csv_text,
        "html": lambda frame: html_text(sheet(frame, HTML_WIDTH)),
        "json": json_text,
        "latex": lambda frame: latex_text(sheet(frame, LATEX_WIDTH)),
        "markdown": _markdown,
    }
    if format not in renderers:
        raise ClvrBenchError(f"unknown table format '{format}'. Available: {', '.join(sorted(renderers))}.")
    return renderers[format](frame)


def write_leaderboard(suite_folder: Path, on_damaged: Callable[[str], None] | None = None) -> Path:
    """Derive RESULTS/SUITE/leaderboard.csv from the records beside it and write it atomically; return its path.

    Args:
        suite_folder: The folder of one suite.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.

    Raises:
        ClvrBenchError: The folder has no runs, or a record cannot be read and nobody is told.
    """
    path = suite_folder / "leaderboard.csv"
    write_atomically(path, render(leaderboard(suite_folder, on_damaged=on_damaged), "csv").encode())
    return path


def notes(frame: pd.DataFrame) -> list[str]:
    """Return what rows have to say, a line a note, each with the rows that say it."""
    said: dict[str, list[str]] = {}
    rows = _rows(frame)
    for row in rows:
        for note in filter(None, row["note"].split("; ")):
            said.setdefault(note, []).append(_label(row, rows))
    return [f"{', '.join(about)}: {note}" for note, about in said.items()]


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as plain Python values, None where there is none."""
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def _label(row: Row, rows: Sequence[Row]) -> str:
    """Name a row: its pretext task, and whatever else tells it from the rows of the same one."""
    alike = [other for other in rows if other["pretext_task"] == row["pretext_task"]]
    columns = ["encoder", "augmentation", "dataset", "suite", "epochs", "batch_size"]
    if len({other["options"] for other in alike if all(other[column] == row[column] for column in columns)}) > 1:
        columns.insert(3, "options")
    differing = [column for column in columns if row[column] and len({other[column] for other in alike}) > 1]
    said: dict[str, Callable[[int], str]] = {"epochs": epochs_said, "batch_size": "batch {}".format}
    parts = [said[column](row[column]) if column in said else row[column] for column in differing]
    return " ".join([row["pretext_task"], *(["(" + ", ".join(parts) + ")"] if parts else [])])


def _decimals(column: str, columns: Mapping[str, str | int] = COLUMNS) -> str | int:
    return columns.get(column, FURTHER_DECIMALS)


def csv_text(frame: pd.DataFrame, columns: Mapping[str, str | int] = COLUMNS) -> str:
    """Write a table as CSV, its lines ending in line feeds; the same frame always gives the same bytes.

    Args:
        frame: One row a line.
        columns: What each column holds: text, a count, or how many decimals are printed.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = {str(column): _decimals(str(column), columns) for column in frame.columns}
    writer.writerow(kinds)
    writer.writerows([_csv_cell(value, kinds[column]) for column, value in row.items()] for row in _rows(frame))
    return text.getvalue()


def _csv_cell(value: Any, kind: str | int) -> str:
    if value is None:
        return ""
    if kind == TEXT:
        return f"'{value}" if value.startswith(FORMULA) else str(value)
    return str(value) if kind == COUNT else _fixed(value, int(kind))


def _fixed(value: float, decimals: int) -> str:
    """Print a number with fixed decimals, and zero without a sign."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def json_text(frame: pd.DataFrame, columns: Mapping[str, str | int] = COLUMNS) -> str:
    """Write a table as a JSON list of objects, one a row, with null for nothing and numbers as in the CSV.

    Args:
        frame: One row an object.
        columns: What each column holds: text, a count, or how many decimals are kept.
    """
    kinds = {str(column): _decimals(str(column), columns) for column in frame.columns}
    rows = [{column: _json_value(value, kinds[column]) for column, value in row.items()} for row in _rows(frame)]
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json_value(value: Any, kind: str | int) -> Any:
    return float(_fixed(value, int(kind))) if isinstance(kind, int) and value is not None else value


@dataclass(frozen=True)
class Column:
    """A column of the compact table.

    Attributes:
        title: Its heading, broken where a terminal may break it.
        show: How a row's cell is written.
        is_number: Whether it is aligned to the right.
        keep: Narrow terminals and pages drop the columns with the lowest of these first; those without are never
            dropped, nor by pages those that alone tell two rows apart.
    """

    title: str
    show: Callable[[Row], str]
    is_number: bool = True
    keep: int | None = None


def _number(name: str, decimals: int) -> Callable[[Row], str]:
    return lambda row: NOTHING if row[name] is None else _fixed(row[name], decimals)


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: NOTHING if row[name] is None else str(row[name])


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: row[name] or NOTHING


def _top1(row: Row) -> str:
    return NOTHING if row["top1_mean"] is None else top1_text(row["top1_mean"], row["top1_std"])


def top1_text(mean: float, std: float | None) -> str:
    """Write mean and standard deviation, such as ``69.2 ± 0.4``; the mean alone for a single seed."""
    return f"{_fixed(mean, 1):>4}" + (f" ± {_fixed(std, 1)}" if std is not None else "")


def _passes(row: Row) -> str:
    """Shorten the pictures encoded to two digits or more: 950, 12k, 1.2M, 3.1B."""
    value = row["encoder_passes"]
    if value is None:
        return NOTHING
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            scaled = value / unit
            return f"{scaled:.{1 if scaled < 9.95 else 0}f}{suffix}"
    return str(value)


COMPACT = (
    Column("suite", _text("suite"), is_number=False, keep=9),
    Column("rank", _count("rank")),
    Column("pretext task", _text("title"), is_number=False),
    Column("encoder", _text("encoder"), is_number=False, keep=10),
    Column("params\nM", _number("params_m", 1), keep=3),
    Column("augmentation", _text("augmentation"), is_number=False, keep=5),
    Column("dataset", _text("dataset"), is_number=False, keep=9),
    Column("epochs", _count("epochs"), keep=6),
    Column("top-1 %\n± std", _top1, is_number=False),
    Column("top-5\n%", _number("top5_mean", 1), keep=7),
    Column("k-NN\n%", _number("knn_top1_mean", 1), keep=8),
    Column("seeds", _count("seeds"), keep=9),
    Column("labels", _text("uses_labels"), is_number=False, keep=9),
    Column("encoder\npasses", _passes, keep=5),
    Column("seconds", _number("seconds_mean", 0), keep=4),
    Column("img/s", _number("images_per_second_mean", 0), keep=2),
    Column("peak\nMB", _number("peak_memory_mb", 0), keep=1),
    Column("options\nfrom", _text("options_source"), is_number=False, keep=0),
    Column("status", lambda row: row["status"].replace(", ", ",\n"), is_number=False, keep=10),
)


def _shown_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with a title: the pretext task, with options and batch where other rows look the same without."""
    rows = _rows(frame)
    looks = [
        tuple(row[name] for name in ("suite", "pretext_task", "encoder", "augmentation", "dataset", "epochs"))
        for row in rows
    ]
    for row, look in zip(rows, looks, strict=True):
        alike = [other for other, its in zip(rows, looks, strict=True) if its == look]
        batch = f"batch {row['batch_size']}" if len({other["batch_size"] for other in alike}) > 1 else ""
        said = "; ".join(filter(None, [own_options(row["options"], [other["options"] for other in alike]), batch]))
        row["title"] = row["pretext_task"] + (f"\n({said})" if said else "")
    return rows


def own_options(options: str, alike: Sequence[str]) -> str:
    """Return those of a row's options that not all rows that look alike have, itself among these; see ``COLUMNS``."""
    shared = set.intersection(*(set(text.split("; ")) for text in alike))
    return "; ".join(option for option in options.split("; ") if option not in shared)


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns of the compact table: the suite only where there are several, and top-1 of any evaluation.

    Epochs are never dropped where ranked rows differ in them, as only those that do not are ranked together.
    """
    several = len({row["suite"] for row in rows}) > 1
    contests = {row["epochs"] for row in rows if row["rank"] is not None}
    place = 1 + next(i for i, column in enumerate(COMPACT) if column.title.startswith("k-NN"))
    columns = [*COMPACT[:place], *_further(rows), *COMPACT[place:]]
    columns = [replace(c, keep=None) if c.title == "epochs" and len(contests) > 1 else c for c in columns]
    return [column for column in columns if several or column.title != "suite"]


def _further(rows: Sequence[Row]) -> list[Column]:
    """Return a column for each top-1 that evaluations other than the built-in columns' give."""
    names = [name for name in (rows[0] if rows else ()) if name not in COLUMNS]
    found = {match.groups(""): name for name in names if (match := FURTHER_TOP1.fullmatch(name))}
    ordered = sorted(found, key=lambda part: [_by_number(text) for text in part])
    return [Column(_title(*parts), _number(found[parts], 1), keep=7) for parts in ordered]


def _by_number(text: str) -> list[tuple[float, str]]:
    """Return what sorts texts so that numbers in them come by their size: 1pct before 10pct."""
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(NUMBER.split(text))]


def _title(label: str, share: str) -> str:
    """Write a heading such as ``finetune [fraction=0.01] %``, in lines."""
    return "\n".join([label.replace("[", "\n["), *filter(None, [share.strip("_")]), "%"])


def _markdown(frame: pd.DataFrame) -> str:
    rows = _shown_rows(frame)
    columns = _columns(rows)
    cells = [[_markdown_text(column.title) for column in columns]]
    cells += [[_markdown_text(column.show(row)) for column in columns] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    sides = [">" if column.is_number else "<" for column in columns]
    rule = ["-" * (width - 1) + (":" if side == ">" else "-") for width, side in zip(widths, sides, strict=True)]
    padded = [[f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)] for row in cells]
    table = [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]
    remarks = [f"- {_markdown_text(note)}" for note in notes(frame)]
    return "\n".join([*table, *(["", *remarks] if remarks else [])]) + "\n"


def _markdown_text(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def sheet(frame: pd.DataFrame, width: int) -> Sheet:
    """Lay the compact table out for a page: what is the same in every row is said below it, as are notes on rows.

    Labels that pretraining used, failures and whatever else a row's note holds are marked at its pretext task. Bold is
    the best top-1, as printed, of the rows that are ranked together, and whatever equals it.

    Args:
        frame: From ``leaderboard``.
        width: Characters of a row. Where it is longer, the least important columns are omitted, but none that alone
            tells two rows apart.
    """
    rows = _shown_rows(frame)
    wanted = [column for column in _columns(rows) if column.title not in SAID_BELOW]
    columns, shared, omitted = _narrowed(wanted, rows, lambda kept: _fits_page(kept, rows, width), distinct=True)
    best = _best(rows)
    return Sheet(
        title=f"Linear top-1 of {', '.join(dict.fromkeys(row['suite'] for row in rows))}",
        headings=[Heading(column.title, column.is_number) for column in columns],
        rows=[[_sheet_cell(column, row, i in best) for column in columns] for i, row in enumerate(rows)],
        remarks=[*filter(None, [" · ".join(shared)]), *([BOLD] if best else [])],
        omitted=omitted,
        ends=frozenset(i for i, (row, following) in enumerate(pairwise(rows)) if _begins_part(row, following)),
    )


def _fits_page(columns: Sequence[Column], rows: Sequence[Row], width: int) -> bool:
    if len(rows) > 1 and any(column.keep is not None and _is_constant(column, rows) for column in columns):
        return False
    texts = [[*column.title.split("\n"), *(column.show(row) for row in rows)] for column in columns]
    return sum(map(line_width, texts)) + COLUMN_SPACE * (len(columns) - 1) <= width


def _sheet_cell(column: Column, row: Row, is_best: bool) -> Cell:
    said = tuple(_said_below(row)) if column.title == "pretext task" else ()
    return Cell(column.show(row), is_best and column.show is _top1, said)


def _said_below(row: Row) -> Iterator[str]:
    """Yield what a sheet marks at a row."""
    said = [note for note in row["note"].split("; ") if note]
    yield from labels_note(row["uses_labels"])
    if row["status"] != "done" and not any(note.startswith(row["status"]) for note in said):
        yield row["status"]
    yield from said


def labels_note(used: str) -> list[str]:
    """Say in a note which labels pretraining used, where it used any."""
    return [] if used == "no" else [f"pretrained with labels ({used})"]


def _best(rows: Sequence[Row]) -> set[int]:
    """Return the numbers of the rows whose printed top-1 is the best of the ranked ones they are measured with."""
    scores: dict[tuple[Any, ...], dict[int, float]] = {}
    for i, row in enumerate(rows):
        if row["rank"] is not None:
            scope = scores.setdefault(tuple(row[name] for name in RANKED_BY), {})
            scope[i] = float(_fixed(row["top1_mean"], 1))
    return {i for scope in scores.values() for i, score in scope.items() if score == max(scope.values())}


def rich_table(frame: pd.DataFrame, width: int | None = None) -> Table:
    """Lay out the compact table for a terminal; ``notes`` belong below it.

    Where it is too wide, columns that say the same in every row move into the title, then the least important go, and
    last those that alone tell two rows apart; the caption names them.

    Args:
        frame: From ``leaderboard``.
        width: Columns of the terminal; those of the present one where None.
    """
    from rich.text import Text

    rows = _shown_rows(frame)
    width = width or shutil.get_terminal_size((140, 24)).columns
    columns, title, dropped = _narrowed(_columns(rows), rows, lambda kept: fits(_layout(rows, kept), width))
    table = _layout(rows, columns)
    # Texts, not strings, here and in the cells: names, options and errors may hold what rich would take for markup.
    if title:
        table.title = Text(" · ".join(title), "table.title")
    if dropped:
        table.caption = Text(f"Too narrow for: {', '.join(dropped)}. The CSV has every column.", "table.caption")
    return table


def _narrowed(
    columns: Sequence[Column],
    rows: Sequence[Row],
    do_fit: Callable[[Sequence[Column]], bool],
    *,
    distinct: bool = False,
) -> tuple[list[Column], list[str], list[str]]:
    """Leave out columns until the others fit: first those that say the same in every row, then the least important.

    Columns that alone tell two rows apart are last.

    Args:
        columns: All of them.
        rows: The table's.
        do_fit: Whether columns fit.
        distinct: Whether to keep those columns that alone tell two rows apart.

    Returns:
        The columns that are kept, what those with the same in every row say, and the titles of those that are lost.
    """
    kept, shared, lost = list(columns), [], []
    while not do_fit(kept) and (leaving := _least_important(kept, rows, distinct=distinct)):
        kept.remove(leaving)
        if _is_constant(leaving, rows):
            shared.append(f"{_one_line(leaving.title)} {_one_line(leaving.show(rows[0]))}")
        else:
            lost.append(_one_line(leaving.title))
    return kept, shared, lost


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def _is_constant(column: Column, rows: Sequence[Row]) -> bool:
    return len({column.show(row) for row in rows}) == 1


def _least_important(columns: Sequence[Column], rows: Sequence[Row], *, distinct: bool) -> Column | None:
    """Return the column to drop next, one that loses nothing first; None where all are needed."""
    found = [
        (_tells_apart(column, columns, rows), not _is_constant(column, rows), column.keep, i)
        for i, column in enumerate(columns)
        if column.keep is not None
    ]
    first = min(found, default=None)
    return None if first is None or (distinct and first[0]) else columns[first[-1]]


def _tells_apart(column: Column, columns: Sequence[Column], rows: Sequence[Row]) -> bool:
    """Whether rows would look the same without a column, of those that say what a row is of."""
    names = [other for other in columns if other.title in NAMES]
    others = [other for other in names if other is not column]
    with_it, without = ({tuple(name.show(row) for name in kept) for row in rows} for kept in (names, others))
    return len(without) < len(with_it)


def fits(table: Table, width: int) -> bool:
    """Whether a table is at most so many columns of a terminal wide, with no cell broken or cut."""
    from rich.console import Console

    return Console(width=10_000).measure(table).maximum <= width


def _begins_part(row: Row, following: Row) -> bool:
    return any(row[name] != following[name] for name in ("suite", "dataset"))


def _layout(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(Text(column.title), justify="right" if column.is_number else "left", vertical="top")
    for row, following in zip_longest(rows, rows[1:]):
        ends = following is not None and _begins_part(row, following)
        style = {"failed": "red", "skipped": "dim"}.get(row["status"])
        table.add_row(*(Text(column.show(row)) for column in columns), style=style, end_section=ends)
    return table
