"""How long rows were pretrained: in words, and how long most of them were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def epochs_said(epochs: int) -> str:
    """Write a number of epochs: ``1 epoch``, ``200 epochs``."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def usual_epochs(epochs: Iterable[int | None]) -> int | None:
    """Return the most common number of epochs, the largest of equally common ones.

    Args:
        epochs: Of each row; None where a row was not trained, which does not count.

    Returns:
        None where no row was trained.
    """
    counts = Counter(number for number in epochs if number is not None)
    return max(counts, key=lambda number: (counts[number], number), default=None)
