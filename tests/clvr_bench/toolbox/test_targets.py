from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Progress
from clvr_bench.toolbox import MomentumTarget, growing_momentum


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())


def shift(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape)


def values(module: nn.Module) -> list[Tensor]:
    return [value.clone() for value in module.parameters()]


def test_it_starts_as_a_copy_in_the_order_of_its_sources() -> None:
    body, head = network(), nn.Linear(4, 2)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(MomentumTarget(body, head)(inputs), head(body(inputs)))


def test_its_parameters_are_its_own() -> None:
    body = network()
    target = MomentumTarget(body)
    before = values(target)
    shift(body)
    assert all(map(torch.equal, before, values(target)))
    assert body[0].weight.requires_grad


def test_its_sources_are_not_saved_with_it() -> None:
    assert list(MomentumTarget(nn.Linear(3, 2)).state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999, 1.0])
def test_it_moves_by_the_stated_average(momentum: float) -> None:
    body, head = network(), nn.Linear(4, 2)
    target = MomentumTarget(body, head)
    shift(body)
    shift(head)
    old = values(target)
    target.follow(body, head, momentum=momentum)
    for before, after, source in zip(old, values(target), values(body) + values(head), strict=True):
        torch.testing.assert_close(after, momentum * before + (1 - momentum) * source)


def test_following_leaves_the_sources_alone() -> None:
    body = network()
    target = MomentumTarget(body)
    shift(target)
    before = values(body)
    target.follow(body, momentum=0.5)
    assert all(map(torch.equal, before, values(body)))


def test_running_statistics_are_its_own_batches_not_its_sources() -> None:
    body = network()
    target = MomentumTarget(body)
    body(torch.randn(8, 3) + 5)
    target.follow(body, momentum=0.0)
    assert torch.equal(target[0][1].running_mean, torch.zeros(4))
    inputs = torch.randn(8, 3)
    target(inputs)
    torch.testing.assert_close(target[0][1].running_mean, 0.1 * body[0](inputs).mean(dim=0).detach())


def test_it_gives_and_takes_no_gradient() -> None:
    target = MomentumTarget(network())
    inputs = torch.randn(4, 3, requires_grad=True)
    assert not target(inputs).requires_grad
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_other_modules_than_those_copied_are_refused() -> None:
    target = MomentumTarget(network(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="follow takes what was copied: 6 parameters, got 4"):
        target.follow(network(), momentum=0.9)


@pytest.mark.parametrize("base", [0.0, 0.9, 0.996])
def test_the_momentum_grows_from_its_base_half_way_to_one(base: float) -> None:
    start, middle, end = (growing_momentum(base, Progress(step, 100, 0, 1)) for step in (0, 50, 100))
    assert start == pytest.approx(base)
    assert middle == pytest.approx((1 + base) / 2)
    assert end == pytest.approx(1)


@given(base=st.floats(0, 1), step=st.integers(0, 99))
def test_the_momentum_never_falls_and_stays_a_momentum(base: float, step: int) -> None:
    now, later = (growing_momentum(base, Progress(k, 100, 0, 1)) for k in (step, step + 1))
    assert 0 <= now <= later + 1e-12
    assert later <= 1
    assert now == pytest.approx(1 - (1 - base) * (math.cos(math.pi * step / 100) + 1) / 2)
