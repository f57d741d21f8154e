from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.models.batchnorm import SplitBatchNorm as LightlySplitBatchNorm
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import SplitBatchNorm, split_batch_norm

SHAPES = {nn.BatchNorm1d: (3,), nn.BatchNorm2d: (3, 4, 5), nn.BatchNorm3d: (3, 2, 2, 2), BatchNormAct2d: (3, 4, 5)}


def randomized(norm: Any) -> Any:
    """A BatchNorm none of whose parameters or statistics is at its initial value."""
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(3))
        norm.running_var.copy_(torch.rand(3) + 0.5)
    return norm


def images(count: int, shape: tuple[int, ...] = (3, 4, 5)) -> Tensor:
    return 2 * torch.randn(count, *shape) + 1


def on_devices(norm: Any, batch: Tensor, splits: int) -> tuple[Tensor, list[Any]]:
    """What as many devices as there are splits would give: their outputs in order, and their BatchNorms afterwards."""
    devices = [copy.deepcopy(norm) for _ in range(splits)]
    outputs = [device(part) for device, part in zip(devices, batch.tensor_split(splits), strict=True)]
    return torch.cat(outputs), devices


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("splits", [2, 3])
def test_each_part_is_normalized_as_on_a_device_of_its_own(kind: Any, splits: int) -> None:
    norm, batch = randomized(kind(3)), images(12, SHAPES[kind])
    expected, _ = on_devices(norm, batch, splits)
    torch.testing.assert_close(split_batch_norm(norm, splits)(batch), expected)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_the_mean_of_the_devices(momentum: float | None) -> None:
    norm = randomized(nn.BatchNorm2d(3, momentum=momentum))
    split: Any = split_batch_norm(copy.deepcopy(norm), 3)
    for _ in range(2):
        batch = images(12)
        _, devices = on_devices(norm, batch, 3)
        split(batch)
        for name in ("running_mean", "running_var"):
            mean = torch.stack([getattr(device, name) for device in devices]).mean(dim=0)
            torch.testing.assert_close(getattr(split, name), mean)
            getattr(norm, name).copy_(mean)
        norm.num_batches_tracked += 1
    assert int(split.num_batches_tracked) == 2


@settings(deadline=None, max_examples=25)
@given(count=st.integers(4, 20), splits=st.integers(2, 8))
def test_parts_that_do_not_divide_the_batch_are_nearly_equal_and_have_two_samples(count: int, splits: int) -> None:
    batch = torch.randn(count, 3)
    parts = batch.tensor_split(min(splits, count // 2))
    assert min(map(len, parts)) >= 2
    expected = torch.cat([nn.BatchNorm1d(3)(part) for part in parts])
    torch.testing.assert_close(split_batch_norm(nn.BatchNorm1d(3), splits)(batch), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_batch_too_small_for_two_parts_is_whole(count: int) -> None:
    norm, batch = randomized(nn.BatchNorm2d(3)), images(count)
    expected = copy.deepcopy(norm)(batch)
    torch.testing.assert_close(split_batch_norm(norm, 4)(batch), expected)


@pytest.mark.parametrize("kind", SHAPES)
def test_in_eval_mode_it_is_the_batch_norm_it_was(kind: Any) -> None:
    norm, batch = randomized(kind(3)).eval(), images(6, SHAPES[kind])
    expected = copy.deepcopy(norm)(batch)
    split = split_batch_norm(norm, 2)
    before = copy.deepcopy(split.state_dict())
    assert torch.equal(split(batch), expected)
    assert all(torch.equal(before[name], value) for name, value in split.state_dict().items())


def test_without_running_statistics_it_normalizes_by_batches_alone() -> None:
    split, batch = split_batch_norm(nn.BatchNorm2d(3, track_running_stats=False), 2), images(8)
    expected, _ = on_devices(nn.BatchNorm2d(3), batch, 2)
    torch.testing.assert_close(split(batch), expected)
    torch.testing.assert_close(split.eval()(batch), nn.BatchNorm2d(3)(batch))
    assert list(split.state_dict()) == ["weight", "bias"]


def test_the_gradient_is_that_of_the_devices() -> None:
    norm = randomized(nn.BatchNorm2d(3))
    batch, direction = images(8).requires_grad_(), images(8)
    (expected,) = torch.autograd.grad((on_devices(norm, batch, 4)[0] * direction).sum(), batch)
    split = split_batch_norm(norm, 4)
    (gradient,) = torch.autograd.grad((split(batch) * direction).sum(), batch)
    torch.testing.assert_close(gradient, expected)


def test_two_forwards_may_come_before_a_backward() -> None:
    split = split_batch_norm(nn.BatchNorm1d(3), 2)
    (split(torch.randn(8, 3)) * split(torch.randn(8, 3))).sum().backward()
    assert split.weight.grad is not None


def test_lightly_does_the_same_with_every_nth_sample_in_a_part() -> None:
    lightly, split, batch = LightlySplitBatchNorm(3, num_splits=2), split_batch_norm(nn.BatchNorm2d(3), 2), images(8)
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    torch.testing.assert_close(split(batch[order]), lightly(batch)[order])
    lightly.eval()  # where it averages the statistics that it keeps a part
    torch.testing.assert_close(split.running_mean, lightly.running_mean[:3])
    torch.testing.assert_close(split.running_var, lightly.running_var[:3])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_timm_networks_are_split_throughout_and_keep_their_state(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    state, parameters = network.state_dict(), list(network.parameters())
    split_batch_norm(network, 2)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(type(norm) is SplitBatchNorm for norm in norms)
    assert list(network.state_dict()) == list(state)
    assert all(new is old for new, old in zip(network.parameters(), parameters, strict=True))


def test_channels_last_stays() -> None:
    batch = images(8).contiguous(memory_format=torch.channels_last)
    assert split_batch_norm(nn.BatchNorm2d(3), 2)(batch).is_contiguous(memory_format=torch.channels_last)


def test_a_split_network_can_be_copied() -> None:
    split = split_batch_norm(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), 2)
    copied, batch = copy.deepcopy(split), torch.randn(8, 3)
    assert torch.equal(copied(batch), split(batch))


def test_one_split_leaves_the_module_alone() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3))
    assert split_batch_norm(module, 1) is module
    assert type(module[0]) is nn.BatchNorm1d


def test_fewer_splits_than_one_are_refused() -> None:
    with pytest.raises(ClvrBenchError, match=r"splits must be at least 1, got 0\. Typical: 1 \(whole\) to 8"):
        split_batch_norm(nn.BatchNorm1d(3), 0)


@pytest.mark.parametrize("norm", [nn.SyncBatchNorm(3), SplitBatchNorm(nn.BatchNorm1d(3), 2)])
def test_other_kinds_of_batch_norm_are_refused_by_name(norm: nn.Module) -> None:
    with pytest.raises(
        ClvrBenchError, match=rf"takes BatchNorm1d, .*BatchNormAct2d, got {type(norm).__name__}\. Use one"
    ):
        split_batch_norm(nn.Sequential(norm), 2)
