"""scikit-learn's handwritten digits: 1,797 pictures of 8 px that come with it, so there is nothing to download."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clvr_bench import ClvrBenchError, Dataset, Register, ResidentSplit, SampleRandom, hookimpl

_SIDE = 8  # pixels, as stored
_WHITE = 16  # the largest value stored
_TEST_SHARE = 5  # a fifth of each class
_SPLIT_SEED = 0


@hookimpl
def register_datasets(register: Register) -> None:
    """Register the digits."""
    register(
        "digits",
        Digits,
        summary="scikit-learn's 1,797 handwritten digits of 8 px; nothing to download, needs the extra 'digits'.",
        source="Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49",
        version=1,
    )


class Digits(Dataset):
    """The digits of ``sklearn.datasets.load_digits``, a fifth of each class held out as test.

    They have no published split here (they are the test part of a larger set): this one is this project's own. Each
    class's pictures are ordered by keyed random numbers, and the first fifth, rounded, are test. The same people wrote
    both parts. Values 0 to 16 become 0 to 255, rounded to the nearest; grey becomes three equal channels.

    Args:
        root: Not used; the pictures come with scikit-learn.
        image_size: Height and width in pixels, at least 8. Pictures are enlarged to it by repeating pixels, which
            gives the same bytes on every machine and no values that were not there; evenly at multiples of 8.

    Raises:
        ClvrBenchError: scikit-learn is not installed, or the size is too small.
    """

    title = "digits"
    class_names = tuple("0123456789")

    def __init__(self, root: Path | None, *, image_size: int = 32) -> None:
        if image_size < _SIDE:
            raise ClvrBenchError(f"dataset digits: image_size must be at least {_SIDE}, got {image_size}.")
        self.image_size = image_size
        self._values, self._labels = _stored()
        self._is_test = _test_part(self._labels)

    @cached_property
    def train(self) -> ResidentSplit:
        """Four fifths of each class: 1,438 pictures."""
        return self._split(~self._is_test)

    @cached_property
    def test(self) -> ResidentSplit:
        """The other fifth: 359 pictures."""
        return self._split(self._is_test)

    def _split(self, chosen: Tensor) -> ResidentSplit:
        grey = (self._values[chosen.numpy()] * 255 + _WHITE // 2) // _WHITE  # nearest; exact in whole numbers
        nearest = np.arange(self.image_size) * _SIDE // self.image_size
        enlarged = torch.from_numpy(grey.astype(np.uint8)[:, nearest][:, :, nearest])  # (N, H, W)
        return ResidentSplit(enlarged[:, None].repeat(1, 3, 1, 1), self._labels[chosen])


def _stored() -> tuple[NDArray[np.int64], Tensor]:
    """Return the values (N, 8, 8), 0 to 16, and the labels (N,)."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it ships no types
    except ModuleNotFoundError:
        raise ClvrBenchError(
            "dataset digits: it comes with scikit-learn, which is not installed. Install it: pip install scikit-learn"
        ) from None
    digits = load_digits()
    return digits.images.astype(np.int64), torch.from_numpy(digits.target.astype(np.int64))


def _test_part(labels: Tensor) -> Tensor:
    """Choose a fifth of each class, (N,) bool."""
    luck = SampleRandom.keyed(_SPLIT_SEED, 0, torch.arange(len(labels)))("digits test").uniform()
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        chosen[members[luck[members].argsort()][: round(len(members) / _TEST_SHARE)]] = True
    return chosen
