from __future__ import annotations

from dataclasses import replace

from clvr_bench.figure2.comparison import Comparison, Measured, compare
from clvr_bench.figure2.entries import entries
from clvr_bench.figure2.sheets import BOLD, sheet


def measured(top1: float, **fields: object) -> Measured:
    return Measured("resnet18", 11.2, top1, 1.0, 2.5, 3, **{"note": "", "rank": 1, **fields})  # type: ignore[arg-type]


def with_rows(**found: Measured) -> Comparison:
    pairs = tuple((entry, found.get(entry.label)) for entry in entries())
    return Comparison(pairs, "tiny", "CIFAR-10", 200, "linear@1")


def test_without_runs_it_has_the_published_columns_and_their_best_in_bold() -> None:
    laid_out = sheet(compare())
    assert len(laid_out.rows) == 23
    assert laid_out.headings[-1].title == "ImageNet\ntop-1 %"
    assert laid_out.remarks == [BOLD]
    assert [(row[0].text, cell.text) for row in laid_out.rows for cell in row if cell.is_best] == [
        ("BYOL (4x)", "78.6")
    ]


def test_the_best_measured_row_with_a_rank_is_bold_and_so_are_ties_as_printed() -> None:
    laid_out = sheet(
        with_rows(supervised=measured(90.0, rank=None), SwAV=measured(61.02), BYOL=measured(60.98), LA=measured(40.0))
    )
    assert [row[0].text for row in laid_out.rows if row[-2].is_best] == ["SwAV", "BYOL"]
    assert BOLD in laid_out.remarks


def test_notes_stand_at_what_they_are_about() -> None:
    found = measured(90.0, labels="fine", note="1 of 3 seeds collapsed; edge")
    rows = {row[0].text: row for row in sheet(with_rows(CMC=found)).rows}
    assert rows["CMC"][0].notes[0].startswith("an earlier version of the paper")
    assert rows["CMC"][5].notes == ("pretrained with labels (fine)", "1 of 3 seeds collapsed", "edge")
    assert [cell.text for cell in rows["BYOL"][5:]] == ["-", "-"]


def test_numbers_that_were_not_seen_in_print_are_marked() -> None:
    unseen = replace(entries()[0], verified=False, note="")
    laid_out = sheet(Comparison(((unseen, None), (entries()[1], None))))
    assert [row[0].notes for row in laid_out.rows] == [("not seen in print",), ()]


def test_all_entries_were_seen_in_print() -> None:
    assert all(entry.verified for entry in entries())
