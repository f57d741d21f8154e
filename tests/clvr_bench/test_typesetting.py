from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clvr_bench.typesetting import Cell, Heading, Sheet, html_text, latex_escaped, latex_text

NASTY = r"a_b%c&d#e{f}g~h^i\j$k<l>m|n→p·q"
"""What a plugin may be called, of letters that LaTeX or HTML takes for something else."""


def sheet(*rows: list[Cell], **fields: object) -> Sheet:
    headings = [Heading("task"), Heading("params\nM", is_number=True)]
    return Sheet("A & B", headings, rows or [[Cell("one"), Cell("1.0")]], **fields)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Collects the texts of a page's cells, and whether every tag that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th", "strong"):
            self.cells[-1] += data


def test_html_shows_every_text_as_it_is() -> None:
    page = html_text(sheet([Cell("<script>alert('&')</script>"), Cell(NASTY, is_best=True)]))
    reader = Reader(page)
    assert reader.open == []
    assert reader.cells == ["task", "paramsM", "<script>alert('&')</script>", NASTY]
    assert "<script" not in page
    assert "<title>A &amp; B</title>" in page


def test_html_is_whole_and_loads_nothing() -> None:
    page = html_text(sheet())
    assert page.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in page
    assert "http" not in page
    assert "src=" not in page


@pytest.mark.parametrize("letter", list(r"&%$#_{}"))
def test_latex_escapes_what_it_would_take_for_a_command(letter: str) -> None:
    assert latex_escaped(f"a{letter}b") == f"a\\{letter}b"


def test_latex_keeps_a_text_in_one_line_and_its_hyphens_apart() -> None:
    assert latex_escaped("a\n b---c") == "a b-{}-{}-c"


def test_both_print_the_best_bold_and_align_numbers_to_the_right() -> None:
    best = sheet([Cell("one"), Cell("61.0", is_best=True)])
    assert r"one & \textbf{61.0} \\" in latex_text(best)
    assert r"\begin{tabular}{@{}lr@{}}" in latex_text(best)
    assert '<td class="number"><strong>61.0</strong></td>' in html_text(best)


def test_notes_get_letters_as_they_are_met_and_equal_ones_share_theirs() -> None:
    marked = sheet([Cell("one", notes=("late", "early")), Cell("1")], [Cell("two"), Cell("2", notes=("early",))])
    assert marked.letters == {"late": "a", "early": "b"}
    latex, page = latex_text(marked), html_text(marked)
    assert r"one\textsuperscript{a,b} & 1 \\" in latex
    assert r"two & 2\textsuperscript{b} \\" in latex
    assert latex.index(r"\end{tabular}") < latex.index(r"\textsuperscript{a}~late\par")
    assert '<td>one<sup title="late; early">a,b</sup></td>' in page
    assert "<p><sup>b</sup> early</p>" in page


def test_after_z_comes_aa() -> None:
    letters = sheet([Cell("one", notes=tuple(map(str, range(30)))), Cell("1")]).letters
    assert [letters[str(number)] for number in (0, 25, 26, 29)] == ["a", "z", "aa", "ad"]


def test_a_sheet_without_notes_has_no_empty_block_for_them() -> None:
    assert "footnotesize" not in latex_text(sheet())
    assert "<footer>" not in html_text(sheet())


def test_remarks_stand_below_and_omitted_columns_in_a_comment() -> None:
    latex = latex_text(sheet(remarks=["50% of all"], omitted=["peak MB"]))
    assert r"50\% of all\par" in latex
    assert "% Left out, to fit a page: peak MB. The CSV has every column." in latex.splitlines()
    assert "<p>50% of all</p>" in html_text(sheet(remarks=["50% of all"]))


def test_a_title_cannot_leave_its_comment() -> None:
    text = latex_text(Sheet("a\n\\input{b}", [Heading("task")], [[Cell("one")]]))
    assert text.splitlines()[0].startswith(r"% a \textbackslash{}input\{b\}.")


def test_a_rule_follows_the_rows_that_end_a_part() -> None:
    parted = sheet([Cell("one"), Cell("1")], [Cell("two"), Cell("2")], ends=frozenset({0}))
    assert "one & 1 \\\\\n\\midrule\ntwo & 2 \\\\\n\\bottomrule" in latex_text(parted)
    assert html_text(parted).count('<tr class="end">') == 1


def test_missing_digits_are_as_wide_as_a_digit_and_no_line_breaks_at_a_spread() -> None:
    padded = sheet([Cell(" 9.2 ± 0.4"), Cell("1")])
    assert r"\phantom{0}9.2~$\pm$~0.4 & 1" in latex_text(padded)
    assert "<td>\u20079.2\u00a0±\u00a00.4</td>" in html_text(padded)


def test_long_texts_are_broken_in_latex() -> None:
    assert "{@{}>{\\raggedright\\arraybackslash}p{8.5em}r@{}}" in latex_text(sheet([Cell("word " * 8), Cell("1")]))


def test_a_long_name_that_cannot_be_broken_gets_the_room_it_needs() -> None:
    assert "{@{}lr@{}}" in latex_text(sheet([Cell("n" * 30), Cell("1")]))
    assert "p{12.75em}" in latex_text(sheet([Cell("n" * 30 + " and more"), Cell("1")]))


def compiled(folder: Path, *fragments: str) -> str:
    """Compile fragments with pdflatex and return the text of the page, without spaces."""
    if not (shutil.which("pdflatex") and shutil.which("pdftotext")):
        pytest.skip("needs LaTeX: apt-get install texlive-latex-base texlive-latex-recommended poppler-utils")
    for number, fragment in enumerate(fragments):
        (folder / f"{number}.tex").write_text(fragment)
    inputs = "\n\n".join(f"\\input{{{number}.tex}}" for number in range(len(fragments)))
    body = "\\usepackage[T1]{fontenc}\\usepackage{array,booktabs}\\begin{document}\n" + inputs + "\\end{document}"
    (folder / "page.tex").write_text(f"\\documentclass{{article}}{body}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout
    shown = subprocess.run(["pdftotext", "page.pdf", "-"], cwd=folder, capture_output=True, check=True)
    return "".join(shown.stdout.decode().split())


def test_latex_compiles_and_prints_every_name_as_it_is(tmp_path: Path) -> None:
    rows = [Cell(NASTY, notes=(NASTY,)), Cell("1")], [Cell("x--y"), Cell(" 9.2 ± 0.4", is_best=True)]
    nasty = sheet(*rows, remarks=[NASTY], omitted=[NASTY])
    page = compiled(tmp_path, latex_text(nasty), latex_text(sheet()))
    assert page.count(NASTY) == 3, page
    assert "x--y" in page
    assert "±" in page
