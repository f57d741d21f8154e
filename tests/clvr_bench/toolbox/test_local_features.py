from __future__ import annotations

import math
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import DataFacts, Encoder, EncoderFacts
from clvr_bench.toolbox import (
    FeatureMaps,
    ResidualEmbedding,
    TimmEncoder,
    no_local_features,
    others_only,
    own_scores,
    place_nce,
    place_scores,
    place_top1,
    place_vectors,
)

FACTS = DataFacts("image", train_size=8, image_size=32)


class Stages(Encoder):
    """Maps of 16, 8, 8 and 4 px a side of pictures of 32 px; its feature is their last's mean, or a layer on that."""

    def __init__(self, headed: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, stride, stride), nn.BatchNorm2d(outputs))
            for inputs, outputs, stride in ((3, 4, 2), (4, 5, 2), (5, 6, 1), (6, 7, 2))
        )
        self.head = nn.Linear(7, 7) if headed else nn.Identity()

    def encode(self, images: Tensor) -> Tensor:
        feature: Tensor = self.head(self.encode_maps(images)[-1].mean(dim=(2, 3)))
        return feature

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        return [images := stage(images) for stage in self.stages]


def stages(headed: bool = False) -> Stages:
    torch.manual_seed(0)
    return Stages(headed)


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive_nce(scores: Tensor) -> list[list[float]]:
    """For each picture and place: exp of the positive over itself and all places of all other pictures."""
    s, count = scores.double().numpy(), len(scores)
    losses = []
    for source in range(count):
        negatives = sum(math.exp(s[source, other, place]) for other, place in product(range(count), range(s.shape[2]))
                        if other != source)  # fmt: skip
        losses.append([-math.log(math.exp(own) / (math.exp(own) + negatives)) for own in s[source, source]])
    return losses


def test_maps_are_measured_fine_to_coarse() -> None:
    maps = FeatureMaps.of(stages(), FACTS)
    assert maps == FeatureMaps(channels=(4, 5, 6, 7), sides=(16, 8, 8, 4), pooled=True)


def test_measuring_leaves_no_trace_in_an_encoder() -> None:
    encoder = stages()
    encoder.passes = 5
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    FeatureMaps.of(encoder, FACTS)
    assert encoder.passes == 5
    assert encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    FeatureMaps.of(encoder.eval(), FACTS)
    assert not encoder.training


@pytest.mark.parametrize("headed", [False, True])
def test_features_are_the_encoders_own_and_take_a_second_pass_only_where_they_must(headed: bool) -> None:
    encoder = stages(headed).eval()
    maps = FeatureMaps.of(encoder, FACTS)
    feature, found = maps(encoder, pictures(3))
    assert maps.pooled is not headed
    assert encoder.passes == (6 if headed else 3)
    torch.testing.assert_close(feature, encoder(pictures(3)))
    torch.testing.assert_close(found, encoder.feature_maps(pictures(3)))


@pytest.mark.parametrize(("name", "pooled"), [("resnet18", True), ("efficientnet_b0", False)])
def test_timms_networks_are_told_apart(name: str, pooled: bool) -> None:
    torch.manual_seed(0)
    assert FeatureMaps.of(TimmEncoder.named(name), FACTS).pooled is pooled


def test_maps_are_measured_where_there_are_no_values() -> None:
    with torch.device("meta"):
        assert FeatureMaps.of(Stages(headed=False), FACTS).sides == (16, 8, 8, 4)


@pytest.mark.parametrize(("side", "number"), [(1, 3), (5, 3), (6, 3), (7, 2), (8, 2), (12, 2), (13, 0), (99, 0)])
def test_the_nearest_side_is_taken_and_the_later_of_equals(side: int, number: int) -> None:
    assert FeatureMaps((1, 1, 1, 1), (16, 8, 8, 4), pooled=True).nearest(side) == number


def test_the_choice_can_be_limited() -> None:
    assert FeatureMaps((1, 1, 1, 1), (16, 8, 8, 4), pooled=True).nearest(4, range(2)) == 1


@pytest.mark.parametrize(
    ("maps", "tokens", "reason"),
    [
        (True, False, None),
        (False, False, "net has no feature maps"),
        (True, True, "every token of net sees the whole picture"),
    ],
)
def test_encoders_without_local_features_are_told(maps: bool, tokens: bool, reason: str | None) -> None:
    assert no_local_features(EncoderFacts("net", 8, 100, 1, has_feature_maps=maps, has_tokens=tokens)) == reason


