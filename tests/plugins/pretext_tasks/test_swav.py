from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import SwaVLoss
from torch import Tensor
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.ops.sinkhorn import sinkhorn
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import encode_by_size
from clvr_plugins.pretext_tasks.swav import SwAV, agreement, swapped_prediction

FACTS = DataFacts("image", train_size=64, image_size=8)
MULTI_CROP = ("global", "global", "local", "local", "local")
PICTURES = 6


def naive_swav(scores: Tensor, codes: Sequence[Tensor], sources: Sequence[int], temperature: float) -> float:
    """Equations 2 and 6, sample by sample, then the authors' means over pictures, codes and predicting views."""
    views, pictures, prototypes = scores.shape

    def cross_entropy(score: Tensor, code: Tensor) -> float:
        exponents = [math.exp(value.item() / temperature) for value in score]
        p = [exponent / sum(exponents) for exponent in exponents]
        return -sum(code[k].item() * math.log(p[k]) for k in range(prototypes))

    terms = [
        cross_entropy(scores[view, n], code[n])
        for source, code in zip(sources, codes, strict=True)
        for view in range(views)
        for n in range(pictures)
        if view != source
    ]
    return sum(terms) / len(terms)


def random_scores(views: int, seed: int = 0, prototypes: int = 7, pictures: int = PICTURES) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(views, pictures, 5, generator=generator), dim=-1)
    return embeddings @ F.normalize(torch.randn(prototypes, 5, generator=generator), dim=1).T


def pictures_of(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch_of(views: Sequence[Tensor], roles: tuple[str, ...] = (), epoch: int = 0, step: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, epoch, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(step, 100, epoch, 20), roles=roles)


def multi_crop(seed: int = 0, epoch: int = 0, step: int = 0) -> Batch:
    views = [pictures_of(PICTURES, 8 if role == "global" else 4, seed + v) for v, role in enumerate(MULTI_CROP)]
    return batch_of(views, MULTI_CROP, epoch, step)


@pytest.fixture
def build(plugins: Plugins) -> Any:
    def make(**options: Any) -> SwAV:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return SwAV(encoder, FACTS, **{"prototypes": 10, "projection_dim": 5, "hidden_dim": 16, **options})

    return make


def step(task: SwAV, batch: Batch) -> None:
    kept = task(batch).kept
    with torch.no_grad():
        task.after_step(kept, batch.progress)


@pytest.mark.parametrize(("views", "sources"), [(2, [0, 1]), (5, [0, 1]), (4, [2]), (3, [0, 1, 2])])
def test_the_loss_is_equation_6(views: int, sources: list[int]) -> None:
    scores = random_scores(views)
    codes = [sinkhorn(scores[view]) for view in sources]
    expected = naive_swav(scores, codes, sources, 0.1)
    assert swapped_prediction(scores, codes, sources, 0.1).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("locals_", [0, 3])
@pytest.mark.parametrize("queued", [0, 9])
def test_the_loss_is_lightlys(locals_: int, queued: int) -> None:
    scores = random_scores(2 + locals_, seed=queued)
    queues = list(random_scores(2, seed=5, pictures=queued)) if queued else None
    joined = [torch.cat([scores[view], *([queues[view]] if queues else [])]) for view in range(2)]
    codes = [sinkhorn(each)[:PICTURES] for each in joined]
    theirs = SwaVLoss()(list(scores[:2]), list(scores[2:]), queues)
    assert swapped_prediction(scores, codes, [0, 1], 0.1).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_scores_that_say_nothing_have_the_loss_of_chance() -> None:
    scores = torch.zeros(3, 4, 7)
    codes = [sinkhorn(scores[0])]
    assert swapped_prediction(scores, codes, [0], 0.1).item() == pytest.approx(math.log(7), abs=1e-5)


def test_a_view_does_not_predict_its_own_code() -> None:
    scores = random_scores(3).requires_grad_()
    swapped_prediction(scores, [sinkhorn(scores[1])], [1], 0.1).backward()
    assert [bool(grad.any()) for grad in scores.grad] == [True, False, True]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.05, 2))
