"""Writes the tables in README.md from the committed records, wherever it says ``<!-- leaderboard: SUITE -->``.

Run it with ``make tables``; a test fails while README.md is not what it writes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from clvr_bench import leaderboard

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- leaderboard: (\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
HEAD = "| pretext task | top-1 % | top-5 % | k-NN % | labels | epochs | pictures encoded | seconds |"
RULE = "|---|--:|--:|--:|---|--:|--:|--:|"


def readme() -> str:
    """Return README.md with its tables derived anew."""
    return BLOCK.sub(lambda match: f"{match[1]}{table(match[2])}{match[3]}", README.read_text())


def table(suite: str) -> str:
    """Return a suite's leaderboard as a short Markdown table with a caption."""
    frame = leaderboard(ROOT / "results" / suite)
    encoder = ", ".join(sorted(set(frame["encoder"]) - {""}))
    seeds = ", ".join(str(count) for count in sorted(set(frame["seeds"])))
    caption = f"{frame['dataset'][0]}, {encoder}, seeds: {seeds}"
    rows = [_row(row) for _, row in frame.iterrows()]
    return "\n".join([HEAD, RULE, *rows, "", f"*{caption}*", ""])


def _row(row: pd.Series[object]) -> str:
    numbers = [row["top1_mean"], row["top5_mean"], row["knn_top1_mean"]]
    cells = [row["pretext_task"], *(f"{number:.1f}" for number in numbers), row["uses_labels"]]
    cells += [
        "-" if pd.isna(row["epochs"]) else row["epochs"],
        f"{row['encoder_passes']:,}",
        f"{row['seconds_mean']:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    README.write_text(readme())
