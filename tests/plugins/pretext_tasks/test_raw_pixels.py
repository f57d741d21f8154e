from __future__ import annotations

import pytest
import torch

from clvr_bench.assembly import build_task
from clvr_bench.combinations import Combination, Planner
from clvr_bench.data import prepare
from clvr_bench.features import FrozenRepresentation
from clvr_bench.plugins import Plugins
from clvr_bench.suites import parse_suite
from clvr_plugins.pretext_tasks.raw_pixels import RawPixels

CPU = torch.device("cpu")


@pytest.fixture
def combination(plugins: Plugins) -> Combination:
    content = {
        "name": "test",
        "encoders": ["tiny", "resnet18"],
        "augmentations": ["default", "none"],
        "datasets": [{"name": "shapes", "train_size": 60, "test_size": 20, "image_size": 16}],
        "budget": {"epochs": 1, "batch_size": 20},
        "pretext_tasks": ["raw_pixels"],
    }
    (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
    return combination


def test_encoders_and_augmentations_make_no_difference(combination: Combination) -> None:
    assert combination.encoder is None
    assert combination.augmentation == ()


def test_features_are_the_pixels_of_the_pictures(combination: Combination) -> None:
    data = prepare("shapes", combination.dataset.entry.factory(None, **combination.dataset.options), CPU)
    task = build_task(combination.task, combination.encoder, 0, data.facts("none"))
    frozen = FrozenRepresentation(task.representation(), data, CPU, "fp32", 0)
    stored = data.test.images(torch.arange(20)).pixels
    torch.testing.assert_close(frozen.features("test"), stored.flatten(1) / 255)


def test_a_picture_is_flattened_channel_by_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    flat = RawPixels(None, None).representation()(images)  # type: ignore[arg-type]  # it looks at no data
    assert torch.equal(flat, torch.cat([images[:, c].reshape(2, 20) for c in range(3)], dim=1))


def test_it_has_nothing_to_train_or_to_save() -> None:
    task = RawPixels(None, None)  # type: ignore[arg-type]  # it looks at no data
    assert not list(task.parameters())
    assert not task.state_dict()
    assert (task.trains, task.ranked, task.uses_encoder) == (False, False, False)
