"""InfoMin lives with the versions of MoCo; what it shares with them is tested there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import MomentumTarget, SplitBatchNorm, TileCut
from clvr_plugins.pretext_tasks.moco import InfoMin, MoCoV2

FACTS = DataFacts("image", train_size=64, image_size=24)


def three_views(pictures: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(pictures, 3, 24, 24, generator=generator) for _ in range(3)]


def batch_of(views: list[Tensor], step: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, 0, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(step, 10, 0, 1))


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., InfoMin]:
    def task(kind: Any = InfoMin, **options: Any) -> Any:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        small = {"projection_dim": 6, "queue_size": 20, "batch_norm_splits": 2}
        return kind(encoder, FACTS, **{**small, **options})

    return task


def unit(vectors: Tensor) -> np.ndarray:
    array = vectors.detach().double().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def naive_info_nce(queries: np.ndarray, keys: np.ndarray, queue: np.ndarray, temperature: float) -> float:
    """MoCo's equation 1 as it is printed, averaged over the queries."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(float(query @ key) / temperature)
        losses.append(
            -math.log(positive / (positive + sum(math.exp(float(query @ row) / temperature) for row in queue)))
        )
    return sum(losses) / len(losses)


def parts(task: InfoMin, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, puzzles' queries, keys and the queue, in float64, from the task's own parts."""
    first, second, third = batch.views
    queries = task.head(task.encoder(first))
    puzzles = task.branch(task.encoder, third, batch.random)
    queue = task.queue.embeddings.double().numpy()
    return unit(queries), unit(puzzles), unit(task.target(second)), queue


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_the_loss_weighs_the_views_and_the_puzzles_info_nce(build: Callable[..., InfoMin], weight: float) -> None:
    task, batch = build(jigsaw_weight=weight).eval(), batch_of(three_views())
    queries, puzzles, keys, queue = parts(task, batch)
    of_views, of_puzzles = (naive_info_nce(each, keys, queue, 0.15) for each in (queries, puzzles))
    assert task(batch).loss.item() == pytest.approx((1 - weight) * of_views + weight * of_puzzles, rel=1e-5)


def test_the_puzzles_loss_is_lightlys(build: Callable[..., InfoMin]) -> None:
    task, batch = build(jigsaw_weight=1.0).eval(), batch_of(three_views())
    _, puzzles, keys, queue = (torch.from_numpy(part).float() for part in parts(task, batch))
    theirs = NTXentLoss(0.15, memory_bank_size=(20, 6))
    theirs.memory_bank.bank = queue
    assert task(batch).loss.item() == pytest.approx(theirs(puzzles, keys).item(), rel=1e-5)


def test_without_the_branch_it_is_the_second_version_of_moco(build: Callable[..., InfoMin]) -> None:
    task, plain, batch = build(jigsaw_weight=0.0), build(MoCoV2, temperature=0.15), batch_of(three_views())
    ours, theirs = task(batch), plain(batch)  # of the same seed, so of the same weights
    assert ours.loss == theirs.loss
    assert torch.equal(ours.kept["keys"], theirs.kept["keys"])
    assert ours.logs["contrastive_top1"] == theirs.logs["contrastive_top1"]


def test_the_puzzle_is_the_third_view_and_reaches_neither_keys_nor_target(build: Callable[..., InfoMin]) -> None:
    task, views = build(), three_views()
    other = [*views[:2], three_views(seed=1)[2]]
    seen: list[Tensor] = []
    task.target.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    first, second = task(batch_of(views)), task(batch_of(other))
    assert torch.equal(first.kept["keys"], second.kept["keys"])
    assert torch.equal(first.logs["contrastive_top1"], second.logs["contrastive_top1"])
    assert first.loss != second.loss
    assert [inputs.shape for inputs in seen] == [views[1].shape] * 2


def test_the_target_has_no_copy_of_the_branch(build: Callable[..., InfoMin]) -> None:
    task = build()
    copied = len(list(MomentumTarget(task.encoder, task.head).parameters()))
    assert len(list(task.target.parameters())) == copied


def test_a_tile_has_the_layers_of_the_head_and_all_nine_a_linear_one(build: Callable[..., InfoMin]) -> None:
    task = build()
    widths = [
        (layer.in_features, layer.out_features) for layer in task.branch.modules() if isinstance(layer, nn.Linear)
    ]
    assert widths == [(8, 8), (8, 6), (54, 6)]
    each: Any = task.branch.each
    assert [type(layer) for layer in each] == [type(layer) for layer in task.head] == [nn.Linear, nn.ReLU, nn.Linear]
    assert not torch.equal(each[0].weight, task.head[0].weight)  # type: ignore[index]  # a sequence


def heads(task: InfoMin) -> list[nn.Module]:
    """The head, its copy in the target, and the branch."""
    return [task.head, task.target[1], task.branch]


@pytest.mark.parametrize("splits", [1, 2])
def test_hidden_layers_are_normalized_in_parts_where_asked_for(build: Callable[..., InfoMin], splits: int) -> None:
    task = build(batch_norm=True, batch_norm_splits=splits)
    kind = nn.BatchNorm1d if splits == 1 else SplitBatchNorm
    norms = [[type(layer) for layer in part.modules() if "BatchNorm" in type(layer).__name__] for part in heads(task)]
    assert norms == [[kind]] * 3
    assert [[m for m in part.modules() if "BatchNorm" in type(m).__name__] for part in heads(build())] == [[], [], []]


def test_tiles_pass_the_encoder_with_its_split_batch_norm(build: Callable[..., InfoMin]) -> None:
    assert any(isinstance(module, SplitBatchNorm) for module in build().encoder.modules())
    sizes: list[Any] = []
    task = build(enlarged=2.0)
    task.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape)))
    task(batch_of(three_views()))
    assert task.branch.cut == TileCut(8, 6, 12)
    assert sizes == [(8, 3, 24, 24), (72, 3, 12, 12)]


def test_a_step_moves_target_and_queue_and_nothing_else(build: Callable[..., InfoMin]) -> None:
    task, batch = build(), batch_of(three_views())
    output = task(batch)
    output.loss.backward()
    torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1).step()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    task.after_step(output.kept, batch.progress)
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert {name.split(".")[0] for name in moved} == {"target", "queue"} == set(task.moves)
    assert torch.equal(task.queue.embeddings[:8], output.kept["keys"])
    assert not any("running" in name for name in moved)


def test_forward_moves_nothing_but_batch_norm(build: Callable[..., InfoMin]) -> None:
    task = build()
    before = copy.deepcopy(task.state_dict())
    task(batch_of(three_views()))
    moved = [name for name, value in task.state_dict().items() if not torch.equal(before[name], value)]
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_the_gradient_reaches_encoder_head_and_branch_and_nothing_of_the_target(build: Callable[..., InfoMin]) -> None:
    task = build()
    task(batch_of(three_views())).loss.backward()
    reached = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("target")}


def test_jigsaw_top1_is_the_percentage_of_puzzles_nearest_to_their_key(build: Callable[..., InfoMin]) -> None:
    task, batch = build().eval(), batch_of(three_views())
    _, puzzles, keys, queue = parts(task, batch)
    found = [query @ key > (queue @ query).max() for query, key in zip(puzzles, keys, strict=True)]
    assert float(task(batch).logs["jigsaw_top1"]) == pytest.approx(100 * sum(found) / 8)
    task.queue.embeddings.copy_(-F.normalize(torch.from_numpy(puzzles.mean(axis=0)).float(), dim=0).expand(20, 6))
    assert float(task(batch).logs["jigsaw_top1"]) > 50  # negatives on the far side


def test_the_preview_has_query_key_and_the_puzzle_that_the_encoder_sees(build: Callable[..., InfoMin]) -> None:
    task, batch = build(), batch_of(three_views())
    shown = task.preview(batch)
    assert list(shown) == ["query", "key", "tiles", "puzzle"]
    assert torch.equal(shown["query"], batch.views[0])
    assert torch.equal(shown["key"], batch.views[1])
    assert torch.equal(shown["puzzle"], task.branch.cut.drawn(task.branch.puzzles(batch.views[2], batch.random)))


def test_it_asks_for_three_views_of_its_own_augmentation(plugins: Plugins) -> None:
    assert (InfoMin.views, MoCoV2.views) == (3, 2)
    assert plugins.registry.get(Kind.AUGMENTATION, InfoMin.default_augmentation).name == "infomin"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jigsaw_weight": 1.5}, r"infomin: jigsaw_weight must be in \[0, 1\], got 1\.5\. The code's is 0\.5"),
        ({"jigsaw_weight": -0.5}, r"infomin: jigsaw_weight must be in \[0, 1\], got -0\.5"),
        ({"temperature": 0.0}, r"infomin: temperature must be positive, got 0\.0"),
        ({"queue_size": 65}, r"infomin: queue_size must be .* at most the 64 training"),
        ({"enlarged": 0.5}, r"enlarged must be at least 1, got 0\.5"),
    ],
)
def test_bad_options_are_refused(build: Callable[..., InfoMin], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**options)


def test_the_loss_falls_within_a_few_steps(build: Callable[..., InfoMin]) -> None:
    task = build(target_momentum=0.9, batch_norm_splits=1)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    colors = torch.rand(3, 12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for step in range(40):  # a batch comes back after the queue has forgotten its keys, or they would repel it
        output = task(batch_of([0.8 * colors[step % 3] + 0.2 * view for view in three_views(12, step)], step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        task.after_step(output.kept, Progress(step, 40, 0, 1))
        losses.append(output.loss.item())
    assert sum(losses[-3:]) < 0.8 * max(sum(losses[start : start + 3]) for start in range(5))
