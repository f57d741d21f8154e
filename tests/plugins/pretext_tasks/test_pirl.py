from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox.nce import NCE
from clvr_plugins.pretext_tasks.pirl import PIRL, RotationBranch, nce_losses, own_and_others

SIZE = 40
FACTS = DataFacts("image", train_size=SIZE, image_size=24)
PROGRESS = Progress(0, 1, 0, 1)
INDEX = torch.tensor([3, 30, 7, 39, 0])
TRANSFORMS = ["jigsaw", "rotation"]


def views(count: int = 5, seed: int = 0, size: int = 24) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(count, 3, size, size, generator=generator) for _ in range(2)]


def batch_of(views: list[Tensor], index: Tensor = INDEX, epoch: int = 0) -> Batch:
    return Batch(views, index, torch.full_like(index, -1), SampleRandom.keyed(0, epoch, index), PROGRESS)


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., PIRL]:
    def make(**options: Any) -> PIRL:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return PIRL(encoder, FACTS, **{"projection_dim": 6, "negatives": 10, "temperature": 0.3, **options})

    return make


def naive_nce(positive: float, negatives: list[float], temperature: float) -> float:
    """Equation 4 of two similarities as printed, with h of equation 3."""
    total = sum(math.exp(each / temperature) for each in negatives)

    def h(similarity: float) -> float:
        return math.exp(similarity / temperature) / (math.exp(similarity / temperature) + total)

    return -math.log(h(positive)) - sum(math.log(1 - h(each)) for each in negatives)


def unit(vectors: Tensor) -> np.ndarray:
    array = vectors.detach().double().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def naive_loss(task: PIRL, batch: Batch, weight: float, temperature: float) -> float:
    """Equation 5, picture by picture; the first of the numbers of ``own_and_others`` is the picture's own."""
    own = unit(task.head(task.encoder(batch.views[0])))
    transformed = unit(task.branch(task.encoder, batch.views[1], batch.random))
    bank = task.bank.vectors.double().numpy()
    losses = []
    numbers = own_and_others(batch.index, SIZE, batch.random("negatives"), task.negatives)
    for row, (mine, *others) in enumerate(numbers.tolist()):
        terms = []
        for embedding in (transformed[row], own[row]):
            similarities = [float(embedding @ bank[each]) for each in others]
            terms.append(naive_nce(float(embedding @ bank[mine]), similarities, temperature))
        losses.append(weight * terms[0] + (1 - weight) * terms[1])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("negatives", "weight"), [(10, 0.5), (10, 0.0), (10, 1.0), (0, 0.3)])
def test_the_loss_is_equation_5_over_the_bank(
    build: Callable[..., PIRL], transform: str, negatives: int, weight: float
) -> None:
    task = build(transform=transform, negatives=negatives, transform_weight=weight).eval()
    batch = batch_of(views())
    assert task(batch).loss.item() == pytest.approx(naive_loss(task, batch, weight, 0.3), rel=1e-5)


def test_a_term_is_what_instance_discrimination_has_in_its_first_step() -> None:
    similarities = torch.rand(7, 1 + 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    losses, _ = NCE(SIZE, 0.2)(similarities)
    torch.testing.assert_close(nce_losses(similarities / 0.2), losses)


@pytest.mark.parametrize("negatives", [1, 9])
def test_equal_similarities_have_the_loss_of_chance(negatives: int) -> None:
    expected = math.log(1 + negatives) + negatives * math.log(1 + 1 / negatives)
    assert nce_losses(torch.full((3, 1 + negatives), 2.0)).tolist() == pytest.approx([expected] * 3)


def test_a_positive_that_is_far_above_its_negatives_costs_what_these_cost_one_another() -> None:
    loss = nce_losses(torch.tensor([[80.0, 1.0, 1.0]]))
    assert loss.item() == pytest.approx(2 * math.log(1 + 1 / 2))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), shift=st.floats(-40, 40))
def test_order_of_negatives_and_a_common_shift_do_not_matter(seed: int, shift: float) -> None:
    logits = torch.randn(3, 1 + 6, generator=torch.Generator().manual_seed(seed)).double()
    flipped = torch.cat([logits[:, :1], logits[:, 1:].flip(1)], dim=1)
    torch.testing.assert_close(nce_losses(flipped), nce_losses(logits))
    torch.testing.assert_close(nce_losses(logits + shift), nce_losses(logits))


