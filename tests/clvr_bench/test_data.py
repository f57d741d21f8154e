from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from clvr_bench import ClvrBenchError, Dataset, ResidentSplit, Split
from clvr_bench.combinations import Choice
from clvr_bench.data import HIDDEN, Access, Data, load, prepare, stratified
from clvr_bench.registry import Entry, Kind
from clvr_bench.storage.stored import StoredPictures
from clvr_bench.toolbox import PictureFiles

CPU = torch.device("cpu")
SHAPES = "d3b510286fcf986d"
"""The fingerprint in every committed record of the data set ``shapes``."""


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


def choice_of(dataset: type[Dataset], **options: Any) -> Choice:
    return Choice(Entry(Kind.DATASET, "given", dataset, "", "none", "1", "tests"), options)


def loaded(dataset: type[Dataset], options: dict[str, Any] | None = None, **how: Any) -> Data:
    return load(choice_of(dataset, **options or {}), Access(**{"workers": 0, **how}), CPU)


class Resident(Numbered):
    def __init__(self, root: Path | None, **options: Any) -> None:
        super().__init__(**options)


class Filed(Dataset):
    """A picture a class number, 20 of each of two classes in train, 2 in test."""

    image_size = 8
    class_names = ("a", "b")
    shared: ClassVar[int] = 0

    def __init__(self, root: Path) -> None:
        self._root = root

    def _files(self, split: str, seeds: Sequence[int]) -> PictureFiles:
        paths = [self._root / split / f"{number}.png" for number in range(len(seeds))]
        for seed, path in zip(seeds, paths, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(256, size=(8, 8 + seed % 2, 3), dtype=np.uint8)
            if not path.exists():
                Image.fromarray(pixels).save(path)
        return PictureFiles(paths, torch.arange(len(seeds)) % 2, 0, unreadable=0.1, root=self._root)

    @property
    def train(self) -> PictureFiles:
        return self._files("train", range(40))

    @property
    def test(self) -> PictureFiles:
        return self._files("test", [*range(self.shared), *range(100, 104 - self.shared)])


class Copied(Filed):
    shared = 3


def test_pictures_in_files_are_stored_and_split_without_copies(tmp_path: Path) -> None:
    data = loaded(Filed, root=tmp_path)
    splits = [data.train, data.val, data.test]
    assert [len(split) for split in splits] == [38, 2, 4]
    assert all(isinstance(split, StoredPictures) for split in splits)
    assert len({id(split._source) for split in splits if isinstance(split, StoredPictures)}) == 1


@pytest.mark.parametrize("limit", [None, 0])
def test_loading_gives_the_data_that_preparing_gives(tmp_path: Path, limit: int | None) -> None:
    plain, data = prepare("given", Filed(tmp_path), CPU), loaded(Filed, root=tmp_path, memory_limit=limit)
    assert data.fingerprint == plain.fingerprint
    for ours, expected in ((data.train, plain.train), (data.val, plain.val), (data.test, plain.test)):
        index = torch.arange(len(expected))
        assert torch.equal(ours.images(index).pixels, expected.images(index).pixels)
        assert torch.equal(ours.labels, expected.labels)


@pytest.mark.parametrize("read", [loaded, lambda dataset, root: prepare("given", dataset(root), CPU)])
def test_copies_of_train_in_test_are_counted(tmp_path: Path, read: Callable[..., Data]) -> None:
    assert read(Copied, root=tmp_path).notes == ("3 of 4 test pictures are also in train",)


def test_copies_are_reported_once(tmp_path: Path) -> None:
    lines: list[str] = []
    loaded(Copied, root=tmp_path, report=lines.append)
    assert lines == ["dataset given: 3 of 4 test pictures are also in train"]


def test_what_is_left_out_is_noted_and_reported_once_with_names(tmp_path: Path) -> None:
    lines: list[str] = []
    loaded(Copied, root=tmp_path)
    (tmp_path / "train" / "39.png").write_bytes(b"no picture")
    data = loaded(Copied, root=tmp_path, report=lines.append)
    assert data.notes == (
        "1 of 40 train pictures cannot be decoded and are left out",
        "3 of 4 test pictures are also in train",
    )
    assert len(lines) == 2
    assert "train/39.png (it is no picture" in lines[0]


def test_copies_among_pictures_in_memory_are_counted() -> None:
    class Repeating(Numbered):
        @property
        def test(self) -> ResidentSplit:
            return self.train.subset(torch.tensor([5, 9])).joined(super().test)

    assert prepare("repeating", Repeating(), CPU).notes == ("2 of 10 test pictures are also in train",)


def test_padding_and_labels_do_not_tell_copies_apart() -> None:
    class Padded(Numbered):
        @property
        def test(self) -> ResidentSplit:
            pixels, labels = torch.zeros(2, 3, 6, 6, dtype=torch.uint8), torch.tensor([0, 1])
            pixels[:, :, :4, :4] = 7
            return ResidentSplit(pixels, labels, torch.tensor([[4, 4], [4, 5]]))

    assert prepare("padded", Padded(), CPU).notes == ("1 of 2 test pictures are also in train",)


def test_splits_that_cannot_tell_are_not_compared() -> None:
    class Silent(ResidentSplit):
        def digests(self) -> None:  # type: ignore[override]  # as a split of another kind
            return None

    class Unknown(Numbered):
        @property
        def test(self) -> ResidentSplit:
            everything = self.train.images(torch.arange(4))
            return Silent(everything.pixels, self.train.labels[:4])

    assert prepare("unknown", Unknown(), CPU).notes == ()


def test_clean_data_have_no_notes(tmp_path: Path) -> None:
    assert prepared().notes == loaded(Filed, root=tmp_path).notes == ()


def test_of_clips_samples_are_counted() -> None:
    class Clips(Numbered):
        modality = "video"

        @property
        def test(self) -> ResidentSplit:
            return self.train.subset(torch.tensor([5]))

    assert prepare("clips", Clips(), CPU).notes == ("1 of 1 test samples are also in train",)


class Fetching(Resident):
    fetched: ClassVar[list[Path]] = []

    @classmethod
    def download(cls, root: Path) -> None:
        cls.fetched.append(root)


def test_files_are_fetched_only_on_request(tmp_path: Path) -> None:
    Fetching.fetched.clear()
    loaded(Fetching, root=tmp_path)
    assert Fetching.fetched == []
    loaded(Fetching, root=tmp_path, download=True)
    assert Fetching.fetched == [tmp_path]


def test_fetching_needs_a_folder() -> None:
    with pytest.raises(
        ClvrBenchError, match=r"^--download: name the folder that given is downloaded into, with --data-"
    ):
        loaded(Fetching, download=True)


def test_data_that_cannot_be_fetched_say_so(tmp_path: Path) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"^--download: this data set cannot be downloaded\. Leave the flag out\.$"
    ):
        loaded(Resident, root=tmp_path, download=True)


def test_a_data_set_that_raises_is_named() -> None:
    class Broken(Numbered):
        def __init__(self, root: Path | None) -> None:
            raise ZeroDivisionError("by\nnothing")

    with pytest.raises(
        ClvrBenchError, match=r"^dataset 'given' could not be loaded \(ZeroDivisionError: by nothing\)\.$"
    ):
        loaded(Broken)


def test_a_share_that_is_no_option_is_not_offered_as_one(tmp_path: Path) -> None:
    loaded(Filed, root=tmp_path)
    for number in range(20):
        (tmp_path / "train" / f"{number}.png").write_bytes(b"")
    with pytest.raises(ClvrBenchError, match=r"20 of 40 train pictures cannot be decoded, .* Mend or remove them$"):
        loaded(Filed, root=tmp_path)


def test_shapes_keep_their_fingerprint(plugins: Any) -> None:
    entry = plugins.registry.get(Kind.DATASET, "shapes")
    options = {name: option.default for name, option in entry.options.items()}
    assert load(Choice(entry, options), Access(), CPU).fingerprint == SHAPES
