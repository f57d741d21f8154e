from __future__ import annotations

from typing import Any

import pytest
import torch

from clvr_bench import ClvrBenchError, Dataset, ResidentSplit, Split
from clvr_bench.data import HIDDEN, Data, prepare, stratified

CPU = torch.device("cpu")


class Numbered(Dataset):
    """Every pixel is the number of the sample; its class is that modulo K, its coarse class the class modulo 2."""

    image_size = 4

    def __init__(self, train: int = 100, test: int = 8, unlabelled: int = 0, classes: int = 4, title: str = "") -> None:
        self.class_names = tuple(f"class {number}" for number in range(classes))
        self.coarse_names, self.coarse = ("even", "odd"), tuple(number % 2 for number in range(classes))
        self.title = title
        self._splits = [self._split(0, train), self._split(train, test)]
        self._unlabelled = self._split(train + test, unlabelled) if unlabelled else None

    def _split(self, first: int, count: int) -> ResidentSplit:
        numbers = torch.arange(first, first + count)
        labels = numbers % max(1, len(self.class_names))
        return ResidentSplit(numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4), labels)

    @property
    def train(self) -> ResidentSplit:
        return self._splits[0]

    @property
    def test(self) -> ResidentSplit:
        return self._splits[1]

    @property
    def unlabelled(self) -> ResidentSplit | None:
        hidden = self._unlabelled
        if hidden is None:
            return None
        return ResidentSplit(hidden.images(torch.arange(len(hidden))).pixels, torch.full_like(hidden.labels, -1))


def numbers_of(split: Split) -> list[int]:
    return split.images(torch.arange(len(split))).pixels[:, 0, 0, 0].tolist()


def prepared(**options: Any) -> Data:
    return prepare("numbered", Numbered(**options), CPU)


@pytest.mark.parametrize(("fraction", "expected"), [(0.05, [2, 3, 1, 1]), (0.5, [20, 30, 2, 1]), (1.0, [40, 60, 4, 1])])
def test_every_class_gives_the_same_part_and_at_least_one(fraction: float, expected: list[int]) -> None:
    labels = torch.tensor([0] * 40 + [1] * 60 + [2] * 4 + [3])
    assert labels[stratified(labels, fraction, seed=0)].bincount().tolist() == expected


def test_samples_without_a_label_are_never_chosen() -> None:
    labels = torch.tensor([-1] * 50 + [0] * 10)
    assert not stratified(labels, 1.0, seed=0)[:50].any()