def test_the_loss_is_never_below_the_entropy_of_the_codes(seed: int, temperature: float) -> None:
    scores = random_scores(4, seed)
    codes = [sinkhorn(scores[0]), sinkhorn(scores[1])]
    entropy = -torch.stack(codes).xlogy(torch.stack(codes)).sum(dim=-1).mean()
    assert swapped_prediction(scores, codes, [0, 1], temperature) >= entropy - 1e-4


def test_swapped_top1_counts_the_other_views_that_share_the_codes_prototype() -> None:
    nearest = torch.tensor([[0, 1], [0, 2], [0, 1]])  # of 3 views and 2 pictures
    scores = F.one_hot(nearest, 3).float()
    codes = [F.one_hot(torch.tensor([0, 1]), 3).float()]
    assert agreement(scores, codes, [0]).item() == pytest.approx(100 * 3 / 4)


def test_a_batchs_loss_is_equation_6_of_its_normalized_embeddings(build: Any) -> None:
    task, batch = build(temperature=0.2, epsilon=0.1).eval(), multi_crop()
    embeddings = [F.normalize(task.projector(task.encoder(view)), dim=1) for view in batch.views]
    scores = torch.stack([z @ task.prototypes.weight.T for z in embeddings])
    expected = naive_swav(scores, [sinkhorn(scores[0], 0.1), sinkhorn(scores[1], 0.1)], [0, 1], 0.2)
    assert task(batch).loss.item() == pytest.approx(expected, abs=1e-4)


def test_two_alike_views_both_give_codes(build: Any) -> None:
    task, views = build().eval(), [pictures_of(PICTURES, 8, seed) for seed in range(2)]
    roles = task(batch_of(views, ("global", "global"))).loss
    assert torch.equal(task(batch_of(views)).loss, roles)
    assert not torch.equal(task(batch_of(views, ("global", "local"))).loss, roles)


def test_codes_are_made_without_a_gradient(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task, batch = build(freeze_epochs=0).eval(), multi_crop()
    fixed = [torch.full((PICTURES, 10), 0.1) for _ in range(2)]
    monkeypatch.setattr(task, "_codes", lambda scores, place, progress: sinkhorn(scores))
    task(batch).loss.backward()
    through = task.prototypes.weight.grad.clone()
    with torch.no_grad():
        fixed = [sinkhorn(self_scores) for self_scores in _scores_of(task, batch)[:2]]
    task.zero_grad()
    monkeypatch.setattr(task, "_codes", lambda scores, place, progress: fixed[place])
    task(batch).loss.backward()
    torch.testing.assert_close(task.prototypes.weight.grad, through)


def _scores_of(task: SwAV, batch: Batch) -> Tensor:
    embeddings = F.normalize(task.projector(encode_by_size(task.encoder, batch.views)), dim=1)
    return (embeddings @ task.prototypes.weight.T).unflatten(0, (len(batch.views), -1))


def test_prototypes_have_length_one_from_the_start_and_after_each_step(build: Any) -> None:
    task = build(freeze_epochs=0)
    torch.testing.assert_close(task.prototypes.weight.norm(dim=1), torch.ones(10))
    with torch.no_grad():
        task.prototypes.weight += pictures_of(10, 8).flatten(1)[:, :5]
    moved = task.prototypes.weight.detach().clone()
    task(multi_crop())
    assert torch.equal(task.prototypes.weight, moved)
    step(task, multi_crop())
    torch.testing.assert_close(task.prototypes.weight, F.normalize(moved, dim=1))


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (1, True), (2, False)])
def test_prototypes_get_no_gradient_while_they_are_frozen(build: Any, epoch: int, frozen: bool) -> None:
    task = build(freeze_epochs=2)
    task(multi_crop(epoch=epoch)).loss.backward()
    without = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == (["prototypes.weight"] if frozen else [])


