from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clvr_bench import ClvrBenchError, SampleRandom
from clvr_plugins.datasets import shapes
from clvr_plugins.datasets.shapes import Shapes, draw_pictures, silhouette_coverage

EVERY_SILHOUETTE = Shapes.class_names
QUARTER_TURNS = [(turns, mirrored) for turns in (1, 2, 3) for mirrored in (False, True)]


@pytest.fixture(scope="module")
def small() -> Shapes:
    return Shapes(None, train_size=1200, test_size=600)


def pixels_of(split: shapes.ResidentSplit) -> torch.Tensor:
    return split.images(torch.arange(len(split))).pixels


def samples(count: int) -> SampleRandom:
    return SampleRandom.keyed(0, 0, torch.arange(count))


def upright_mask(name: str, degrees: float = 0.0) -> NDArray[np.bool_]:
    grid = np.linspace(-1, 1, 64, dtype=np.float32)
    x, y = np.broadcast_arrays(grid[None, :], -grid[:, None])
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return shapes._SILHOUETTES[name](cosine * x + sine * y, cosine * y - sine * x) < 0


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_pictures_are_color_bytes_and_labels_are_class_numbers(small: Shapes) -> None:
    pixels = pixels_of(small.train)
    assert (pixels.shape, pixels.dtype) == ((1200, 3, 32, 32), torch.uint8)
    assert (small.train.labels.shape, small.train.labels.dtype) == ((1200,), torch.int64)


def test_image_size_is_what_was_asked_for() -> None:
    data = Shapes(None, train_size=10, test_size=10, image_size=48)
    assert data.image_size == 48
    assert pixels_of(data.test).shape == (10, 3, 48, 48)


def test_classes_are_balanced_in_both_splits(small: Shapes) -> None:
    assert small.train.labels.bincount().tolist() == [120] * 10
    assert small.test.labels.bincount().tolist() == [60] * 10


def test_bytes_are_those_of_version_one() -> None:
    data = Shapes(None, train_size=40, test_size=10)
    assert data.train.fingerprint.startswith("30bd10a8f38ee984")  # a new value needs a new version


def test_splits_are_drawn_once(small: Shapes) -> None:
    assert small.train is small.train
    assert small.test is small.test


def test_larger_set_begins_with_the_smaller_one(small: Shapes) -> None:
    few = Shapes(None, train_size=30, test_size=10)
    assert torch.equal(pixels_of(few.train), pixels_of(small.train)[:30])


def test_train_and_test_share_no_picture(small: Shapes) -> None:
    train = {picture.numpy().tobytes() for picture in pixels_of(small.train)}
    assert len(train) == len(small.train)
    assert not any(picture.numpy().tobytes() in train for picture in pixels_of(small.test))


def test_seeds_draw_different_pictures() -> None:
    first, second = (pixels_of(Shapes(None, train_size=10, test_size=10, seed=seed).train) for seed in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_class_has_a_silhouette_and_a_coarse_class() -> None:
    assert set(shapes._SILHOUETTES) == set(EVERY_SILHOUETTE)
    assert len(Shapes.coarse) == len(EVERY_SILHOUETTE)
    assert set(Shapes.coarse) == set(range(len(Shapes.coarse_names)))


@pytest.mark.parametrize(
    ("option", "value"), [("train_size", 9), ("test_size", 0), ("image_size", 15), ("train_size", -1)]
)
def test_too_small_a_size_is_refused_by_name_and_value(option: str, value: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"shapes: {option} must be at least \d+, got {value}"):
        Shapes(None, **{option: value})


def test_tilts_fill_30_degrees_either_way_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(x: shapes.Array, y: shapes.Array) -> shapes.Array:
        seen.append(np.degrees(np.arctan2(x[:, 0, 0] - x[:, 1, 0], x[:, 0, 1] - x[:, 0, 0])))
        return x

    monkeypatch.setitem(shapes._SILHOUETTES, "spy", spy)
    silhouette_coverage("spy", samples(500), size=16)
    assert (seen[0].min(), seen[0].max()) == pytest.approx((-30, 30), abs=0.5)
    assert np.abs(seen[0]).max() <= 30.01


@pytest.mark.parametrize("name", EVERY_SILHOUETTE)
def test_silhouette_stays_inside_the_unit_disk_and_is_large_enough_to_meet_crops(name: str) -> None:
    grid = np.linspace(-1.5, 1.5, 96, dtype=np.float32)
    x, y = np.broadcast_arrays(grid[None, :], grid[:, None])
    inside = shapes._SILHOUETTES[name](x, y) < 0
    assert not inside[np.hypot(x, y) > 1.19].any()
    assert upright_mask(name).mean() > 0.15


@pytest.mark.parametrize("name", EVERY_SILHOUETTE)
def test_silhouette_has_an_up_that_mirroring_keeps(name: str) -> None:
    upright = upright_mask(name)
    for turns, mirrored in QUARTER_TURNS:
        turned = np.rot90(upright[:, ::-1] if mirrored else upright, turns)
        assert overlap(upright, turned) < 0.8


@pytest.mark.parametrize(("first", "second"), list(combinations(EVERY_SILHOUETTE, 2)))
def test_silhouettes_stay_distinct_when_tilted(first: str, second: str) -> None:
    masks = [upright_mask(second, degrees) for degrees in (-60, -30, 0, 30, 60)]
    assert max(overlap(upright_mask(first), mask) for mask in masks) < 0.8


def test_edges_are_antialiased() -> None:
    coverage = silhouette_coverage("heart", samples(20), size=32)
    partial = ((coverage > 0.05) & (coverage < 0.95)).mean(axis=(1, 2))
    assert (partial > 0.02).all()
    assert (coverage.max(), coverage.min()) == (1, 0)


def test_silhouette_and_ground_differ_in_brightness_with_either_the_brighter() -> None:
    random, size = samples(200), 32
    inside = silhouette_coverage("heart", random, size)[:, None]
    gray = draw_pictures("heart", random, size).mean(axis=1, keepdims=True)
    difference = (gray * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)) - (gray * (1 - inside)).sum((1, 2, 3)) / (
        1 - inside
    ).sum((1, 2, 3))
    assert 0.3 < (difference > 0).mean() < 0.7
    assert (np.abs(difference) > 25).mean() > 0.9


def test_raw_pixels_hardly_tell_the_class(small: Shapes) -> None:
    train, test = (pixels_of(split).flatten(1).numpy() / 255 for split in (small.train, small.test))
    classifier = LogisticRegression(C=1e-4, max_iter=50).fit(train, small.train.labels.numpy())
    assert classifier.score(test, small.test.labels.numpy()) < 0.22  # chance is 0.10