def test_negatives_are_other_pictures_and_all_of_them_may_come_up() -> None:
    index = torch.arange(6)
    chosen = own_and_others(index, 6, SampleRandom.keyed(0, 0, index)("negatives"), 60)
    assert torch.equal(chosen[:, 0], index)
    for own, others in enumerate(chosen[:, 1:].tolist()):
        assert set(others) == set(range(6)) - {own}
    other_epoch = own_and_others(index, 6, SampleRandom.keyed(0, 1, index)("negatives"), 60)
    assert not torch.equal(chosen, other_epoch)


def test_no_number_of_negatives_means_each_other_picture_once() -> None:
    index = torch.tensor([4, 0, 2])
    chosen = own_and_others(index, 5, SampleRandom.keyed(0, 0, index)("negatives"), 0)
    assert torch.equal(chosen[:, 0], index)
    assert (chosen.sort(dim=1).values == torch.arange(5)).all()


def test_a_step_moves_the_vectors_of_its_pictures_by_their_own_embeddings_half_way(build: Callable[..., PIRL]) -> None:
    task, batch = build().eval(), batch_of(views())
    before = task.bank.vectors.clone()
    own = F.normalize(task.head(task.encoder(batch.views[0])), dim=1).detach()
    task.after_step(task(batch).kept, PROGRESS)
    torch.testing.assert_close(task.bank.vectors[INDEX], F.normalize(before[INDEX] + own, dim=1))
    others = [number for number in range(SIZE) if number not in INDEX.tolist()]
    assert torch.equal(task.bank.vectors[others], before[others])