def test_the_queue_holds_the_newest_embeddings_of_each_global_view(build: Any) -> None:
    task = build(queue_size=2 * PICTURES).eval()
    batches = [multi_crop(seed) for seed in (0, 10, 20)]
    for batch in batches:
        step(task, batch)
    for view in range(2):
        pushed = [F.normalize(task.projector(task.encoder(batch.views[view])), dim=1) for batch in batches[1:]]
        held = task.queues[view].embeddings
        torch.testing.assert_close(held.sort(dim=0).values, torch.cat(pushed).sort(dim=0).values)


@pytest.mark.parametrize(
    ("epoch", "steps", "used"), [(3, 2, True), (4, 7, True), (3, 1, False), (2, 2, False)]
)  # from epoch 3 on, and from when two batches of 6 fill it
def test_the_queue_balances_codes_from_its_epoch_on_once_it_is_full(
    build: Any, epoch: int, steps: int, used: bool
) -> None:
    task = build(queue_size=2 * PICTURES, queue_from_epoch=3).eval()
    batch = multi_crop(epoch=epoch, step=steps)
    before = task(batch).loss
    with torch.no_grad():
        for queue in task.queues:
            queue.embeddings.copy_(task.prototypes.weight[0].expand_as(queue.embeddings))
    assert (task(batch).loss != before) == used


def test_queued_embeddings_are_scored_by_the_prototypes_of_today(build: Any) -> None:
    task = build(queue_size=PICTURES, queue_from_epoch=0).eval()
    step(task, multi_crop(seed=3))
    batch = multi_crop(step=1)
    scores = _scores_of(task, batch).detach()
    joined = [torch.cat([scores[view], task.prototypes(task.queues[view].embeddings)]) for view in range(2)]
    codes = [sinkhorn(each)[:PICTURES] for each in joined]
    assert task(batch).loss.item() == pytest.approx(naive_swav(scores, codes, [0, 1], 0.1), abs=1e-4)


def test_without_a_queue_nothing_is_kept(build: Any) -> None:
    task = build()
    assert not task(multi_crop()).kept
    assert not [name for name in task.state_dict() if "queue" in name]
    assert task.moves == ("prototypes",)


def test_the_loss_does_not_depend_on_the_order_of_the_pictures(build: Any) -> None:
    task, batch = build(queue_size=8, queue_from_epoch=0).eval(), multi_crop(step=5)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = batch_of([view[order] for view in batch.views], MULTI_CROP, step=5)
    torch.testing.assert_close(task(permuted).loss, task(batch).loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"swav: temperature must be positive, got 0\.0\. Typical: 0\.1"),
        ({"epsilon": -0.1}, r"swav: epsilon must be positive, got -0\.1\. Typical: 0\.03 to 0\.05"),
        ({"prototypes": 1}, r"swav: prototypes must be at least 2, got 1\. Typical: three times the classes"),
        ({"queue_size": 65}, r"swav: queue_size must be from 0 to the 64 training pictures, got 65\. Typical"),
        ({"queue_size": -1}, r"swav: queue_size must be from 0 to the 64 training pictures, got -1\. Typical"),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("queue_size", "roles", "message"),
    [
        (0, ("local", "local"), "some global views among at least 2 views"),
        (0, ("global",), "some global views among at least 2 views"),
        (8, ("global", "local"), "exactly 2 global views"),
    ],
)
def test_views_that_do_not_fit_are_refused(build: Any, queue_size: int, roles: tuple[str, ...], message: str) -> None:
    views = [pictures_of(PICTURES, 8, seed) for seed in range(len(roles))]
    with pytest.raises(ClvrBenchError, match=f"swav: expected {message}.*Use the augmentation 'multicrop'"):
        build(queue_size=queue_size)(batch_of(views, roles))


def test_the_loss_falls_within_a_few_steps(build: Any) -> None:
    task = build(freeze_epochs=0)
    colours = pictures_of(PICTURES, 1)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for seed in range(40):
        views = [colours + 0.02 * view for view in multi_crop(10 * seed).views]
        loss = task(batch_of(views, MULTI_CROP)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            task.after_step({}, Progress(0, 1, 0, 1))
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
