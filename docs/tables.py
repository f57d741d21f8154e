"""Writes the tables in the documents from the committed records, wherever they say ``<!-- leaderboard: SUITE -->``.

Rows of another budget than most have a table of their own, below.
``<!-- leaderboard: SUITE, best N -->`` has the best N of those that were trained without labels for as long as most,
and all yardsticks;
``<!-- beside lightly: SUITE -->`` has what ``benchmarks/peers.py`` found, from ``SUITE-lightly/peers.csv``.

It also writes what the studies of pairs of augmentations show, ``pairs.csv`` and ``pairs.png``, beside their records.
Run it with ``make tables``; a test fails while a document or a CSV is not what it writes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from clvr_bench import leaderboard
from clvr_bench.budgets import epochs_said, usual_epochs
from clvr_bench.heatmaps import picture
from clvr_bench.pairwise import COLUMNS, pair_study, pair_table
from clvr_bench.records import write_atomically
from clvr_bench.tables import csv_text, own_options

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "docs" / "results.md")
PAIRS = (ROOT / "results" / "simclr-pairs-shapes",)
BLOCK = re.compile(r"(<!-- leaderboard: ([^\s,]+)(?:, best (\d+))? -->\n).*?(<!-- end -->)", flags=re.DOTALL)
PEERS = re.compile(r"(<!-- beside lightly: (\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
WORDS = {"rank", "pretext task", "encoder", "augmentation", "options", "labels"}  # columns that are set flush left


def updated(document: Path) -> str:
    """Return a document with its tables derived anew."""
    text = BLOCK.sub(lambda match: f"{match[1]}{tables(match[2], match[3])}{match[4]}", document.read_text())
    return PEERS.sub(lambda match: f"{match[1]}{beside_lightly(match[2])}{match[3]}", text)


def tables(suite: str, best: str | None = None) -> str:
    """Return a suite's leaderboard, or so many of the best rows, as short Markdown tables, one a budget.

    The first has the budget that most rows have, and the rows that were not trained.
    """
    frame = leaderboard(ROOT / "results" / suite)
    usual = usual_epochs(frame.loc[frame["top1_mean"].notna(), "epochs"].dropna())
    others = sorted(set(frame["epochs"].dropna()) - {usual})
    parts = [table(frame[frame["epochs"].isna() | frame["epochs"].isin([usual])], best)]
    if best is None:
        parts += [f"Of {epochs_said(epochs)}:\n\n{table(frame[frame['epochs'].isin([epochs])])}" for epochs in others]
    elif others:
        parts += [f"*Left out: rows of {' and '.join(map(epochs_said, others))}.*\n"]
    return "\n".join(parts)


def table(frame: pd.DataFrame, best: str | None = None) -> str:
    """Return rows of a leaderboard, or so many of the best, as a short Markdown table with a caption."""
    competes = (frame["uses_labels"] == "no") & frame["epochs"].notna()  # which yardsticks do not
    if best is not None:
        frame = frame[~competes | (competes.cumsum() <= int(best))]
    encoders = sorted(set(frame["encoder"]) - {""})
    rows = [_cells(row, _alike(row, frame)) for _, row in frame.iterrows()]
    left_out = {name for name in rows[0] if not any(row[name] for row in rows)}
    left_out |= {"encoder"} if len(encoders) == 1 else set()
    head = [name for name in rows[0] if name not in left_out]
    lines = [
        head,
        ["---" if name in WORDS else "--:" for name in head],
        *([row[name] for name in head] for row in rows),
    ]
    seeds = ", ".join(str(count) for count in sorted(set(frame["seeds"])))
    part = "" if best is None else f"; the best {best} of {competes.sum()} that were trained without labels"
    caption = f"{frame['dataset'].iloc[0]}, {', '.join(encoders)}, seeds: {seeds}{part}"
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", f"*{caption}*", ""])


def beside_lightly(suite: str) -> str:
    """Return top-1 and speed of the same methods of both projects as a Markdown table."""
    frame = pd.read_csv(ROOT / "results" / f"{suite}-lightly" / "peers.csv")
    lines = [["method", "of", "seeds", "top-1 %", "k-NN %", "seconds", "lightly minus clvr-bench, points"]]
    lines.append(["---", "---", *["--:"] * 5])
    for row in frame.to_dict("records"):
        apart = _signed(row["difference"])
        interval = (
            f" ({_signed(row['difference_low'])} to {_signed(row['difference_high'])})" if row["seeds"] > 1 else ""
        )
        std = f" ± {row['top1_std']:.1f}" if row["seeds"] > 1 else ""
        scores = [f"{row['top1_mean']:.1f}{std}", f"{row['knn_top1_mean']:.1f}", f"{row['seconds_mean']:.0f}"]
        lines.append([row["method"], row["side"], str(row["seeds"]), *scores, f"{apart}{interval}" if apart else ""])
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", ""])


def _signed(number: float) -> str:
    return "" if pd.isna(number) else f"{number:+.1f}"


def _alike(row: pd.Series[object], frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["pretext_task"] == row["pretext_task"]) & (frame["encoder"] == row["encoder"])]


def _cells(row: pd.Series[object], alike: pd.DataFrame) -> dict[str, str]:
    """Return what is shown of a row; its augmentation and options only where rows that look alike differ in them."""
    return {
        "rank": "" if pd.isna(row["rank"]) else str(row["rank"]),
        "pretext task": str(row["pretext_task"]),
        "encoder": str(row["encoder"]),
        "augmentation": str(row["augmentation"]) if alike["augmentation"].nunique() > 1 else "",
        "options": own_options(str(row["options"]), list(alike["options"])),
        "top-1 %": f"{row['top1_mean']:.1f}",
        "95% ±": "" if pd.isna(row["top1_ci95"]) else f"{row['top1_ci95']:.1f}",
        "top-5 %": f"{row['top5_mean']:.1f}",
        "k-NN %": f"{row['knn_top1_mean']:.1f}",
        "labels": str(row["uses_labels"]),
        "epochs": "-" if pd.isna(row["epochs"]) else str(row["epochs"]),
        "encoder passes": f"{row['encoder_passes']:,}",
        "seconds": f"{row['seconds_mean']:.0f}",
        "trials": _trials(str(row["options_source"])) or "-",
    }


def _trials(options_source: str) -> str:
    """Return in how many trials a row's options were found, such as ``2 + 8`` where another task's went before."""
    found = re.search(r"\((\d+) trials?(?:, after (\d+))?", options_source)
    return " + ".join(filter(None, found.groups())) if found else ""


def write_pairs(suite: Path) -> None:
    """Write ``pairs.csv`` and ``pairs.png`` beside a suite's records; nothing where there are none."""
    if not any(suite.glob("runs/*/pretraining.json")):
        return
    write_atomically(suite / "pairs.csv", pairs(suite).encode())
    write_atomically(suite / "pairs.png", picture(pair_study(suite), "png"))


def pairs(suite: Path) -> str:
    """Return a study of pairs as CSV."""
    return csv_text(pair_table(pair_study(suite)), COLUMNS)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(updated(document))
    for suite in PAIRS:
        write_pairs(suite)
