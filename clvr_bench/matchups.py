"""Two rows of a leaderboard beside each other, test picture by test picture. Knows arrays, not records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clvr_bench.standings import COUNT, TEXT

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Mapping[str, str | int] = {
    "part": TEXT,
    "of": TEXT,
    "pictures": COUNT,
    "first_top1": 2,
    "second_top1": 2,
    "difference": 2,
    "ci95": 2,
    "p_value": 6,
    "adjusted_p_value": 6,
    "first_only": 1,
    "second_only": 1,
    "both": 1,
    "neither": 1,
    "first": TEXT,
    "second": TEXT,
    "suite": TEXT,
    "dataset": TEXT,
    "evaluation": TEXT,
}
"""Every column of ``matchup_table`` in order: text, a count, or how many decimals are printed."""

PICTURE_COLUMNS: Mapping[str, str | int] = {
    "picture": COUNT,
    "class": TEXT,
    "first_right": COUNT,
    "second_right": COUNT,
    "seeds": COUNT,
    "first": TEXT,
    "second": TEXT,
}
"""Every column of ``disagreements``: a picture's number in test, its class, on how many seeds each got it right."""


class Verdict(NamedTuple):
    """How sure the difference of two rows is, over new seeds and new test pictures.

    Attributes:
        ci95: Half-width of its 95% interval, in points.
        p_value: Two-sided, of this pair alone.
        adjusted_p_value: Adjusted to all pairs of the leaderboard (Holm), as its ranks are; None where not both are
            ranked, they are not ranked together, or one has seeds that the other lacks, which only the leaderboard's
            test counts.
        pairs: How many pairs these are.
    """

    ci95: float
    p_value: float
    adjusted_p_value: float | None
    pairs: int


class Part(NamedTuple):
    """What both got right on some of the test pictures; counts are means over the seeds.

    Attributes:
        kind: ``"all"``, ``"seed"`` or ``"class"``.
        of: The seed, or the class's name, or its number where no record says its name; empty for all.
        pictures: How many test pictures.
        first_only: Those that only the first row got right.
        second_only: Those that only the second got right: McNemar's other count.
        both: Those that both got right.
    """

    kind: str
    of: str
    pictures: int
    first_only: float
    second_only: float
    both: float

    @property
    def first_top1(self) -> float:
        """In percent."""
        return 100 * (self.both + self.first_only) / self.pictures

    @property
    def second_top1(self) -> float:
        """In percent."""
        return 100 * (self.both + self.second_only) / self.pictures

    @property
    def difference(self) -> float:
        """Top-1 of the first minus that of the second, in points."""
        return 100 * (self.first_only - self.second_only) / self.pictures

    @property
    def neither(self) -> float:
        """Pictures that both got wrong."""
        return self.pictures - self.both - self.first_only - self.second_only


@dataclass(frozen=True)
class Matchup:
    """Two rows that were judged alike, on the seeds that both have.

    Attributes:
        names: What tells them apart.
        suite: The suite of both.
        dataset: What both were judged on, as tables call it.
        evaluation: The linear evaluation, its version and options.
        seeds: The S shared seeds.
        labels: (N,) true classes of the test pictures.
        class_names: K names in the order of the labels; empty where no record says them.
        correct: Two matrices (S, N), seeds in the same order, True where a seed got a picture right.
        verdict: None for one shared seed.
    """

    names: tuple[str, str]
    suite: str
    dataset: str
    evaluation: str
    seeds: tuple[int, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    verdict: Verdict | None

    @cached_property
    def whole(self) -> Part:
        """All test pictures, over the shared seeds."""
        return self._part("all", "")

    @cached_property
    def by_seed(self) -> list[Part]:
        """All test pictures, a part a seed."""
        return [self._part("seed", str(seed), seeds=slice(i, i + 1)) for i, seed in enumerate(self.seeds)]

    @cached_property
    def by_class(self) -> list[Part]:
        """The test pictures of each class, over the shared seeds."""
        numbers = np.unique(self.labels).tolist()
        return [self._part("class", self.class_name(number), pictures=self.labels == number) for number in numbers]

    def class_name(self, number: int) -> str:
        """Return what a class is called; its number where no record says it."""
        return self.class_names[number] if self.class_names else str(number)

    def _part(self, kind: str, of: str, seeds: slice = slice(None), pictures: Any = slice(None)) -> Part:
        first, second = (matrix[seeds, pictures] for matrix in self.correct)
        counts = [float(right.sum(axis=1).mean()) for right in (first & ~second, second & ~first, first & second)]
        return Part(kind, of, first.shape[1], *counts)


def matchup_table(matchup: Matchup) -> pd.DataFrame:
    """Return a comparison as a data frame with the columns of ``COLUMNS``.

    The first row is of all pictures and shared seeds and has interval and p-values; then one a seed, and one a class.
    """
    import pandas as pd

    same = {
        "first": matchup.names[0],
        "second": matchup.names[1],
        "suite": matchup.suite,
        "dataset": matchup.dataset,
        "evaluation": matchup.evaluation,
    }
    lines = [_line(part) | same for part in (matchup.whole, *matchup.by_seed, *matchup.by_class)]
    if matchup.verdict:
        lines[0] |= {name: value for name, value in matchup.verdict._asdict().items() if name in COLUMNS}
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    types = {TEXT: "object", COUNT: "Int64"}
    return frame.astype({name: types.get(str(kind), "float64") for name, kind in COLUMNS.items()})


def disagreements(matchup: Matchup) -> pd.DataFrame:
    """Return the test pictures that one row got right on more of the shared seeds than the other did.

    Those on which both differ most come first, else in the order of the pictures. The columns are those of
    ``PICTURE_COLUMNS``.
    """
    import pandas as pd

    first, second = (matrix.sum(axis=0) for matrix in matchup.correct)
    numbers = np.flatnonzero(first != second)
    numbers = numbers[np.argsort(-np.abs(first - second)[numbers], kind="stable")]
    labels = matchup.labels[numbers].tolist()
    content = {
        "picture": numbers,
        "class": [matchup.class_name(label) for label in labels],
        "first_right": first[numbers],
        "second_right": second[numbers],
        "seeds": len(matchup.seeds),
        "first": matchup.names[0],
        "second": matchup.names[1],
    }
    return pd.DataFrame(content, columns=list(PICTURE_COLUMNS))


def _line(part: Part) -> dict[str, Any]:
    derived = {name: getattr(part, name) for name in ("first_top1", "second_top1", "difference", "neither")}
    return {**part._asdict(), **derived, "part": part.kind}
