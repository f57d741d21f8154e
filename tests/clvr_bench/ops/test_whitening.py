from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from clvr_bench.ops import whitening
from clvr_bench.ops.whitening import pca_whiten


def features(count: int = 200, dimensions: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(count, dimensions, generator=generator) @ mixing + torch.arange(dimensions)


@pytest.mark.parametrize("dimensions", [1, 4, 6])
def test_components_are_scikit_learns_up_to_their_signs(dimensions: int) -> None:
    given = features()
    theirs = torch.from_numpy(PCA(dimensions, whiten=True).fit_transform(given.numpy()))
    theirs = theirs * (len(given) / (len(given) - 1)) ** 0.5  # it divides by N - 1
    torch.testing.assert_close(pca_whiten(given, dimensions).abs(), theirs.abs(), atol=1e-4, rtol=1e-4)


def test_components_are_centred_and_uncorrelated_with_unit_variance() -> None:
    white = pca_whiten(features(), 6)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(6), atol=1e-4, rtol=0)


def test_more_dimensions_than_there_are_keep_all() -> None:
    assert pca_whiten(features(), 256).shape == (200, 6)


def test_directions_without_variance_are_zero_not_noise() -> None:
    constant, faint = torch.full((200, 1), 3.0), 1e-5 * features()[:, :1].roll(1, dims=0)
    given = torch.cat([features(), constant, faint, features()[:, :1]], dim=1)  # the last one is there already
    white = pca_whiten(given, 9)
    assert white.isfinite().all()
    assert not white[:, 6:].any()
    assert white[:, :6].any(dim=0).all()


def test_features_that_are_all_alike_become_zero() -> None:
    assert not pca_whiten(torch.ones(5, 3), 3).any()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pca_whiten(features(), 3)
    monkeypatch.setattr(whitening, "_CHUNK", 37)
    torch.testing.assert_close(pca_whiten(features(), 3).abs(), whole.abs(), atol=1e-5, rtol=1e-4)
