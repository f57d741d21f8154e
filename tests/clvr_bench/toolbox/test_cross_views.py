from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clvr_bench.toolbox import cross_view_entropy


def probabilities(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


@pytest.mark.parametrize(("views", "sources"), [(2, [0, 1]), (5, [0, 1]), (4, [2]), (3, [0, 1, 2])])
def test_it_is_the_mean_over_samples_targets_and_other_views(views: int, sources: list[int]) -> None:
    p, targets = probabilities(views, 4, 7), probabilities(len(sources), 4, 7, seed=1)
    terms = [
        -sum(targets[place, sample, k].item() * math.log(p[view, sample, k].item()) for k in range(7))
        for place, source in enumerate(sources)
        for view in range(views)
        for sample in range(4)
        if view != source
    ]
    assert cross_view_entropy(p.log(), list(targets), sources).item() == pytest.approx(
        sum(terms) / len(terms), abs=1e-5
    )


def test_a_view_does_not_predict_its_own_target() -> None:
    log_p = probabilities(3, 4, 7).log().requires_grad_()
    cross_view_entropy(log_p, [probabilities(4, 7, seed=1)], [1]).backward()
    assert log_p.grad is not None
    assert [bool(grad.any()) for grad in log_p.grad] == [True, False, True]


def test_every_target_needs_its_source() -> None:
    with pytest.raises(ValueError, match="zip"):
        cross_view_entropy(probabilities(3, 4, 7).log(), [probabilities(4, 7)], [0, 1])
