from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import features as harness_features
from clvr_bench.assembly import build_task
from clvr_bench.combinations import Planner
from clvr_bench.contracts.values import Progress
from clvr_bench.data import prepare
from clvr_bench.plugins import Plugins
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.suites import parse_suite
from clvr_plugins.pretext_tasks.random_init import RandomInit, batch_norms

CPU = torch.device("cpu")


class GivenEpoch:
    """Serves given pictures in batches of a given size; asked for anything else, it has nothing."""

    progress = Progress(0, 0, 0, 0)

    def __init__(self, pictures: Tensor, batch: int) -> None:
        self._pictures, self._batch = pictures, batch

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.arange(len(self._pictures)).split(self._batch):
            yield index, self._pictures[index]


@pytest.fixture
def start(plugins: Plugins) -> Callable[..., Pretraining]:
    """Set a run of a task up on 120 small pictures, 110 of them for training."""

    def build(task: str = "random_init", *, encoder: str = "tiny", seed: int = 0) -> Pretraining:
        content = {
            "name": "test",
            "seeds": [seed],
            "encoders": [encoder],
            "datasets": [{"name": "shapes", "train_size": 120, "test_size": 20, "image_size": 16}],
            "budget": {"epochs": 1, "batch_size": 20},
            "pretext_tasks": [task],
        }
        (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
        data = prepare("shapes", combination.dataset.entry.factory(None, **combination.dataset.options), CPU)
        built = build_task(combination.task, combination.encoder, seed, data.facts(combination.task.task.labels))
        return Pretraining(built, Setting(combination, data, None, CPU, "fp32"))

    return build


def training_pictures(run: Pretraining) -> Tensor:
    split = run.setting.data.train
    return split.images(torch.arange(len(split))).pixels.float() / 255


def convolved(run: Pretraining) -> Tensor:
    """What the tiny encoder's BatchNorm is fed: (N * h * w, channels) for the whole training set."""
    encoder: Any = run.task.encoder
    convolution = encoder.network[0]
    normalized = (training_pictures(run) - 0.5) / 0.25
    maps = F.conv2d(normalized, convolution.weight, stride=2, padding=1)
    return maps.permute(0, 2, 3, 1).flatten(0, 2).double().detach()


def calibrated_norm(run: Pretraining) -> nn.BatchNorm2d:
    run.prepare_untrained()
    (norm,) = batch_norms(run.task.encoder)
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def test_batch_norm_has_the_statistics_of_the_whole_training_set(start: Callable[..., Pretraining]) -> None:
    run = start()
    norm, inputs = calibrated_norm(run), convolved(run)
    torch.testing.assert_close(norm.running_mean.double(), inputs.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), inputs.var(dim=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [22, 30])
def test_batches_equal_or_not_give_the_mean_of_the_whole_training_set(
    start: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(harness_features, "BATCH", batch)
    run = start()
    norm, inputs = calibrated_norm(run), convolved(run)
    assert norm.num_batches_tracked == -(-110 // batch)
    torch.testing.assert_close(norm.running_mean.double(), inputs.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_earlier_statistics_are_forgotten(start: Callable[..., Pretraining]) -> None:
    fresh, used = start(), start()
    (norm,) = batch_norms(used.task.encoder)
    norm.running_mean.fill_(100.0)
    norm.running_var.fill_(0.1)
    norm.num_batches_tracked.fill_(9)  # what a mean over all batches would count the old values as
    assert torch.equal(calibrated_norm(used).running_mean, calibrated_norm(fresh).running_mean)
    assert torch.equal(norm.running_var, calibrated_norm(fresh).running_var)


def test_the_momentum_is_restored(start: Callable[..., Pretraining]) -> None:
    run = start(encoder="resnet18_small_w16")
    norms = batch_norms(run.task.encoder)
    norms[0].momentum = 0.25
    before = [norm.momentum for norm in norms]
    run.task.before_epoch(GivenEpoch(torch.rand(4, 3, 16, 16), batch=2))
    assert [norm.momentum for norm in norms] == before


def test_residual_branches_that_start_at_zero_start_at_one(plugins: Plugins, start: Callable[..., Pretraining]) -> None:
    timms, ours = (start(task, encoder="resnet18").task.encoder for task in ("simclr", "random_init"))
    zeros = [name for name, norm in timms.named_modules() if isinstance(norm, nn.BatchNorm2d) and not norm.weight.any()]
    assert len(zeros) == 8  # the last BatchNorm of each of ResNet-18's eight blocks
    assert all((ours.get_submodule(name).weight == 1).all() for name in zeros)


def test_the_convolutions_are_those_of_the_seeds_encoder(start: Callable[..., Pretraining]) -> None:
    ours, others, seed1 = (
        start(task, encoder="resnet18_small_w16", seed=seed).task.encoder
        for task, seed in (("random_init", 0), ("simclr", 0), ("random_init", 1))
    )
    weights = [name for name, p in ours.named_parameters() if p.ndim == 4]
    assert len(weights) == 20
    assert all(torch.equal(ours.get_parameter(name), others.get_parameter(name)) for name in weights)
    assert not any(torch.equal(ours.get_parameter(name), seed1.get_parameter(name)) for name in weights)


def test_calibration_changes_no_weight(start: Callable[..., Pretraining]) -> None:
    run = start()
    before = {name: p.clone() for name, p in run.task.named_parameters()}
    run.prepare_untrained()
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in run.task.named_parameters())


def test_a_batch_norm_without_weights_is_left_alone() -> None:
    encoder: Any = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4))
    nn.init.constant_(encoder[1].weight, 0.5)
    task = RandomInit(encoder, None)  # type: ignore[arg-type]  # it looks at no data
    assert (task.encoder[1].weight == 0.5).all()


def test_nothing_is_trained(start: Callable[..., Pretraining]) -> None:
    run = start()
    assert run.finished
    assert not run.task.trains
    assert not run.task.ranked