def test_what_a_step_moves_is_what_it_declares(build: Callable[..., PIRL]) -> None:
    task, batch = build(), batch_of(views())
    output = task(batch)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task.after_step(output.kept, PROGRESS)
    moved = {name for name, tensor in task.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == {"bank.vectors"}
    assert task.moves == ("bank",)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_forward_moves_nothing_but_normalization(build: Callable[..., PIRL], transform: str) -> None:
    task = build(transform=transform)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task(batch_of(views()))
    moved = [name for name, tensor in task.state_dict().items() if not torch.equal(before[name], tensor)]
    assert all("running" in name or "num_batches" in name for name in moved)


def reached(task: PIRL) -> set[str]:
    task(batch_of(views())).loss.backward()
    return {name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_gradient_reaches_every_parameter(build: Callable[..., PIRL], transform: str) -> None:
    task = build(transform=transform)
    assert reached(task) == {name for name, _ in task.named_parameters()}


@pytest.mark.parametrize(("weight", "head"), [(0.0, "head."), (1.0, "branch.")])
def test_a_weight_at_either_end_leaves_one_head_without_gradient(
    build: Callable[..., PIRL], weight: float, head: str
) -> None:
    task = build(transform_weight=weight)
    other = {"head.": "branch.", "branch.": "head."}[head]
    names = reached(task)
    assert any(name.startswith(head) for name in names)
    assert not any(name.startswith(other) for name in names)


def test_nothing_that_is_kept_has_a_gradient(build: Callable[..., PIRL]) -> None:
    kept = build()(batch_of(views())).kept
    assert set(kept) == {"index", "embeddings"}
    assert not kept["embeddings"].requires_grad


def test_the_second_view_is_the_one_that_is_transformed(build: Callable[..., PIRL]) -> None:
    task = build(transform_weight=1.0).eval()
    first, second = views()
    loss = task(batch_of([first, second])).loss
    assert task(batch_of([second, second])).loss == loss
    assert task(batch_of([first, first])).loss != loss


def test_a_branch_turns_each_picture_by_quarters() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(40, 1, 3, 3)
    random = SampleRandom.keyed(0, 0, torch.arange(40))
    turned = RotationBranch(nn.Identity()).turned(image, random)
    quarters = random("turn").integers(4).tolist()
    assert set(quarters) == {0, 1, 2, 3}
    for quarter, made in zip(quarters, turned, strict=True):
        assert torch.equal(made, image[0].rot90(quarter, dims=(-2, -1)))


def test_a_turned_picture_is_embedded_by_a_head_of_its_own(build: Callable[..., PIRL]) -> None:
    task, batch = build(transform="rotation").eval(), batch_of(views())
    branch: Any = task.branch
    turned = branch.turned(batch.views[1], batch.random)
    torch.testing.assert_close(
        branch(task.encoder, batch.views[1], batch.random), branch.head(task.encoder(turned)), rtol=0, atol=1e-6
    )
    assert branch.head is not task.head
    assert not torch.equal(branch.head.weight, task.head.weight)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_both_heads_are_linear_and_normalized_where_asked_for(
    build: Callable[..., PIRL], transform: str, normalized: bool
) -> None:
    task = build(transform=transform, batch_norm=normalized)
    heads = [task.head, task.branch]
    kinds = [[type(layer) for layer in head.modules() if not list(layer.children())] for head in heads]
    one = [nn.BatchNorm1d, nn.Linear] if normalized else [nn.Linear]
    assert kinds == [one, [*one, *([nn.Linear] if transform == "jigsaw" else [])]]


def test_similarities_stay_in_float32_under_autocast(build: Callable[..., PIRL]) -> None:
    task = build(temperature=0.07).eval()
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch_of(views())).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(task(batch_of(views())).loss.item(), rel=0.02)


def test_top1s_are_percentages_that_find_their_own_vector(build: Callable[..., PIRL]) -> None:
    task, batch = build().eval(), batch_of(views())
    first = task(batch)
    assert 0 <= float(first.logs["own_top1"]) < 100
    task.bank.momentum = 0.0
    task.after_step(first.kept, PROGRESS)  # each picture's vector is now its embedding
    logs = task(batch).logs
    assert float(logs["own_top1"]) == 100
    transformed = F.normalize(task.branch(task.encoder, batch.views[1], batch.random), dim=1)
    entries = own_and_others(INDEX, SIZE, batch.random("negatives"), 10)
    found = task.bank.similarities(transformed, entries).argmax(dim=1) == 0
    assert float(logs["transformed_top1"]) == pytest.approx(100 * found.float().mean().item())


def test_the_preview_is_the_picture_and_what_the_branch_sees(build: Callable[..., PIRL]) -> None:
    batch = batch_of(views())
    puzzle, turned = (build(transform=transform).preview(batch) for transform in TRANSFORMS)
    assert list(puzzle) == ["picture", "tiles", "puzzle"]
    assert list(turned) == ["picture", "turned"]
    assert torch.equal(puzzle["picture"], batch.views[0])
    branch: Any = build(transform="rotation").branch
    assert torch.equal(turned["turned"], branch.turned(batch.views[1], batch.random))


def test_tiles_are_enlarged_where_asked_for(build: Callable[..., PIRL]) -> None:
    branch: Any = build(enlarged=2.0).branch
    assert (branch.cut.cell, branch.cut.tile, branch.cut.side) == (8, 6, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"pirl: temperature must be positive, got 0\.0"),
        ({"negatives": -1}, r"pirl: negatives must be from 0 to the 40 training pictures, got -1"),
        ({"negatives": 41}, r"pirl: negatives must be .* got 41\. Set fewer, such as negatives=10"),
        ({"transform_weight": 1.1}, r"pirl: transform_weight must be in \[0, 1\], got 1\.1\. The paper's: 0\.5"),
        ({"transform_weight": -0.1}, r"pirl: transform_weight must be in \[0, 1\], got -0\.1"),
        ({"bank_momentum": 1.0}, r"momentum must be in \[0, 1\), got 1\.0"),
        ({"enlarged": 0.9}, r"enlarged must be at least 1, got 0\.9"),
    ],
)
def test_bad_options_are_refused(build: Callable[..., PIRL], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_loss_falls_within_a_few_steps(build: Callable[..., PIRL], transform: str) -> None:
    task = build(transform=transform, negatives=0, batch_norm=True)
    colors = torch.rand(SIZE, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for step in range(40):
        index = torch.arange(20) + 20 * (step % 2)
        pair = [0.8 * colors[index] + 0.2 * view for view in views(20, seed=step)]
        output = task(batch_of(pair, index, epoch=step // 2))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        task.after_step(output.kept, PROGRESS)
        losses.append(output.loss.item())
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
