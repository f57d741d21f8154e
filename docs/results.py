"""Writes what the committed records show, ``docs/results.md``, and its pictures beside the records.

It fills the blocks ``<!-- results: SUITE -->`` and adds a section for a suite that has none; what stands outside of
the blocks is written by hand. ``docs/tables.py`` fills in the leaderboards. Run both with ``make tables``; a test fails
while the document or a picture is not what is written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, get_args

import matplotlib
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clvr_bench import leaderboard, published
from clvr_bench.charts import look
from clvr_bench.charts.costs import Cost, draw_costs, front, spots
from clvr_bench.charts.learning import draw_learning
from clvr_bench.charts.rows import Row, load_rows, of_usual_length
from clvr_bench.figure2 import drawing
from clvr_bench.figure2.agreement import LEAST
from clvr_bench.figure2.comparison import COLUMNS, Comparison, Move, compare
from clvr_bench.figure2.comparison import table as comparison_table
from clvr_bench.groups import LINEAR
from clvr_bench.pretraining import MONITOR_SAMPLES
from clvr_bench.records import digest, load_runs, write_atomically
from clvr_bench.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "results.md"
SUITES = {"figure2-cifar10": "cifar10", "figure2-cifar10-cpu": "cifar10", "figure2-shapes": "", "contract-shapes": ""}
"""The suites that are shown once they have records, with the table of published results that is nearest, if any is."""
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
SECTION = """
## `{suite}`

<!-- leaderboard: {suite} -->
<!-- end -->

