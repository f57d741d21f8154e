from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Dataset, ResidentSplit, Split, features
from clvr_bench.data import Data, prepare
from clvr_bench.features import FrozenRepresentation, center_views, evenly, extract

CPU = torch.device("cpu")


class Watched(nn.Module):
    """Flattens pictures and remembers in which state it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, bool, bool]] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((len(images), self.training, torch.is_grad_enabled()))
        return self.scale * images.flatten(1)


class Pictures(Dataset):
    image_size = 4
    class_names = ("a", "b")

    def __init__(self) -> None:
        self._train, self._test = split_of(40), split_of(10, seed=1)

    @property
    def train(self) -> ResidentSplit:
        return self._train

    @property
    def test(self) -> ResidentSplit:
        return self._test


def split_of(count: int, seed: int = 0, size: int = 4) -> ResidentSplit:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return ResidentSplit(pixels, torch.arange(count) * 2 // count)


def pixels_of(split: Split) -> Tensor:
    return split.images(torch.arange(len(split))).pixels.flatten(1) / 255


@pytest.fixture
def data() -> Data:
    return prepare("pictures", Pictures(), CPU)


def frozen(data: Data, module: nn.Module, precision: str = "fp32") -> FrozenRepresentation:
    return FrozenRepresentation(module, data, CPU, precision, seed=3)


def test_features_are_those_of_all_samples_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", 7)
    watched, split = Watched(), split_of(20)
    torch.testing.assert_close(extract(watched, split, 4, CPU, "fp32"), pixels_of(split))
    assert [count for count, *_ in watched.calls] == [7, 7, 6]


def test_views_are_centered_squares_of_the_size_asked_for() -> None:
    pixels = torch.zeros(2, 3, 4, 8, dtype=torch.uint8)
    pixels[:, :, :, 2:6] = 255  # the largest central square
    ((index, views),) = center_views(ResidentSplit(pixels, torch.zeros(2).long()), 6)
    assert index.tolist() == [0, 1]
    assert views.shape == (2, 3, 6, 6)
    torch.testing.assert_close(views, torch.ones(2, 3, 6, 6))


def test_a_split_is_told_which_samples_will_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BATCH", 7)
    split, told, asked = split_of(20), list[list[int]](), list[list[int]]()
    images = split.images
    monkeypatch.setattr(split, "expect", lambda batches: told.extend(batch.tolist() for batch in batches))
    monkeypatch.setattr(split, "images", lambda index: asked.append(index.tolist()) or images(index))
    extract(Watched(), split, 4, CPU, "fp32")
    assert told == asked == [list(range(7)), list(range(7, 14)), list(range(14, 20))]


def test_extraction_runs_in_eval_mode_without_a_gradient() -> None:
    watched = Watched().train()
    found = extract(watched, split_of(5), 4, CPU, "fp32")
    assert watched.calls == [(5, False, False)]
    assert not found.requires_grad


def test_extraction_restores_the_mode_of_every_part() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten()).train()
    module[0].eval()
    extract(module, split_of(5), 4, CPU, "fp32")
    assert [part.training for part in module.modules()] == [True, False, True, True]


def test_modes_are_restored_after_an_error() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(1, 1)).train()
    with pytest.raises(RuntimeError):
        extract(module, split_of(5), 4, CPU, "fp32")
    assert all(part.training for part in module.modules())


def test_features_are_float32_in_any_precision() -> None:
    split, linear = split_of(5), nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
    whole, half = (extract(linear, split, 4, CPU, precision) for precision in ("fp32", "bf16"))
    assert (whole.dtype, half.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(whole, half)
    torch.testing.assert_close(whole, half, rtol=0.05, atol=0.02)


def test_few_samples_are_all_taken() -> None:
    split = split_of(5)
    assert evenly(split, 5) is split


def test_of_many_samples_as_many_as_asked_for_are_taken_once_each() -> None:
    split = split_of(103)
    chosen = pixels_of(evenly(split, 25))
    places = (chosen[:, None] == pixels_of(split)[None]).all(dim=2).nonzero()[:, 1]
    assert len(places.unique()) == 25
    assert (places[0], places[-1]) == (0, 102)
    assert set(places.diff().tolist()) <= {4, 5}


def test_sorted_classes_keep_their_parts() -> None:
    labels = torch.arange(10).repeat_interleave(60)
    split = ResidentSplit(torch.zeros(600, 1, 1, 1, dtype=torch.uint8), labels)
    counts = evenly(split, 100).labels.bincount()
    assert (counts - 10).abs().max() <= 1


def test_a_representation_is_frozen(data: Data) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).train()
    assert frozen(data, module).representation is module
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_each_split_is_extracted_once(data: Data) -> None:
    watched = Watched()
    judged = frozen(data, watched)
    assert watched.calls == []
    first = judged.features("train")
    assert judged.features("train") is first
    judged.features("test")
    assert [count for count, *_ in watched.calls] == [38, 10]


def test_features_and_labels_are_those_of_the_split(data: Data) -> None:
    judged = frozen(data, Watched())
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert judged.split(name) is split
        assert torch.equal(judged.labels(name), split.labels)
        torch.testing.assert_close(judged.features(name), pixels_of(split))


def test_what_an_evaluation_may_know_is_there(data: Data) -> None:
    judged = frozen(data, Watched())
    assert (judged.num_classes, judged.image_size, judged.seed, judged.device) == (2, 4, 3, CPU)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_copy_can_be_run_in_the_runs_precision(data: Data, precision: str, dtype: torch.dtype) -> None:
    copy = nn.Linear(48, 8)
    with frozen(data, nn.Flatten(), precision).autocast():
        assert copy(torch.rand(2, 48)).dtype == dtype
    assert copy(torch.rand(2, 48)).dtype == torch.float32


def test_other_views_can_be_encoded_without_a_gradient(data: Data) -> None:
    views = torch.rand(3, 3, 4, 4, requires_grad=True)
    encoded = frozen(data, Watched(), "bf16").encode(views)
    assert (encoded.dtype, encoded.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(encoded, views.detach().flatten(1))
