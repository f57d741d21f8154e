from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.moco_v3 import MoCoV3, contrast, info_nce, matched_percentage

FACTS = DataFacts("image", train_size=64, image_size=8)


def naive_ctr(queries: Tensor, keys: Tensor, temperature: float) -> float:
    """Equation 1 as it is printed, for q and k of length 1, averaged over the queries; times 2 tau (algorithm 1)."""
    q, k = (tensor.double().numpy() for tensor in (queries, keys))
    q, k = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (q, k))

    def loss(i: int) -> float:
        positive = math.exp(float(np.dot(q[i], k[i])) / temperature)
        negatives = sum(math.exp(float(np.dot(q[i], k[j])) / temperature) for j in range(len(k)) if j != i)
        return -math.log(positive / (positive + negatives))

    return 2 * temperature * sum(loss(i) for i in range(len(q))) / len(q)


def ctr(queries: Tensor, keys: Tensor, temperature: float) -> float:
    return 2 * temperature * info_nce(contrast(queries, keys, temperature)).item()


def vectors(count: int, seed: int, dimensions: int = 6) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def two_views(pictures: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 8, 8, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], step: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    return Batch(views, index, torch.full_like(index, -1), SampleRandom.keyed(0, 0, index), Progress(step, 10, 0, 1))


Build = Callable[..., MoCoV3]


@pytest.fixture
def build(plugins: Plugins) -> Build:
    def task(encoder: str = "tiny", **options: Any) -> MoCoV3:
        torch.manual_seed(0)
        built = plugins.registry.get(Kind.ENCODER, encoder).factory()
        built.feature_dim = built(torch.rand(2, 3, 8, 8)).shape[1]
        return MoCoV3(built, FACTS, **{"projection_dim": 6, "hidden_dim": 16, **options})

    return task