def test_vectors_are_those_of_places_row_by_row() -> None:
    feature_map = draw(2, 3, 4, 5)
    vectors = place_vectors(feature_map)
    assert vectors.shape == (2, 20, 3)
    assert torch.equal(vectors[1, 7], feature_map[1, :, 1, 2])


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("hidden_batch_norm", [False, True])
def test_an_embedding_is_two_layers_beside_a_shortcut(norm: Literal["batch", "layer"], hidden_batch_norm: bool) -> None:
    embedding = ResidualEmbedding(3, 4, norm=norm, hidden_batch_norm=hidden_batch_norm).eval()
    state, vectors = embedding.state_dict(), draw(2, 5, 3)
    hidden = vectors @ state["layers.0.weight"].T
    hidden = hidden / math.sqrt(1 + 1e-5) if hidden_batch_norm else hidden
    branch = hidden.relu() @ state["layers.3.weight"].T + (state["layers.3.bias"] if norm == "layer" else 0)
    total = branch + vectors @ state["shortcut.weight"].T
    if norm == "layer":
        total = (total - total.mean(dim=-1, keepdim=True)) / (
            total.var(dim=-1, correction=0, keepdim=True) + 1e-5
        ).sqrt()
    else:
        total = total / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(embedding(vectors), total, rtol=1e-4, atol=1e-5)


def test_all_vectors_of_all_pictures_are_normalized_as_one_batch() -> None:
    embeddings = ResidualEmbedding(3, 4, norm="batch")(draw(2, 5, 3)).flatten(0, 1)
    torch.testing.assert_close(embeddings.mean(dim=0), torch.zeros(4), rtol=0, atol=1e-5)


def test_a_shortcut_that_does_not_shorten_starts_near_the_identity() -> None:
    weight = ResidualEmbedding(3, 4, norm="batch").shortcut.weight
    assert torch.allclose(weight, torch.eye(4, 3), rtol=0, atol=0.01)
    assert (weight[:3].diagonal() == 1).all()
    assert not torch.allclose(ResidualEmbedding(4, 3, norm="batch").shortcut.weight, torch.eye(3, 4), rtol=0, atol=0.01)


def test_an_embedding_can_start_as_its_shortcut_alone() -> None:
    embedding = ResidualEmbedding(3, 4, norm="batch", zero_start=True).eval()
    torch.testing.assert_close(embedding(draw(5, 3)), embedding.norm(embedding.shortcut(draw(5, 3))))


def test_scores_are_dot_products_of_every_source_with_every_place() -> None:
    sources, targets = draw(3, 4), draw(3, 2, 4, seed=1)
    expected = np.einsum("ip,jlp->ijl", sources.double().numpy(), targets.double().numpy())
    np.testing.assert_allclose(place_scores(sources, targets).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_scores_keep_their_precision_under_autocast() -> None:
    sources, targets = 10 * draw(3, 8), 10 * draw(3, 2, 8, seed=1)
    expected = place_scores(sources, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(place_scores(sources, targets), expected)


def test_embeddings_of_half_precision_are_compared_in_float32() -> None:
    sources, targets = draw(3, 8).bfloat16(), draw(3, 2, 8, seed=1).bfloat16()
    assert torch.equal(place_scores(sources, targets), place_scores(sources.float(), targets.float()))


def test_own_scores_are_those_with_the_places_of_the_same_picture() -> None:
    scores = draw(3, 3, 2)
    assert torch.equal(own_scores(scores), torch.stack([scores[picture, picture] for picture in range(3)]))


def test_others_keep_their_scores() -> None:
    scores = draw(3, 3, 2)
    kept = others_only(scores, 7.0)
    assert (own_scores(kept) == 7).all()
    assert int((kept == scores).sum()) == 3 * 2 * 2


@settings(deadline=None, max_examples=40)
@given(
    pictures=st.integers(2, 5),
    places=st.integers(1, 4),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_nce_tells_each_own_place_from_all_places_of_others(
    pictures: int, places: int, seed: int, scale: float
) -> None:
    scores = scale * draw(pictures, pictures, places, seed=seed)
    np.testing.assert_allclose(place_nce(scores).numpy(), naive_nce(scores), rtol=1e-4, atol=1e-5)


def test_nce_of_scores_that_are_alike_is_chance() -> None:
    torch.testing.assert_close(place_nce(torch.full((4, 4, 5), 3.0)), torch.full((4, 5), math.log(1 + 3 * 5)))


def test_nce_survives_large_scores() -> None:
    scores = (1e4 * draw(3, 3, 2)).requires_grad_()
    place_nce(scores).mean().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_nce_moves_the_own_place_up_and_other_pictures_down_and_leaves_the_own_other_places_alone() -> None:
    scores = draw(3, 3, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(place_nce(scores)[0, 1], scores)
    assert gradient[0, 0, 1] < 0
    assert gradient[0, 0, 0] == 0
    assert (gradient[0, 1:] > 0).all()
    assert not gradient[1:].any()


def test_a_place_counts_where_it_scores_above_the_same_place_of_all_others() -> None:
    scores = torch.zeros(2, 2, 2)
    scores[0, 0] = torch.tensor([1.0, -1.0])
    scores[1, 0] = torch.tensor([0.5, -0.5])
    assert place_top1(scores).item() == 50
