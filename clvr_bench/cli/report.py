"""The command that writes all results as one page. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from clvr_bench.cli.finding import warn_of_damage
from clvr_bench.cli.tables import check_format, write_output
from clvr_bench.report.page import report_text
from clvr_bench.report.pictures import Picture


def write_report(results: Path, suite: str | None, pictures: Sequence[Path], output: Path) -> None:
    """Write the page and say where.

    Raises:
        ClvrBenchError: The file's name does not end in ``.html`` or it cannot be written, a picture cannot be read, or
            there are no runs.
    """
    check_format(output, (".html",))
    page = report_text(results, suite, warn_of_damage, pictures=list(map(Picture.read, pictures)))
    write_output(output, page.encode())
    Console().print(f"Written: {output}", markup=False, highlight=False, soft_wrap=True)
