from __future__ import annotations

import pytest
import torch

from clvr_bench import ClvrBenchError, ResidentSplit
from clvr_bench.toolbox import labelled_subset, stratified_folds, training_part

LABELS = torch.tensor([0] * 100 + [1] * 40 + [2] * 3 + [-1] * 7)


def counts(samples: torch.Tensor) -> list[int]:
    return [int((LABELS[samples] == number).sum()) for number in (0, 1, 2, -1)]


def test_every_class_gives_its_part_and_one_at_least_and_the_unlabelled_nothing() -> None:
    assert counts(labelled_subset(LABELS, 0.1, seed=0)) == [10, 4, 1, 0]
    assert counts(labelled_subset(LABELS, 0.001, seed=0)) == [1, 1, 1, 0]
    assert counts(labelled_subset(LABELS, 1.0, seed=0)) == [100, 40, 3, 0]


def test_samples_are_numbered_upwards_once_each() -> None:
    samples = labelled_subset(LABELS, 0.5, seed=0)
    assert samples.dtype == torch.int64
    assert (samples.diff() > 0).all()


def test_a_smaller_fraction_is_part_of_a_larger_one_of_the_same_draw() -> None:
    small, large = (set(labelled_subset(LABELS, part, seed=3, draw=2).tolist()) for part in (0.05, 0.3))
    assert small < large


def test_seed_and_draw_decide_and_nothing_else() -> None:
    first = labelled_subset(LABELS, 0.1, seed=0)
    torch.manual_seed(99)
    assert torch.equal(first, labelled_subset(LABELS, 0.1, seed=0, draw=0))
    others = [labelled_subset(LABELS, 0.1, seed=1), labelled_subset(LABELS, 0.1, seed=0, draw=1)]
    assert not any(torch.equal(first, other) for other in [*others, torch.arange(15)])


def test_a_draw_is_the_same_on_any_machine() -> None:
    assert labelled_subset(torch.arange(40) % 4, 0.1, seed=0).tolist() == [9, 20, 26, 35]


def test_samples_of_a_class_are_dealt_out_in_turn() -> None:
    folds = stratified_folds(torch.tensor([1, 0, 1, 0, 1, 1, 0]), 3)
    # class 0 at 1, 3, 6 gets 0, 1, 2; class 1 at 0, 2, 4, 5 goes on with 0, 1, 2, 0
    assert folds.tolist() == [0, 0, 1, 1, 2, 0, 2]


def test_folds_hold_equal_shares_of_each_class_and_leave_some_of_each() -> None:
    labels = torch.tensor([0] * 13 + [1] * 5 + [2] * 8)[torch.randperm(26, generator=torch.Generator().manual_seed(0))]
    folds = stratified_folds(labels, 5)
    for number in range(3):
        shares = folds[labels == number].bincount(minlength=5)
        assert shares.max() - shares.min() <= 1
        assert (shares < (labels == number).sum()).all()


def numbered(labels: torch.Tensor) -> ResidentSplit:
    """Return a split whose pictures are one pixel each: their own numbers."""
    return ResidentSplit(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), labels)


def members(split: ResidentSplit) -> list[int]:
    return split.images(torch.arange(len(split))).pixels.flatten().tolist()


def test_a_training_part_has_the_same_share_of_every_class() -> None:
    part = training_part(numbered(torch.arange(200) % 4), 40, option="x")
    assert torch.bincount(part.labels).tolist() == [10] * 4
    assert (torch.tensor(members(part)) % 4).tolist() == part.labels.tolist()


def test_a_smaller_training_part_is_part_of_a_larger_one() -> None:
    split = numbered(torch.arange(200) % 4)
    small, large = (set(members(training_part(split, size, option="x"))) for size in (20, 80))
    assert small < large


@pytest.mark.parametrize("size", [0, 200])
def test_the_whole_training_set_is_itself(size: int) -> None:
    split = numbered(torch.arange(200) % 4)
    assert training_part(split, size, option="x") is split


@pytest.mark.parametrize("size", [-1, 201])
def test_a_training_part_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^dataset x: train_size must be from 1 to 200, or 0 .*, got {size}\.$"):
        training_part(numbered(torch.arange(200) % 4), size, option="dataset x: train_size")
