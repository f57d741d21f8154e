"""A table for a page or a paper: HTML and LaTeX. Knows cells and notes, not what they are about.

How both look is in ``table.html`` and ``table.tex`` beside this file; larger pages share ``cells.html`` and
``look.css``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

WIDEST = 20
"""Characters of a text that is never broken; longer ones are, at their spaces."""
_EM_PER_LETTER = 0.425
"""Room in a column of broken texts, just enough for TeX's own font: what does not fit takes another line."""
_FIGURE_SPACE, _NO_BREAK_SPACE = "\u2007", "\u00a0"
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "→": r"$\to$",
        "·": r"$\cdot$",
        _FIGURE_SPACE: r"\phantom{0}",
        _NO_BREAK_SPACE: "~",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)


@dataclass(frozen=True)
class Heading:
    """What stands above a column.

    Attributes:
        title: One line, or several.
        is_number: Whether the column is aligned to the right.
    """

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: As it is; renderers escape it.
        is_best: Whether it is printed bold.
        notes: What is said of it below the table. Cells that say the same share a letter.
    """

    text: str
    is_best: bool = False
    notes: tuple[str, ...] = ()

    @property
    def spaced(self) -> str:
        """The text with the spaces of a page: one before a number is as wide as a digit, none breaks at a ``±``."""
        text = self.text.lstrip(" ")
        missing = len(self.text) - len(text)
        return missing * _FIGURE_SPACE + text.replace(" ± ", f"{_NO_BREAK_SPACE}±{_NO_BREAK_SPACE}")


@dataclass(frozen=True)
class Sheet:
    """A table and what is said below it.

    Attributes:
        title: What the table is of.
        headings: One a column.
        rows: Each as many cells as there are headings.
        remarks: What is said of the whole table.
        omitted: Columns that had no room; told to who opens the LaTeX source.
        ends: The numbers of the rows, from 0, that a rule follows.
    """

    title: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]
    remarks: Sequence[str] = ()
    omitted: Sequence[str] = ()
    ends: frozenset[int] = frozenset()

    @cached_property
    def letters(self) -> Mapping[str, str]:
        """The letter of each note, in the order in which a reader meets them."""
        notes = dict.fromkeys(note for row in self.rows for cell in row for note in cell.notes)
        return dict(zip(notes, _letters(), strict=False))


def html_text(sheet: Sheet) -> str:
    """Write a page of its own, light or dark as the reader's system is; it loads nothing."""
    return _environment(autoescape=True).get_template("table.html").render(sheet=sheet)


def latex_text(sheet: Sheet) -> str:
    r"""Write a fragment for ``\input``, with notes below the table; it needs ``array`` and ``booktabs``."""
    environment = _environment(
        variable_start_string="<<",  # braces are LaTeX's
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
    )
    environment.filters["latex"] = latex_escaped
    sides = [_latex_side(heading, column) for heading, *column in zip(sheet.headings, *sheet.rows, strict=True)]
    return environment.get_template("table.tex").render(sheet=sheet, sides=sides)


def html_environment(folder: Path) -> Environment:
    """Return what renders HTML templates of another folder, which may use ``cells.html`` and ``look.css``."""
    return _environment(folder, autoescape=True)


def _environment(*folders: Path, **syntax: Any) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **syntax,
    )
    environment.filters["letter"] = lambda note, sheet: sheet.letters[note]
    return environment


def line_width(texts: Sequence[str]) -> int:
    """Return the letters of a column's longest line, with texts broken at spaces where they are longer than WIDEST."""
    return max([min(max(map(len, texts)), WIDEST), *(len(word) for text in texts for word in text.split())])


def _latex_side(heading: Heading, cells: Sequence[Cell]) -> str:
    texts = [cell.text for cell in cells]
    if heading.is_number:
        return "r"
    if max(map(len, texts)) <= line_width(texts):
        return "l"
    return rf">{{\raggedright\arraybackslash}}p{{{_EM_PER_LETTER * line_width(texts):g}em}}"


def latex_escaped(text: str) -> str:
    """Write a text in one line, with what LaTeX takes for commands escaped, and hyphens that it would join apart."""
    return re.sub("-(?=-)", "-{}", re.sub("[ \\t\\r\\n]+", " ", text).translate(_LATEX))


def _letters() -> Iterator[str]:
    """Yield marks without end: a to z, then aa, ab and so on."""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
