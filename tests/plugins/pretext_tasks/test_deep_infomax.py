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
from clvr_bench.toolbox import mlp
from clvr_plugins.pretext_tasks.deep_infomax import DeepInfoMax, information_loss, prior_losses

FACTS = DataFacts("image", train_size=8, image_size=16)
SMALL: dict[str, Any] = {"code_dim": 4, "fc_dim": 9, "embedding_dim": 8, "hidden_dim": 6}
ESTIMATORS = ("jsd", "infonce", "dv")


class Stages(Encoder):
    """Maps of 8, 4 and 2 px a side of pictures of 16 px, whose last has the feature as its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 7
        self.stages = nn.ModuleList(nn.Conv2d(*widths, 2, 2) for widths in ((3, 5), (5, 6), (6, 7)))

    def encode(self, images: Tensor) -> Tensor:
        return self.encode_maps(images)[-1].mean(dim=(2, 3))

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        return [images := stage(images).relu() for stage in self.stages]


def build(**options: Any) -> DeepInfoMax:
    torch.manual_seed(0)
    return DeepInfoMax(Stages(), FACTS, **{**SMALL, **options})


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    return Batch([images], index, torch.full_like(index, -1), SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sp(z: float) -> float:
    return math.log1p(math.exp(z))


def naive_information(scores: Tensor, estimator: str) -> float:
    """Equation 4, equation 5 and Donsker and Varadhan's bound, pair by pair; the second with others as negatives."""
    s, count, places = scores.double().numpy(), len(scores), range(scores.shape[2])
    own = [s[i, i, k] for i, k in product(range(count), places)]
    others = [s[i, j, k] for i, j, k in product(range(count), range(count), places) if i != j]
    if estimator == "jsd":
        return float(np.mean([-sp(-t) for t in own]) - np.mean([sp(t) for t in others]))
    if estimator == "dv":
        return float(np.mean(own) - math.log(np.mean(np.exp(others))))
    terms = []
    for i, k in product(range(count), places):
        negatives = [s[i, j, other] for j, other in product(range(count), places) if j != i]
        terms.append(s[i, i, k] - math.log(sum(math.exp(t) for t in [s[i, i, k], *negatives])))
    return float(np.mean(terms))


def naive_prior(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """What encoder and discriminator minimize, of logits: -log D(code), and equation 7 negated."""
    d_real, d_fake = (1 / (1 + np.exp(-logits.double().numpy())) for logits in (real, fake))
    return float(-np.log(d_fake).mean()), float(-np.log(d_real).mean() - np.log(1 - d_fake).mean())


def with_gradient(task: DeepInfoMax) -> set[str]:
    return {name.split(".")[0] for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@settings(deadline=None, max_examples=25)
@given(
    pictures=st.integers(2, 5), places=st.integers(1, 4), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1, 9])
)
def test_estimates_are_the_papers(estimator: Any, pictures: int, places: int, seed: int, scale: float) -> None:
    scores = scale * draw(pictures, pictures, places, seed=seed)
    expected = -naive_information(scores, estimator)
    assert information_loss(scores, estimator).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("estimator", "loss"), [("jsd", 2 * math.log(2)), ("infonce", math.log(1 + 3 * 5)), ("dv", 0.0)]
)
def test_scores_of_zero_tell_nothing(estimator: Any, loss: float) -> None:
    assert information_loss(torch.zeros(4, 4, 5), estimator).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimate_moves_own_scores_up_and_others_down_finitely(estimator: Any) -> None:
    scores = (20 * draw(3, 3, 2)).requires_grad_()
    information_loss(scores, estimator).backward()
    assert scores.grad is not None
    own = torch.eye(3, dtype=torch.bool)
    assert scores.grad.isfinite().all()
    assert (scores.grad[own] <= 0).all()
    assert (scores.grad[~own] >= 0).all()
    assert scores.grad[own].any()
    assert scores.grad[~own].any()


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 6), seed=st.integers(0, 1000))
def test_both_sides_of_the_prior_term_are_equation_7s(count: int, seed: int) -> None:
    discriminator = nn.Linear(3, 1)
    codes, prior = draw(count, 3, seed=seed).sigmoid(), draw(count, 3, seed=seed + 1).sigmoid()
    with torch.no_grad():
        found = [loss.item() for loss in prior_losses(discriminator, codes, prior)]
        assert found == pytest.approx(naive_prior(discriminator(prior), discriminator(codes)), rel=1e-5)


def test_neither_side_of_the_prior_term_moves_the_others_parameters() -> None:
    torch.manual_seed(0)
    discriminator, codes = mlp(3, 4, 1, batch_norm=False), draw(5, 3).sigmoid().requires_grad_()
    fooling, telling = prior_losses(discriminator, codes, draw(5, 3, seed=1).sigmoid())
    fooling.backward()
    assert codes.grad is not None
    assert codes.grad.any()
    assert not [p for p in discriminator.parameters() if p.grad is not None]
    codes.grad = None
    telling.backward()
    assert codes.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_loss_is_equation_8_with_the_discriminators_own(estimator: str, scaled: bool) -> None:
    task = build(alpha=0.5, beta=2.0, gamma=0.25, scaled=scaled, estimator=estimator, local_side=4).eval()
    images = pictures(4)
    with torch.no_grad():
        loss = task(batch_of(images)).loss.item()
        vectors = task.encoder.feature_maps(images)[1].flatten(2).mT  # of 4 x 4 places
        code = task.code(task.encoder(images))
        wholes = task.global_source(code) @ task.global_target(vectors.flatten(1)).T  # (4, 4)
        parts = torch.einsum("ip,jlp->ijl", task.local_source(code), task.local_target(vectors))
        prior = batch_of(images).random("prior").uniform(4)
        fooling, telling = naive_prior(task.discriminator(prior), task.discriminator(code.sigmoid()))
    if scaled:
        wholes, parts = wholes / math.sqrt(8), parts / math.sqrt(8)
    information = 0.5 * naive_information(wholes[:, :, None], estimator) + 2 * naive_information(parts, estimator)
    assert loss == pytest.approx(-information + 0.25 * fooling + telling, rel=1e-4)


