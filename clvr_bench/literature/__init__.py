"""Published results, as papers and maintained repositories state them, to stand beside measured ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clvr_bench.errors import ClvrBenchError

if TYPE_CHECKING:
    from pandas import DataFrame

_FOLDER = Path(__file__).parent


def published_tables() -> list[str]:
    """Return the names of the tables."""
    return sorted(path.stem for path in _FOLDER.glob("*.csv"))


def published(table: str) -> DataFrame:
    """Read a table of published results.

    Args:
        table: ``"imagenet_linear"``, ``"imagenet_semi_supervised"`` or ``"cifar10"``.

    Returns:
        One row a result. Common to all: ``method`` (as its authors call it), ``pretext_task`` (the registered name;
        empty where there is none), ``top1`` and ``top5`` in percent, ``source`` (the place to cite), ``read_in`` (who
        else prints it, the version of a file, and where to find what ``source`` lacks) and ``verified``: whether the
        accuracy that the row is about, and its epochs where it has any, were seen in print. Leave the other rows out
        of tables and charts, or check them first. ``params_m`` are millions of the encoder's parameters. ``kind`` has
        no word for ``Barlow Twins`` and ``VICReg``, which stand under ``"contrastive"`` and have no negatives.

    Raises:
        ClvrBenchError: There is no such table.
    """
    import pandas as pd

    if table not in published_tables():
        raise ClvrBenchError(f"published: no table '{table}'. There are: {', '.join(published_tables())}.")
    texts = ["method", "pretext_task", "variant", "encoder", "backbone", "kind", "arxiv", "source", "read_in"]
    frame = pd.read_csv(_FOLDER / f"{table}.csv", dtype=dict.fromkeys(texts, "str"))
    present = [name for name in texts if name in frame]
    frame[present] = frame[present].fillna("")
    return frame.assign(verified=frame["verified"] == "yes")