def take_step(task: MoCoV3, batch: Batch, rate: float = 0.1) -> float:
    """One optimizer step as the harness takes it: the loss before it."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=rate)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item()


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("pictures", [1, 2, 7])
def test_the_loss_of_one_way_is_ctr_of_algorithm_1(pictures: int, temperature: float) -> None:
    queries, keys = vectors(pictures, 1), 3 * vectors(pictures, 2)
    assert ctr(queries, keys, temperature) == pytest.approx(naive_ctr(queries, keys, temperature), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_of_a_query_is_lightlys_with_the_other_keys_as_its_memory_bank(temperature: float) -> None:
    queries, keys = F.normalize(vectors(5, 1), dim=1), F.normalize(vectors(5, 2), dim=1)
    theirs = []
    for own in range(5):
        loss = NTXentLoss(temperature, memory_bank_size=(4, 6))
        loss.memory_bank.bank = keys[torch.arange(5) != own]
        theirs.append(loss(queries[own : own + 1], keys[own : own + 1]))
    torch.testing.assert_close(info_nce(contrast(queries, keys, temperature)), torch.stack(theirs).mean())


@pytest.mark.parametrize("pictures", [2, 5, 32])
def test_equal_embeddings_leave_the_positive_to_chance(pictures: int) -> None:
    ones = torch.ones(pictures, 4)
    assert ctr(ones, ones, 0.2) == pytest.approx(0.4 * math.log(pictures), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_met_keys_of_orthogonal_pictures_have_the_closed_form(temperature: float) -> None:
    expected = 2 * temperature * math.log(1 + 5 * math.exp(-1 / temperature))
    assert ctr(2 * torch.eye(6), torch.eye(6), temperature) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-2, 1e2))
def test_neither_order_nor_length_matters(seed: int, scale: float) -> None:
    queries, keys = vectors(6, seed), vectors(6, seed + 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    turned = ctr(scale * queries[order], keys[order] / scale, 0.2)
    assert turned == pytest.approx(ctr(queries, keys, 0.2), abs=1e-4)


def test_similarities_stay_in_float32_under_autocast() -> None:
    queries, keys = vectors(64, 1), vectors(64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrast(queries, keys, 0.2)
    assert torch.equal(inside, contrast(queries, keys, 0.2))


def test_keys_take_no_gradient() -> None:
    queries, keys = vectors(4, 1).requires_grad_(), vectors(4, 2).requires_grad_()
    info_nce(contrast(queries, keys, 0.2)).backward()
    assert queries.grad is not None
    assert keys.grad is None


def test_contrastive_top1_is_the_percentage_of_queries_that_are_most_like_their_own_keys() -> None:
    exponents = torch.tensor([[0.9, 0.1, 0.3], [0.8, 0.2, 0.1], [0.1, 0.2, 0.4]])
    assert matched_percentage(exponents).item() == pytest.approx(100 * 2 / 3)


def test_the_loss_of_a_batch_is_algorithm_1s(build: Build) -> None:
    task = build(temperature=0.3).eval()
    views = two_views()
    with torch.no_grad():
        q1, q2 = (task.predictor(task.projector(task.encoder(view))) for view in views)
        k1, k2 = (task.target(view) for view in views)
        output = task(batch_of(views))
    assert output.loss.item() == pytest.approx(naive_ctr(q1, k2, 0.3) + naive_ctr(q2, k1, 0.3), abs=1e-5)


def test_the_views_are_interchangeable(build: Build) -> None:
    views = two_views()
    torch.testing.assert_close(build()(batch_of(views)).loss, build()(batch_of(views[::-1])).loss)


def test_each_view_passes_both_networks_on_its_own(build: Build) -> None:
    task, views = build(), two_views()
    seen: list[Tensor] = []
    for network in (task.encoder, task.target):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task(batch_of(views))
    assert len(seen) == 4
    assert all(torch.equal(*pair) for pair in zip(seen, views * 2, strict=True))


def linear_shapes(head: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(layer.weight.shape) for layer in head.modules() if isinstance(layer, nn.Linear)]


def test_the_projector_has_the_layers_of_lightlys(build: Build) -> None:
    ours, theirs = build().projector, MoCoProjectionHead(8, 16, 6, num_layers=3, batch_norm=True)
    assert linear_shapes(ours) == linear_shapes(theirs) == [(16, 8), (16, 16), (6, 16)]
    assert [type(layer) for layer in ours] == [type(layer) for layer in theirs.layers]


def test_both_heads_end_with_batch_norm_without_parameters_and_have_no_bias(build: Build) -> None:
    task = build()
    assert linear_shapes(task.predictor) == [(16, 6), (6, 16)]
    for head in (task.projector, task.predictor):
        assert isinstance(head[-1], nn.BatchNorm1d)
        assert not list(head[-1].parameters())
        assert all(layer.bias is None for layer in head if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.9), (5, 0.95), (9, 1 - 0.1 * (math.cos(0.9 * math.pi) + 1) / 2)])
def test_the_target_follows_without_the_predictor_ever_slower(build: Build, step: int, momentum: float) -> None:
    task = build(target_momentum=0.9)
    old = [parameter.clone() for parameter in task.target.parameters()]
    take_step(task, batch_of(two_views(), step))
    trained = [*task.encoder.parameters(), *task.projector.parameters()]
    for before, after, source in zip(old, task.target.parameters(), trained, strict=True):
        torch.testing.assert_close(after, momentum * before + (1 - momentum) * source)


def test_forward_moves_nothing_but_batch_norm_and_after_step_the_target_alone(build: Build) -> None:
    task, batch = build(), batch_of(two_views())
    before = copy.deepcopy(task.state_dict())
    output = task(batch)
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if "running" in name or "num_batches" in name}
    take_step(task, batch)
    before = copy.deepcopy(task.state_dict())
    task.after_step(output.kept, batch.progress)
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert {name.split(".")[0] for name in moved} == set(task.moves) == {"target"}


def reached_by_the_gradient(task: MoCoV3) -> set[str]:
    task(batch_of(two_views())).loss.backward()
    return {name for name, parameter in task.named_parameters() if parameter.grad is not None and parameter.grad.any()}


def test_the_gradient_reaches_encoder_and_heads_and_nothing_of_the_target(build: Build) -> None:
    task = build()
    reached = reached_by_the_gradient(task)
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("target")}
    assert reached == {name for name, parameter in task.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("frozen", [True, False])
def test_the_patch_projection_of_a_vision_transformer_keeps_its_weights_if_asked_to(build: Build, frozen: bool) -> None:
    task = build("vit_micro_patch4_32", frozen_patches=frozen)
    patches = {name for name, _ in task.named_parameters() if name.startswith("encoder") and "patch_embed" in name}
    assert {name.rsplit(".", 1)[-1] for name in patches} == {"weight", "bias"}
    reached = reached_by_the_gradient(task)
    assert patches & reached == (set() if frozen else patches)
    assert "encoder.network.blocks.0.attn.qkv.weight" in reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"moco_v3: temperature must be positive, got 0\.0\. Typical: 0\.2 to 1\."),
        ({"target_momentum": 1.1}, r"moco_v3: target_momentum must be in \[0, 1\], got 1\.1\. Typical"),
        ({"target_momentum": -0.1}, r"moco_v3: target_momentum must be in \[0, 1\], got -0\.1\. Typical"),
    ],
)
def test_bad_options_are_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


def test_the_loss_falls_within_a_few_steps(build: Build) -> None:
    task = build(target_momentum=0.9)
    colors = torch.rand(12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(40):
        views = [0.8 * colors + 0.2 * view for view in two_views(pictures=12, seed=step)]
        losses.append(take_step(task, batch_of(views), rate=0.3))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
