from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, Dataset, ResidentSplit
from clvr_bench.ops.crops import center_view
from clvr_bench.samples import LEAST_TRAIN_SIZE, Samples, choose_samples


class Little(Dataset):
    """Five pictures of 6 by 8 pixels in a frame of 8 by 8; the first two and the last are of class ``a``."""

    image_size = 4
    title = "little"
    class_names = ("a", "b")
    coarse_names, coarse = ("both",), (0, 0)

    def __init__(self, root: Path | None = None, labels: tuple[int, ...] = (0, 0, 1, 1, 0)) -> None:
        pixels = torch.randint(0, 256, (len(labels), 3, 8, 8), generator=torch.Generator().manual_seed(0))
        sizes = torch.tensor([[6, 8]]).expand(len(labels), 2)
        self._split = ResidentSplit(pixels.to(torch.uint8), torch.tensor(labels), sizes)

    @property
    def train(self) -> ResidentSplit:
        return self._split

    @property
    def test(self) -> ResidentSplit:
        raise AssertionError("a preview never reads the test split")


def chosen(
    numbers: list[int] | None = None, *, dataset: Dataset | None = None, size: int | None = None, seed: int = 0
) -> Samples:
    return choose_samples("little", dataset or Little(), numbers=numbers, image_size=size, seed=seed)


def random_numbers(samples: Samples, draw: int = 0) -> Tensor:
    return samples.random(draw)("test").uniform(3)


def test_two_pictures_of_two_classes_are_chosen() -> None:
    samples = chosen()
    assert samples.index.tolist() == [0, 2]
    assert samples.labels == ["a, image 0", "b, image 2"]


def test_where_all_are_of_one_class_the_first_is_chosen() -> None:
    assert chosen(dataset=Little(labels=(1, 1))).labels == ["b, image 0"]


def test_pictures_are_those_with_the_numbers_asked_for_in_their_order() -> None:
    samples = chosen([4, 3])
    stored = Little().train.images(torch.tensor([4, 3]))
    assert torch.equal(samples.images.pixels, stored.pixels)
    assert samples.labels == ["a, image 4", "b, image 3"]


def test_a_picture_without_a_label_has_its_number_alone() -> None:
    assert chosen([0], dataset=Little(labels=(-1, 0))).labels == ["image 0"]


@pytest.mark.parametrize("number", [5, -1])
def test_a_number_that_is_none_is_refused_with_those_that_are(number: int) -> None:
    with pytest.raises(ClvrBenchError, match=f"--images {number}: dataset 'little' has the training pictures 0 to 4"):
        chosen([0, number])


def test_views_are_those_that_encoders_are_evaluated_on() -> None:
    assert torch.equal(chosen([1]).views, center_view(Little().train.images(torch.tensor([1])), 4))
    assert chosen([1], size=6).views.shape == (1, 3, 6, 6)


def test_facts_have_the_size_asked_for_and_room_for_what_tasks_remember() -> None:
    facts = chosen(size=16).facts("fine")
    assert (facts.image_size, facts.num_classes, facts.train_size) == (16, 2, LEAST_TRAIN_SIZE)
    assert chosen(dataset=Little(labels=(0, 1) * 100)).facts("coarse").train_size == 200


def test_draws_belong_to_a_picture_a_seed_and_a_draw() -> None:
    numbers = random_numbers(chosen([1, 3]))
    assert torch.equal(numbers[1], random_numbers(chosen([3]))[0])
    assert not torch.equal(numbers, random_numbers(chosen([1, 3]), draw=1))
    assert not torch.equal(numbers, random_numbers(chosen([1, 3], seed=1)))


@pytest.mark.parametrize(
    ("attribute", "value", "found"), [("channels", 2, "image of 2"), ("modality", "video", "video")]
)
def test_what_cannot_be_drawn_is_refused(attribute: str, value: object, found: str) -> None:
    dataset = Little()
    setattr(dataset, attribute, value)
    with pytest.raises(ClvrBenchError, match=f"dataset 'little' holds {found}.*only images of 1 or 3 channels"):
        chosen(dataset=dataset)


def test_a_data_set_without_pictures_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="dataset 'little' has no training pictures"):
        chosen(dataset=Little(labels=()))


def test_a_data_set_that_raises_is_blamed() -> None:
    class Broken(Little):
        @property
        def train(self) -> ResidentSplit:
            raise OSError("disk on fire")

    with pytest.raises(
        ClvrBenchError, match=r"dataset little: its training split raised OSError: disk on fire \(test_"
    ):
        chosen(dataset=Broken())
