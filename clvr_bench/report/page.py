"""Lays the page out: one HTML file with its style and its script in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from clvr_bench.records import load_runs
from clvr_bench.report.cards import HEALTH, Card, cards
from clvr_bench.report.charts import costs, panels, scopes
from clvr_bench.report.figure2 import published_plot, strips
from clvr_bench.report.pictures import Picture
from clvr_bench.report.plots import corners
from clvr_bench.standings import standings, standings_frame
from clvr_bench.tables import sheet
from clvr_bench.typesetting import html_environment

FOLDER = Path(__file__).parent
WIDTH = 140
"""Characters of a row of the leaderboard; what has no room is in the rows' cards."""
FACETS = {"suite": "suite", "dataset": "data set", "task": "pretext task"}
"""What rows can be chosen by, as the page calls it."""


def report_text(
    results: Path,
    suite: str | None = None,
    on_damaged: Callable[[str], None] | None = None,
    *,
    pictures: Sequence[Picture] = (),
) -> str:
    """Write the page; the same records always give the same text.

    It forbids itself to load anything and to run any other script than its own, whatever names hold.

    Args:
        results: A folder of suites, or the folder of one suite.
        suite: The only suite wanted.
        on_damaged: Is told of records that cannot be read, a line each; what they are about is then left out.
        pictures: What is shown besides, before the runs.

    Raises:
        ClvrBenchError: There are no runs, or a record cannot be read and nobody is told.
    """
    runs = load_runs(results, suite, on_damaged)
    found = standings(runs)
    shown = cards(found)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    charted = scopes(shown)
    environment = html_environment(FOLDER)
    environment.filters["corners"] = corners
    return environment.get_template("page.html").render(
        title=f"Results of {', '.join(_choices(shown, 'suite'))}",
        runs=len(runs),
        sheet=sheet(standings_frame(found), WIDTH),
        cards=shown,
        panels=[panel for scope in charted for panel in panels(scope)],
        costs=[chart for scope in charted if (chart := costs(scope))],
        published=published_plot(),
        strips=strips(shown),
        health=list(HEALTH),
        measured=[card for card in shown if card.has_health],
        pictures=pictures,
        choices={facet: (title, _choices(shown, facet)) for facet, title in FACETS.items()},
        script=script,
        script_digest=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _choices(shown: list[Card], facet: str) -> list[str]:
    return sorted({card.facets[facet] for card in shown})