def test_the_choice_follows_the_seed() -> None:
    labels = torch.zeros(200, dtype=torch.long)
    first, again, other = (stratified(labels, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_choice_is_spread_over_the_class() -> None:
    chosen = stratified(torch.zeros(2000, dtype=torch.long), 0.5, seed=0)
    assert 430 < chosen[:1000].sum() < 570  # 500 expected, standard deviation 11


def test_val_is_a_twentieth_of_every_class_of_train() -> None:
    data = prepared()
    assert len(data.train) == 96
    assert data.val.labels.bincount().tolist() == [1, 1, 1, 1]


def test_train_and_val_share_no_sample_and_lose_none() -> None:
    data = prepared()
    assert sorted(numbers_of(data.train) + numbers_of(data.val)) == list(range(100))


def test_labels_stay_with_their_pictures() -> None:
    data = prepared(unlabelled=20)
    for split in (data.train, data.val, data.test):
        assert split.labels.tolist() == [number % 4 for number in numbers_of(split)]


def test_test_is_left_whole_and_in_order() -> None:
    assert numbers_of(prepared().test) == list(range(100, 108))


def test_val_is_the_same_whenever_it_is_held_out() -> None:
    assert numbers_of(prepared().val) == numbers_of(prepared(unlabelled=10, title="again").val)


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_classes_are_refused(classes: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^dataset numbered: it has only {classes} of the two or more classes"):
        prepared(classes=classes)


@pytest.mark.parametrize(("train", "test"), [(0, 8), (100, 0)])
def test_an_empty_split_is_refused(train: int, test: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"{train} training and {test} test samples; both are needed"):
        prepared(train=train, test=test)


def test_a_sample_a_class_is_too_few_to_hold_any_out() -> None:
    with pytest.raises(ClvrBenchError, match=r"dataset numbered: 4 training samples are too few to hold 5% out"):
        prepared(train=4)


def test_the_title_is_the_data_sets_or_its_name() -> None:
    assert (prepared().title, prepared(title="The Numbers").title) == ("numbered", "The Numbers")


def test_equal_data_have_equal_fingerprints() -> None:
    assert prepared(unlabelled=4).fingerprint == prepared(unlabelled=4).fingerprint
    assert len(prepared().fingerprint) == 16


@pytest.mark.parametrize("change", [{"train": 99}, {"test": 7}, {"unlabelled": 4}, {"classes": 5}])
def test_any_split_changes_the_fingerprint(change: dict[str, int]) -> None:
    assert prepared(**change).fingerprint != prepared().fingerprint


def test_class_names_are_part_of_the_fingerprint() -> None:
    renamed = Numbered()
    renamed.class_names = ("a", "b", "c", "d")
    assert prepare("numbered", renamed, CPU).fingerprint != prepared().fingerprint


@pytest.mark.parametrize("labels", ["none", "partial"])
def test_tasks_that_can_do_without_labels_get_the_unlabelled_samples_too(labels: Any) -> None:
    data = prepared(unlabelled=20)
    assert numbers_of(data.pretraining(labels)) == numbers_of(data.train) + list(range(108, 128))


@pytest.mark.parametrize("labels", ["fine", "coarse"])
def test_tasks_that_need_every_label_get_the_labelled_samples(labels: Any) -> None:
    data = prepared(unlabelled=20)
    assert numbers_of(data.pretraining(labels)) == numbers_of(data.train)


def test_joining_pads_to_the_larger_picture() -> None:
    class Mixed(Numbered):
        @property
        def unlabelled(self) -> ResidentSplit:
            return ResidentSplit(torch.full((2, 3, 6, 5), 200, dtype=torch.uint8), torch.tensor([-1, -1]))

    images = prepare("mixed", Mixed(), CPU).pretraining("none").images(torch.tensor([0, 96]))
    assert images.sizes.tolist() == [[4, 4], [6, 5]]
    assert images.pixels.shape == (2, 3, 6, 5)
    assert not images.pixels[0, :, 4:].any()
    assert not images.pixels[0, :, :, 4:].any()


def test_a_task_without_labels_sees_none() -> None:
    data = prepared(unlabelled=20)
    assert data.labels_for("none", 0.5, seed=0).tolist() == [HIDDEN] * 116


def test_a_task_with_fine_labels_sees_all() -> None:
    data = prepared(unlabelled=20)
    assert data.labels_for("fine", 0.5, seed=0).tolist() == [number % 4 for number in numbers_of(data.train)]


def test_a_task_with_coarse_labels_sees_the_coarse_classes() -> None:
    data = prepared(unlabelled=20)
    assert data.labels_for("coarse", 0.5, seed=0).tolist() == [number % 2 for number in numbers_of(data.train)]


def test_partial_labels_are_a_stratified_part_of_the_labelled_samples() -> None:
    data = prepared(unlabelled=20)
    seen = data.labels_for("partial", 0.25, seed=0)
    shown = (seen != HIDDEN).nonzero()[:, 0]
    assert len(seen) == 116
    assert seen[shown].bincount().tolist() == [6, 6, 6, 6]  # a quarter of 24
    assert torch.equal(seen[shown], data.train.labels[shown])  # none of the unlabelled, which come last


def test_which_labels_are_seen_follows_the_seed() -> None:
    data = prepared()
    first, again, other = (data.labels_for("partial", 0.25, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("labels", "classes", "size"), [("none", None, 116), ("fine", 4, 96), ("coarse", 2, 96), ("partial", 4, 116)]
)
def test_facts_tell_only_what_the_declared_labels_allow(labels: Any, classes: int | None, size: int) -> None:
    facts = prepared(unlabelled=20).facts(labels)
    assert (facts.num_classes, facts.train_size) == (classes, size)


def test_facts_describe_the_pictures() -> None:
    facts = prepared().facts("none")
    assert (facts.modality, facts.image_size, facts.channels, facts.frames, facts.cameras) == ("image", 4, 3, 1, 1)