<!-- results: {suite} -->
<!-- end -->
"""
COLORS = 64  # of a picture: a few, what softens their edges, and what shines through
PIXELS = round(look.WIDTH * look.DPI)  # a picture's width
WORDS = {"method", "pretext task", "encoder", "published encoder", "judged by", "source"}  # columns set flush left


@dataclass(frozen=True)
class Chart:
    """A picture of the document.

    Attributes:
        file: Its name, beside the suite's records.
        numbers: What it shows, as JSON has it.
        draw: Draws it.
        settings: What drawing and saving belong into.
    """

    file: str
    numbers: Any
    draw: Callable[[], Figure]
    settings: Callable[[], AbstractContextManager[None]] = look.settings

    @property
    def digest(self) -> str:
        """The digest of what it shows, which its file has as its description."""
        return digest(self.numbers)

    def png(self) -> bytes:
        """Draw it; the same numbers and version of matplotlib always give the same bytes."""
        drawn, file, said = BytesIO(), BytesIO(), PngInfo()
        with self.settings():
            figure = self.draw()
            figure.savefig(drawn, format="png", dpi=PIXELS / figure.get_figwidth())
        said.add_text("Software", software())
        said.add_text("Description", self.digest)
        Image.open(drawn).convert("RGB").quantize(COLORS).save(file, format="png", optimize=True, pnginfo=said)
        return file.getvalue()


def software() -> str:
    """Name what draws; another version may set some pixels otherwise."""
    return f"matplotlib {matplotlib.__version__}"


def shown() -> list[str]:
    """Return the suites that have records."""
    return [suite for suite in SUITES if any((ROOT / "results" / suite).glob("runs/*/pretraining.json"))]


def updated(text: str) -> str:
    """Return the document with its blocks written anew, and with sections for suites that had none."""
    for suite in shown():
        if f"<!-- results: {suite} -->" not in text:
            text += SECTION.format(suite=suite)
    return BLOCK.sub(lambda match: f"{match[1]}{block(ROOT / 'results' / match[2])}{match[3]}", text)


def block(folder: Path) -> str:
    """Return what is written of a suite."""
    rows, frame = load_rows(folder), leaderboard(folder)
    where = f"../results/{folder.name}"
    parts = [
        *_setting(folder),
        *_learning(rows, where),
        *_costs(rows, where),
        *_order(compare(frame), where),
        *_published(SUITES.get(folder.name, ""), frame),
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


def charts(folder: Path) -> list[Chart]:
    """Return the pictures of a suite."""
    rows, comparison = load_rows(folder), compare(leaderboard(folder))
    usual = of_usual_length(rows)
    numbers, usual_numbers = ([asdict(row) for row in some] for some in (rows, usual))
    found = [
        Chart("learning.png", usual_numbers, lambda: draw_learning(usual, label="k-NN top-1 on val (%)")),
        Chart("losses.png", usual_numbers, lambda: draw_learning(usual, "loss", shared=False)),
        Chart("seconds.png", numbers, lambda: draw_costs(rows, "seconds")),
        Chart("encoder_passes.png", numbers, lambda: draw_costs(rows, "encoder_passes")),
    ]
    if _has_order(comparison):
        figure2 = drawing.Drawing(comparison, drawing.SIZES["two-column"])
        table = csv_text(comparison_table(comparison), COLUMNS)
        found.append(Chart("figure2.png", table, figure2.figure, drawing.settings))
    return found


def _setting(folder: Path) -> Iterator[str]:
    """Yield what all runs of a suite have in common, or the values that there are."""
    runs = [run for run in load_runs(folder) if run.pretraining.history]
    if not runs:
        return
    records = [run.pretraining for run in runs]
    judged = [(run, evaluation) for run in runs for evaluation in run.evaluations if evaluation.name == LINEAR]
    trained = _either(record.facts["data"]["train_size"] for record in records)
    test = _either(len(run.predictions(evaluation)[0]) for run, evaluation in judged)
    epochs = _either(record.identity["budget"]["epochs"] for record in records)
    batch = _either(record.identity["budget"]["batch_size"] for record in records)
    precision = _either(record.identity["precision"] for record in records)
    hardware = _either(record.provenance["hardware"] for record in records)
    threads = _either(record.provenance["threads"] for record in records)
    torch = _either(record.provenance["libraries"]["torch"] for record in records)
    yield (
        f"**Setting.** {trained} pictures to train on, which the 5% held out as val are not among; {test} of test. "
        f"{epochs} epochs in batches of {batch}, in {precision}; the last one counts. Encoders normalize colors by "
        "ImageNet's mean and deviation; features are of whole pictures. Each probe's penalty is chosen on val. "
        f"{hardware}, threads a run: {threads}, torch {torch}."
    )


def _either(values: Iterable[object]) -> str:
    """Write each value once, in order: ``10 or 20``, numbers by their size."""
    ordered = sorted(set(values), key=lambda value: (value, "") if isinstance(value, int) else (0, str(value)))
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in ordered)


def _learning(rows: Sequence[Row], where: str) -> Iterator[str]:
    usual = of_usual_length(rows)
    others = _either(row.epochs for row in rows if row.epochs not in {other.epochs for other in usual})
    seeds = max(len(row.histories) for row in usual)
    lines = f"the mean of up to {seeds} seeds as a line, their range as a band" if seeds > 1 else "one seed"
    yield "### How they learned"
    yield f"![Validation k-NN by epoch, a panel a pretext task]({where}/learning.png)"
    yield (
        f"k-NN top-1 on val after every epoch: {lines}, all other rows in gray. Panels are sorted by linear top-1 on "
        f"test, the number in the title; a broken line saw labels. Neighbours are at most {MONITOR_SAMPLES:,} training "
        "pictures, so most curves end below the leaderboard's k-NN, which has all of them."
        + (f" Rows of {others} epochs are left out." if others else "")
    )
    yield f"<details><summary>Their losses</summary>\n\n![Loss by epoch]({where}/losses.png)"
    yield "Each loss has a scale of its own: losses of different tasks do not compare.\n\n</details>"


def _costs(rows: Sequence[Row], where: str) -> Iterator[str]:
    yield "### What it cost"
    yield f"![Top-1 by seconds of pretraining]({where}/seconds.png)"
    yield f"![Top-1 by pictures encoded in pretraining]({where}/encoder_passes.png)"
    fronts = {cost: _names(spot.row.name for spot in front(spots(rows, cost), cost)) for cost in get_args(Cost)}
    yield (
        "Upright lines are one standard deviation over seeds each way; broken lines are rows that were not trained. "
        "On the Pareto front, better than all that saw no labels and cost no more: by seconds "
        f"{fronts['seconds']}; by encoder passes, among rows with the encoder that most have, "
        f"{fronts['encoder_passes']}."
    )
    ratios = {row.name: max(row.seconds) / min(row.seconds) for row in rows if row.trained and len(row.seconds) > 1}
    if ratios:
        slowest = max(ratios, key=lambda name: ratios[name])
        yield (
            "Seconds depend on the machine and on what else it did: of a row's seeds, the slowest took "
            f"{median(ratios.values()):.1f} times as long as the fastest in the median row and {ratios[slowest]:.1f} "
            f"times in `{slowest}`. Encoder passes do not, but count a small network's pictures like a large one's."
        )


def _has_order(comparison: Comparison) -> bool:
    return len(comparison.moves) >= LEAST


def _order(comparison: Comparison, where: str) -> Iterator[str]:
    """Yield how far both orders agree; nothing where too few methods of Figure 2 were measured."""
    if not _has_order(comparison):
        return
    yield "### Beside the published order"
    yield f"![Figure 2 as published and as measured, and both orders]({where}/figure2.png)"
    moved = ", ".join(f"{move.entry.label} {move.places:+g}" for move in comparison.moved_most)
    yield (
        f"Methods of Figure 2 with encoders of one width: **{comparison.agreement}**."
        + (f" Moved most: {moved} places." if moved else "")
    )
    yield _table(
        ["method", "pretext task", "ImageNet, published", f"{comparison.dataset}, measured", "published place",
         "measured place", "places gained"],
        [_move(move) for move in comparison.moves],
    )  # fmt: skip
    missing = _names(entry.pretext_task or entry.label for entry in comparison.missing if not entry.widened)
    others = _either(comparison.other_epochs)
    widened = _names(entry.pretext_task or entry.label for entry, _ in comparison.measured if entry.widened)
    yield (
        "Top-1 in percent, measured ones with the half-width of their 95% interval. Published rows have ImageNet and "
        f"their papers' encoders and budgets, measured ones {comparison.epochs} epochs of {comparison.dataset}. Places "
        "go by means; ranks of the leaderboard say which differences are significant. Agreement is reported, not "
        "aimed at."
        + (f" Without a place, as published with a widened encoder alone: {widened}." if widened else "")
        + (f" Not measured: {missing}." if missing else "")
        + (f" Rows of {others} epochs are left out." if others else "")
    )


def _move(move: Move) -> list[str]:
    interval = "" if move.found.interval is None else f" ± {move.found.interval:.1f}"
    return [
        move.entry.label,
        f"`{move.entry.pretext_task}`",
        f"{move.entry.top1:.1f}",
        f"{move.found.top1:.1f}{interval}",
        f"{move.published:g}",
        f"{move.measured:g}",
        f"{move.places:+g}" if move.places else "0",
    ]


def _published(table: str, frame: pd.DataFrame) -> Iterator[str]:
    """Yield our rows beside published ones, of each way of judging the one with the shortest budget."""
    if not table:
        return
    seen = published(table)
    seen = seen[seen["verified"] & seen["pretext_task"].isin(frame["pretext_task"])]
    nearest = seen.sort_values(["epochs", "batch_size"], kind="stable").drop_duplicates(["pretext_task", "metric"])
    pairs = frame[frame["top1_mean"].notna()].merge(nearest, on="pretext_task", suffixes=("", "_published"))
    yield "### Beside published rows"
    yield (
        "Not the same setting: encoders, epochs and ways of judging differ as the columns say, recipes and perhaps "
        "pictures too. Of each way of judging, this is the published row with the fewest epochs, beside ours by that "
        f'way; `clvr_bench.published("{table}")` has all.'
    )
    yield _table(
        ["pretext task", "encoder", "epochs", "batch", "%", "published encoder", "published epochs", "published batch",
         "published %", "judged by", "source"],
        [
            [f"`{row.pretext_task}`", row.encoder, f"{row.epochs}", f"{row.batch_size}",
             f"{row.top1_mean if row.metric.startswith('linear') else row.knn_top1_mean:.1f}", row.backbone,
             f"{row.epochs_published}", "" if pd.isna(row.batch_size_published) else f"{row.batch_size_published:.0f}",
             f"{row.top1:.1f}", row.metric.replace("linear_top1", "linear").replace("knn_top1", "k-NN"), row.source]
            for row in pairs.itertuples()
        ],
    )  # fmt: skip


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---" if name in WORDS else "--:" for name in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text()))
    for suite in shown():
        for chart in charts(ROOT / "results" / suite):
            write_atomically(ROOT / "results" / suite / chart.file, chart.png())
