"""The 23 entries of Figure 2 of arXiv 2210.03163, as published, in the figure's order."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from clvr_bench.literature import published

_FILE = Path(__file__).with_name("entries.csv")


@dataclass(frozen=True)
class Entry:
    """A method with an encoder.

    Attributes:
        label: What the figure calls it.
        pretext_task: The registered name; empty where there is none.
        year: Of the paper, on arXiv.
        kind: ``"supervised"``, ``"contrastive"``, ``"clustering"``, ``"distillation"`` or ``"generative"``.
        encoder: As its authors call it.
        registered_encoder: The registered name; empty where there is none.
        params_m: Millions of the encoder's parameters.
        top1: Linear top-1 on ImageNet, in percent.
        drawn: Where the figure has its marker: millions of parameters and percent.
        source: Where the figure was read.
        note: What a reader should know.
        verified: Whether top-1 was seen in print.
    """

    label: str
    pretext_task: str
    year: int
    kind: str
    encoder: str
    registered_encoder: str
    params_m: float
    top1: float
    drawn: tuple[float, float]
    source: str
    note: str
    verified: bool

    @property
    def widened(self) -> bool:
        """Whether its encoder is a widened one, so that its top-1 says nothing of its place among the others."""
        return self.encoder.endswith(("(2x)", "(4x)"))

    @property
    def is_variant(self) -> bool:
        """Whether it is widened and its method has an entry of the usual width too."""
        return self.widened and any(
            other.pretext_task == self.pretext_task and not other.widened for other in entries()
        )


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Return all entries: numbers and sources from the published results, labels and markers from the figure."""
    table = published("imagenet_linear")
    rows = {(row["method"], row["encoder"]): row for row in table[table["in_figure2"] == "yes"].to_dict("records")}
    found = []
    with _FILE.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            row = rows[line["method"], line["encoder"]]
            params_m, top1 = float(row["params_m"]), float(row["top1"])
            found.append(
                Entry(
                    label=line["label"],
                    pretext_task=row["pretext_task"],
                    year=int(row["year"]),
                    kind=row["kind"],
                    encoder=line["encoder"],
                    registered_encoder=line["registered_encoder"],
                    params_m=params_m,
                    top1=top1,
                    drawn=(float(line["drawn_params_m"] or params_m), float(line["drawn_top1"] or top1)),
                    source=row["source"],
                    note=line["note"],
                    verified=bool(row["verified"]),
                )
            )
    return tuple(found)
