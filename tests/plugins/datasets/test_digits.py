from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from clvr_bench import ClvrBenchError, ResidentSplit
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.datasets.digits import Digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(None)


def pixels_of(split: ResidentSplit) -> torch.Tensor:
    return split.images(torch.arange(len(split))).pixels


def test_it_is_registered_as_digits_and_needs_no_root(plugins: Plugins, tmp_path: Path) -> None:
    factory = plugins.registry.get(Kind.DATASET, "digits").factory
    assert factory(None).train.fingerprint == factory(tmp_path).train.fingerprint


def test_train_and_test_are_all_digits_and_share_none(digits: Digits) -> None:
    images = torch.from_numpy(load_digits().images)
    stored = {picture.numpy().tobytes() for picture in torch.cat([pixels_of(digits.train), pixels_of(digits.test)])}
    assert len(digits.train) + len(digits.test) == len(images) == len(stored) == 1797


def test_a_fifth_of_each_class_is_test(digits: Digits) -> None:
    of_all = torch.from_numpy(load_digits().target).bincount()
    in_test = digits.test.labels.bincount()
    assert in_test.tolist() == [round(count / 5) for count in of_all.tolist()]
    assert (digits.train.labels.bincount() + in_test).tolist() == of_all.tolist()


def test_the_split_never_changes(digits: Digits) -> None:
    """Scores of different times and machines are of the same pictures: these are the first ones of test."""
    target, images = load_digits(return_X_y=False).target, load_digits().images
    shown = [picture.tolist() for picture in pixels_of(digits.test)[:8, 0, ::4, ::4]]
    positions = [next(n for n, one in enumerate(images) if scaled(one) == picture) for picture in shown]
    assert positions == [11, 12, 17, 20, 23, 25, 32, 37]
    assert digits.test.labels[:8].tolist() == target[positions].tolist()


def scaled(image: object) -> list[list[int]]:
    return [[int(value * 255 / 16 + 0.5) for value in row] for row in image]  # type: ignore[attr-defined]


def test_values_span_0_to_255_and_stay_apart(digits: Digits) -> None:
    values = pixels_of(digits.train).unique().tolist()
    assert len(values) == 17
    assert (values[0], values[8], values[16]) == (0, 128, 255)
    assert all(abs(value - number * 255 / 16) <= 0.5 for number, value in enumerate(values))


def test_pixels_are_repeated_and_channels_are_equal(digits: Digits) -> None:
    pixels = pixels_of(digits.train)
    assert pixels.shape[1:] == (3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[:, 0], pixels[:, 2])
    small = pixels_of(Digits(None, image_size=8).train)
    assert torch.equal(pixels, small.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))


@pytest.mark.parametrize("size", [8, 9, 20, 33])
def test_any_size_shows_every_pixel(size: int) -> None:
    data = Digits(None, image_size=size)
    pixels = pixels_of(data.test)
    assert data.image_size == pixels.shape[-1] == pixels.shape[-2] == size
    first = (torch.arange(8) * size + 7) // 8  # where each stored pixel begins
    assert torch.equal(pixels[:, :, first][..., first], pixels_of(Digits(None, image_size=8).test))


def test_a_size_below_8_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match=r"^dataset digits: image_size must be at least 8, got 7\.$"):
        Digits(None, image_size=7)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        ClvrBenchError, match=r"scikit-learn, which is not installed\. Install it: pip install scikit-l"
    ):
        Digits(None)