@pytest.mark.parametrize(("side", "channels"), [(1, 6), (4, 6), (5, 6), (8, 5), (99, 5)])
def test_the_map_before_the_last_whose_side_is_nearest_gives_the_local_features(side: int, channels: int) -> None:
    task = build(local_side=side)
    assert task.maps.channels[task.local] == channels
    assert task.local_target.shortcut.in_features == channels


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"local_source", "local_target", "discriminator"}),
        ({"gamma": 0.0}, {"local_source", "local_target"}),
        ({"alpha": 1.0, "beta": 0.0, "gamma": 1.0}, {"global_source", "global_target", "discriminator"}),
    ],
)
def test_terms_that_are_left_out_have_no_parts_and_all_others_a_gradient(
    options: dict[str, float], parts: set[str]
) -> None:
    task = build(**options)
    assert {name for name, _ in task.named_children()} == {"encoder", "code", *parts}
    task(batch_of(pictures())).loss.backward()
    assert with_gradient(task) == {"encoder", "code", *parts}


def test_what_the_discriminator_gains_does_not_depend_on_gamma() -> None:
    gradients = []
    for gamma in (0.1, 10.0):
        task = build(gamma=gamma)
        task(batch_of(pictures())).loss.backward()
        gradients.append([p.grad for p in task.discriminator.parameters()])
    torch.testing.assert_close(*gradients)


def test_the_code_is_matched_to_the_prior_where_nothing_else_is_asked() -> None:
    task = build(beta=1e-9, gamma=1.0)
    nn.init.constant_(task.code[-1].bias, 3.0)  # codes far from uniform
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    for step in range(60):
        optimizer.zero_grad()
        task(batch_of(pictures(8, seed=step))).loss.backward()
        optimizer.step()
    codes = task.code(task.encoder(pictures(8))).sigmoid()
    assert codes.mean().item() < 0.9  # from 0.95


def test_the_prior_is_drawn_for_each_picture_on_its_own() -> None:
    task, images, order = build().eval(), pictures(5), torch.tensor([3, 0, 4, 1, 2])
    turned = task(batch_of(images[order], order)).loss
    torch.testing.assert_close(turned, task(batch_of(images)).loss)


def test_logs_tell_how_well_places_and_pictures_are_told_apart() -> None:
    logs = build(alpha=1.0)(batch_of(pictures())).logs
    assert set(logs) == {"global_top1", "local_top1", "discriminator_loss"}
    assert all(0 <= float(logs[name]) <= 100 for name in ("global_top1", "local_top1"))


def test_scores_are_of_float32_under_autocast() -> None:
    task, batch = build().eval(), batch_of(pictures())
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, task(batch).loss, rtol=0.05, atol=0.05)


def test_a_code_is_made_of_the_feature_by_a_normalized_layer_and_a_linear_one() -> None:
    kinds = [type(layer) for layer in build().code]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert build().code(draw(3, 7)).shape == (3, 4)


def test_the_encoders_features_are_what_is_evaluated() -> None:
    task = build()
    assert task.representation() is task.encoder


def test_encoders_without_local_features_are_skipped() -> None:
    vit = EncoderFacts("vit", 8, 100, 1, has_feature_maps=True, has_tokens=True)
    assert DeepInfoMax.skip_reason(vit, FACTS) == "every token of vit sees the whole picture"
    resnet = EncoderFacts("resnet", 8, 100, 1, has_feature_maps=True, has_tokens=False)
    assert DeepInfoMax.skip_reason(resnet, FACTS) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1.0}, "alpha, beta and gamma must not be negative, .* got -1.0, 1.0 and 0.1. The paper's are 0, 1"),
        ({"gamma": -0.1}, "alpha, beta and gamma must not be negative"),
        ({"alpha": 0.0, "beta": 0.0}, "nor alpha and beta both 0, got 0.0, 0.0 and 0.1"),
        ({"code_dim": 0}, "code_dim, fc_dim, .* must be positive, got 0, 9, 8, 8 and 6"),
        ({"local_side": 0}, "must be positive"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"^deep_infomax: .*{message}"):
        build(**options)


def test_an_encoder_of_one_map_is_refused() -> None:
    encoder = Stages()
    encoder.stages = encoder.stages[:1]
    with pytest.raises(ClvrBenchError, match="deep_infomax: the encoder has one feature map"):
        DeepInfoMax(encoder, FACTS, **SMALL)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_loss_falls_within_a_few_steps(estimator: str) -> None:
    task = build(alpha=0.5, estimator=estimator)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = task(batch_of(pictures(8))).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
