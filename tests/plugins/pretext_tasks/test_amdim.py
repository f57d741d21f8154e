from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, EncoderFacts, Progress, SampleRandom
from clvr_bench.toolbox import FeatureMaps
from clvr_plugins.pretext_tasks.amdim import AMDIM, clipped_nce, feature_embedding, scaled_scores, two_scales

FACTS = DataFacts("image", train_size=8, image_size=32)


class Stages(Encoder):
    """Maps of 16, 8 and 4 px a side of pictures of 32 px, whose last has the feature as its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 7
        self.stages = nn.ModuleList(nn.Conv2d(*widths, 2, 2) for widths in ((3, 5), (5, 6), (6, 7)))

    def encode(self, images: Tensor) -> Tensor:
        return self.encode_maps(images)[-1].mean(dim=(2, 3))

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        return [images := stage(images).relu() for stage in self.stages]


def build(**options: Any) -> AMDIM:
    torch.manual_seed(0)
    return AMDIM(Stages(), FACTS, **{"embedding_dim": 8, **options})


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch_of(first: Tensor, second: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(first)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([first, second], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive_term(sources: Tensor, targets: Tensor, clip: float, penalty: float) -> float:
    """NCE of one prediction a picture, pair by pair: s = phi . phi / sqrt(P), c tanh(s / c), lambda s^2."""
    phi, psi = sources.double().numpy(), targets.double().numpy()
    count, places = range(len(phi)), range(psi.shape[1])
    raw = {(i, j, k): float(phi[i] @ psi[j, k]) / math.sqrt(phi.shape[1]) for i, j, k in product(count, count, places)}
    clipped = {key: clip * math.tanh(score / clip) for key, score in raw.items()}
    losses = []
    for i, k in product(count, places):
        positive = math.exp(clipped[i, i, k])
        negatives = sum(math.exp(clipped[i, j, other]) for j, other in product(count, places) if j != i)
        losses.append(-math.log(positive / (positive + negatives)))
    return float(np.mean(losses) + penalty * np.mean([score**2 for score in raw.values()]))


def test_the_loss_is_1_to_5_and_1_to_7_and_5_to_5_in_both_directions() -> None:
    task = build(clip=3.0, penalty=0.1).eval()
    with torch.no_grad():
        for layer in (task.embed_feature, task.embed_coarse, task.embed_fine):
            layer.norm.weight.fill_(9.0)  # far enough for the clip to matter
    first, second = pictures(3), pictures(3, seed=1)
    batch = batch_of(first, second)
    places = batch.random("places").integers(16, 2).tolist()
    expected = 0.0
    with torch.no_grad():
        loss = task(batch).loss.item()
        f1, f5, f7 = [], [], []
        for view in (first, second):
            maps = task.encoder.feature_maps(view)
            f1.append(task.embed_feature(task.encoder(view)))
            f5.append(task.embed_coarse(maps[2].flatten(2).mT))
            f7.append(task.embed_fine(maps[1].flatten(2).mT))
        for one, other in ((0, 1), (1, 0)):
            drawn = torch.stack([f5[one][picture, places[picture][one]] for picture in range(3)])
            for source, target in ((f1[one], f5[other]), (f1[one], f7[other]), (drawn, f5[other])):
                expected += naive_term(source, target, clip=3.0, penalty=0.1) / 2
    assert loss == pytest.approx(expected, rel=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    pictures=st.integers(2, 4),
    places=st.integers(1, 3),
    seed=st.integers(0, 1000),
    clip=st.sampled_from([1.0, 5.0, 20.0]),
    scale=st.sampled_from([0.3, 1.0, 4.0]),
)
def test_a_term_is_the_nce_of_clipped_scores(pictures: int, places: int, seed: int, clip: float, scale: float) -> None:
    sources, targets = scale * draw(pictures, 5, seed=seed), scale * draw(pictures, places, 5, seed=seed + 1)
    found = clipped_nce(scaled_scores(sources, targets), clip).item()
    assert found == pytest.approx(naive_term(sources, targets, clip, penalty=0.0), rel=1e-4, abs=1e-5)


def test_embeddings_of_zero_leave_each_place_to_chance() -> None:
    scores = scaled_scores(torch.zeros(4, 8), torch.zeros(4, 9, 8))
    assert clipped_nce(scores, clip=20.0).item() == pytest.approx(math.log(1 + 3 * 9))


def test_scores_never_leave_the_clip() -> None:
    scores = torch.where(torch.eye(2)[:, :, None] > 0, 1e4, -1e4)
    assert clipped_nce(scores, clip=1.0).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_the_penalty_is_the_mean_of_the_squares_of_all_scores_before_the_clip() -> None:
    batch = batch_of(pictures(3), pictures(3, seed=1))
    task = build(penalty=0.0).eval()
    losses = []
    for penalty in (0.0, 1.0):
        task.penalty = penalty
        losses.append(task(batch).loss.item())
    views = [task._embed(view) for view in batch.views]
    places = batch.random("places").integers(16, 2)
    squares = 0.0
    for number, (one, other) in enumerate((views, views[::-1])):
        drawn = one.coarse[torch.arange(3), places[:, number]]
        for source, target in ((one.whole, other.coarse), (one.whole, other.fine), (drawn, other.coarse)):
            squares += (torch.einsum("ip,jlp->ijl", source, target) ** 2 / 8).mean().item() / 2
    assert losses[1] - losses[0] == pytest.approx(squares, rel=1e-3)


def test_both_directions_count_alike() -> None:
    task = build().eval()
    flat = [pictures(3, seed=seed)[:, :, :1, :1].expand(-1, -1, 32, 32) for seed in (0, 1)]  # all places are alike
    torch.testing.assert_close(task(batch_of(*flat)).loss, task(batch_of(*flat[::-1])).loss)


@pytest.mark.parametrize(
    ("sides", "coarse", "fine"),
    [
        ((64, 62, 30, 14, 7, 5, 3, 1), 5, 7),  # the paper's encoder
        ((30, 14, 7, 5, 3, 1), 5, 7),
        ((32, 32, 16, 8, 4), 4, 8),
        ((112, 56, 28, 14, 7), 7, 14),
        ((16, 8, 4, 2, 1), 4, 8),
    ],
)
def test_scales_are_the_sides_nearest_to_5_and_to_7_but_finer(sides: tuple[int, ...], coarse: int, fine: int) -> None:
    maps = FeatureMaps(tuple(1 for _ in sides), sides, pooled=True)
    assert tuple(sides[number] for number in two_scales(maps, 5, 7)) == (coarse, fine)


def test_the_later_of_equal_maps_is_taken() -> None:
    assert two_scales(FeatureMaps((1, 1, 1, 1), (8, 8, 4, 4), pooled=True), 5, 7) == (3, 1)


def test_maps_of_one_side_are_refused() -> None:
    maps = FeatureMaps((1, 1), (8, 8), pooled=True)
    with pytest.raises(
        ClvrBenchError, match=r"amdim: the encoder's feature maps have \[8\] places a side, none of them"
    ):
        two_scales(maps, 5, 7)


@pytest.mark.parametrize(
    ("length", "wanted", "embedded"), [(8, None, False), (8, True, True), (8, False, False), (7, None, True)]
)
def test_a_feature_as_long_as_embeddings_is_one_unless_told(length: int, wanted: bool | None, embedded: bool) -> None:
    layer = feature_embedding(length, 8, wanted)
    assert isinstance(layer, nn.Identity) is not embedded
    assert layer(draw(4, length)).shape == (4, 8)


def test_a_feature_of_another_length_must_be_embedded() -> None:
    with pytest.raises(
        ClvrBenchError, match=r"features must be as long as embeddings, 8, got 7\. Set embedding_dim = 7"
    ):
        build(embed_feature=False)


def test_embeddings_start_as_a_linear_map_normalized_over_all_places() -> None:
    task = build()
    vectors = draw(4, 9, 7)
    straight = task.embed_coarse.shortcut(vectors).flatten(0, 1)
    straight = (straight - straight.mean(dim=0)) / (straight.var(dim=0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(task.embed_coarse(vectors).flatten(0, 1), straight, rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_every_parameter_from_the_second_step_on() -> None:
    task = build()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        task(batch_of(pictures(4, seed=step), pictures(4, seed=step + 9))).loss.backward()
        optimizer.step()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_order_of_the_pictures_does_not_matter() -> None:
    task, order = build().eval(), torch.tensor([2, 0, 3, 1])
    first, second = pictures(4), pictures(4, seed=1)
    turned = task(batch_of(first[order], second[order], order)).loss
    torch.testing.assert_close(turned, task(batch_of(first, second)).loss)


def test_every_picture_and_view_predicts_from_a_place_of_its_own() -> None:
    index = torch.arange(64)
    places = batch_of(pictures(64), pictures(64), index).random("places").integers(16, 2)
    assert len(places.unique(dim=0)) > 16
    assert not torch.equal(places[:, 0], places[:, 1])


def test_each_view_passes_the_encoder_on_its_own() -> None:
    task = build()
    seen: list[int] = []
    task.encoder.stages[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    task(batch_of(pictures(4), pictures(4, seed=1)))
    assert seen == [4, 4]


def test_scores_keep_their_precision_under_autocast() -> None:
    sources, targets = 10 * draw(3, 8), 10 * draw(3, 2, 8, seed=1)
    expected = clipped_nce(scaled_scores(sources, targets), 20.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clipped_nce(scaled_scores(sources, targets), 20.0), expected)


def test_the_log_is_a_percentage() -> None:
    logs = build()(batch_of(pictures(), pictures())).logs
    assert set(logs) == {"fine_top1"}
    assert 0 <= float(logs["fine_top1"]) <= 100


def test_encoders_without_local_features_are_skipped() -> None:
    vit = EncoderFacts("vit", 8, 100, 1, has_feature_maps=True, has_tokens=True)
    assert AMDIM.skip_reason(vit, FACTS) == "every token of vit sees the whole picture"
    plain = EncoderFacts("net", 8, 100, 1, has_feature_maps=False, has_tokens=False)
    assert AMDIM.skip_reason(plain, FACTS) == "net has no feature maps"


@pytest.mark.parametrize("options", [{"embedding_dim": 0}, {"clip": 0.0}, {"penalty": -0.1}, {"coarse_side": 0}])
def test_bad_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ClvrBenchError, match=r"^amdim: embedding_dim, .* positive and penalty not negative, got "):
        build(**options)


def test_the_loss_falls_within_a_few_steps() -> None:
    task = build(embedding_dim=16)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        views = [0.7 * pictures(8)[:, :, :1, :1] + 0.3 * pictures(8, seed=2 * step + view) for view in (0, 1)]
        optimizer.zero_grad()
        loss = task(batch_of(*views)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
