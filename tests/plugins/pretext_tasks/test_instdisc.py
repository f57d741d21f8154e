from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.instdisc import InstDisc, squared_distances

SIZE = 40
FACTS = DataFacts("image", train_size=SIZE, image_size=8)
PROGRESS = Progress(0, 1, 0, 1)


class Flat(nn.Module):
    """An encoder stand-in: a picture's pixels are its feature."""

    feature_dim = 4

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, PROGRESS)


def embed(task: InstDisc, images: Tensor) -> Tensor:
    """Unit embeddings in float64, from the task's own parts."""
    projected = task.projector(task.encoder(images)).detach().double()
    return projected / projected.norm(dim=1, keepdim=True)


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., InstDisc]:
    def make(**options: Any) -> InstDisc:
        torch.manual_seed(0)
        encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
        encoder.feature_dim = 8
        return InstDisc(encoder, FACTS, **{"projection_dim": 6, "negatives": 10, "temperature": 0.3, **options})

    return make


def naive_losses(embeddings: Tensor, bank: Tensor, entries: Tensor, temperature: float) -> list[float]:
    """Equations 4 to 8 as printed, Z estimated for each picture."""
    losses = []
    for row, chosen in enumerate(entries.tolist()):
        powers = [math.exp(float(bank[entry].double() @ embeddings[row]) / temperature) for entry in chosen]
        positive, noise = powers[0], powers[1:]
        constant = len(bank) / len(noise) * sum(noise)

        def h(power: float, constant: float = constant, noise: int = len(noise)) -> float:
            return (power / constant) / (power / constant + noise / len(bank))

        losses.append(-math.log(h(positive)) - sum(math.log(1 - h(power)) for power in noise))
    return losses


def test_the_first_loss_is_equation_7_over_the_bank(build: Callable[..., InstDisc]) -> None:
    task = build().eval()
    batch = batch_of(pictures(5), torch.tensor([3, 30, 7, 39, 0]))
    entries = task.bank.entries(batch.index, batch.random("negatives"), 10)
    expected = naive_losses(embed(task, batch.views[0]), task.bank.vectors, entries, 0.3)
    assert task(batch).loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)


def test_without_sampling_the_loss_is_the_softmax_of_equation_2(build: Callable[..., InstDisc]) -> None:
    task = build(negatives=0).eval()
    batch = batch_of(pictures(5), torch.tensor([3, 30, 7, 39, 0]))
    losses = []
    for embedding, own in zip(embed(task, batch.views[0]), batch.index.tolist(), strict=True):
        powers = [math.exp(float(vector.double() @ embedding) / 0.3) for vector in task.bank.vectors]
        losses.append(-math.log(powers[own] / sum(powers)))
    assert task(batch).loss.item() == pytest.approx(sum(losses) / 5, rel=1e-5)


@pytest.mark.parametrize("negatives", [0, 10])
def test_the_proximal_term_is_added_as_in_equation_10(build: Callable[..., InstDisc], negatives: int) -> None:
    plain, proximal = (build(negatives=negatives, proximal=strength).eval() for strength in (0.0, 3.0))
    batch = batch_of(pictures(5))
    moved = (embed(plain, batch.views[0]) - plain.bank.vectors[:5].double()).square().sum(dim=1)
    expected = plain(batch).loss.item() + 3.0 * moved.mean().item()
    assert proximal(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_squared_distances_are_euclids() -> None:
    first, second = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    assert squared_distances(first, second).tolist() == pytest.approx([2.0, 0.0])


def test_a_step_moves_the_vectors_of_its_pictures_half_way(build: Callable[..., InstDisc]) -> None:
    task = build().eval()
    batch = batch_of(pictures(3), torch.tensor([9, 2, 31]))
    before = task.bank.vectors.clone()
    task.after_step(task(batch).kept, PROGRESS)
    half_way = 0.5 * before[batch.index].double() + 0.5 * embed(task, batch.views[0])
    expected = (half_way / half_way.norm(dim=1, keepdim=True)).float()
    torch.testing.assert_close(task.bank.vectors[batch.index], expected)
    others = [position for position in range(SIZE) if position not in (9, 2, 31)]
    assert torch.equal(task.bank.vectors[others], before[others])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_features_are_normalized_over_the_batch_where_asked_for(
    build: Callable[..., InstDisc], batch_norm: bool
) -> None:
    task = build(batch_norm=batch_norm)
    kept = task(batch_of(pictures(5))).kept["embeddings"].double()
    features = task.encoder(pictures(5)).double()
    if batch_norm:
        features = (features - features.mean(dim=0)) / (features.var(dim=0, unbiased=False) + 1e-5).sqrt()
    (linear,) = (layer.double() for layer in task.projector.modules() if isinstance(layer, nn.Linear))
    projected = linear(features)
    torch.testing.assert_close(kept, projected / projected.norm(dim=1, keepdim=True), rtol=0, atol=1e-4)


def test_forward_moves_neither_bank_nor_constant(build: Callable[..., InstDisc]) -> None:
    task = build().eval()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task(batch_of(pictures(5)))
    assert all(torch.equal(before[name], tensor) for name, tensor in task.state_dict().items())


def test_what_a_step_moves_is_what_it_declares(build: Callable[..., InstDisc]) -> None:
    task = build().eval()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    task.after_step(task(batch_of(pictures(5))).kept, PROGRESS)
    moved = {name for name, tensor in task.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == {"bank.vectors", "nce.log_constant", "nce.settled"}
    assert {name.split(".")[0] for name in moved} == set(InstDisc.moves)


def test_the_constant_is_that_of_the_first_step(build: Callable[..., InstDisc]) -> None:
    task = build().eval()
    task.after_step(task(batch_of(pictures(5))).kept, PROGRESS)
    first = task.nce.log_constant.clone()
    kept = task(batch_of(pictures(5, seed=1), torch.arange(20, 25))).kept
    assert not torch.allclose(kept["log_constants"], first)
    task.after_step(kept, PROGRESS)
    assert torch.equal(task.nce.log_constant, first)


def test_nothing_kept_has_a_gradient(build: Callable[..., InstDisc]) -> None:
    kept = build()(batch_of(pictures(5))).kept
    assert {name: len(tensor) for name, tensor in kept.items()} == {"index": 5, "embeddings": 5, "log_constants": 5}
    assert not any(tensor.requires_grad for tensor in kept.values())


@pytest.mark.parametrize("settled", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(build: Callable[..., InstDisc], settled: bool) -> None:
    task = build(proximal=2.0).eval()  # batch statistics are the one thing that parts do not share
    images, index = pictures(6), torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))[:6]
    if settled:
        task.after_step(task(batch_of(pictures(6, seed=1))).kept, PROGRESS)
    parts = [task(batch_of(images[part], index[part])).loss for part in torch.arange(6).chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images, index)).loss)
    assert InstDisc.separable


def test_contrastive_top1_is_the_percentage_that_find_themselves(plugins: Plugins) -> None:
    encoder: Any = Flat()
    for negatives in (0, 32):  # 32 draws out of 4 miss one with a probability of 1 in 10,000
        task = InstDisc(encoder, DataFacts("image", 32, 2), projection_dim=4, negatives=negatives)
        task.projector = nn.Identity()  # type: ignore[assignment]
        task.bank.vectors.copy_(torch.eye(4).repeat(8, 1))
        views = torch.eye(4)[[0, 1, 3, 2]].view(4, 1, 2, 2)  # the last two look like one another
        logs = task(batch_of(views, torch.arange(4))).logs
        assert float(logs["contrastive_top1"]) == 50


def test_the_gradient_reaches_encoder_and_projector_and_nothing_else(build: Callable[..., InstDisc]) -> None:
    task = build(proximal=1.0)
    task(batch_of(pictures(4))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert {name.split(".")[0] for name, _ in task.named_parameters()} == {"encoder", "projector"}


def test_the_loss_is_in_float32_under_autocast(build: Callable[..., InstDisc]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = build()(batch_of(pictures(4)))
    assert output.loss.dtype is torch.float32
    assert output.kept["embeddings"].dtype is torch.float32


@pytest.mark.parametrize("negatives", [-1, 41])
def test_more_negatives_than_pictures_are_refused(build: Callable[..., InstDisc], negatives: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"instdisc: negatives must be from 0 to the 40 .* {negatives}\."):
        build(negatives=negatives)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("temperature", 0.0, r"instdisc: temperature must be positive, got 0\.0\. Typical"),
        ("proximal", -1.0, r"instdisc: proximal must not be negative, got -1\.0\. Use 0 for none"),
        ("bank_momentum", 1.0, r"memory bank: momentum must be in \[0, 1\), got 1\.0"),
    ],
)
def test_options_out_of_range_are_refused(
    build: Callable[..., InstDisc], option: str, value: float, message: str
) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**{option: value})


def train(task: InstDisc, steps: int) -> list[tuple[float, float]]:
    """Return loss and top-1 of every step, on pictures of one tint each that take turns at being noisy."""
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    tint, index = torch.rand(SIZE, 3, 1, 1, generator=torch.Generator().manual_seed(1)), torch.arange(SIZE)
    history = []
    for step in range(steps):
        random = SampleRandom.keyed(0, step, index)
        views = [(tint + 0.2 * pictures(SIZE, seed=step)) / 1.2]
        output = task(Batch(views, index, torch.full_like(index, -1), random, PROGRESS))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        with torch.no_grad():
            task.after_step(output.kept, Progress(step, steps, 0, 1))
        history.append((output.loss.item(), float(output.logs["contrastive_top1"])))
    return history


@pytest.mark.parametrize(
    "options", [{}, {"negatives": 0}, {"bank_momentum": 0.0, "proximal": 1.0}, {"batch_norm": True}]
)
def test_pictures_are_told_apart_within_a_few_steps(build: Callable[..., InstDisc], options: dict[str, Any]) -> None:
    history = train(build(**options), steps=30)
    assert sum(top1 for _, top1 in history[-5:]) / 5 > 3 * history[0][1]


@pytest.mark.parametrize("options", [{}, {"negatives": 0}])
def test_the_loss_falls_within_a_few_steps(build: Callable[..., InstDisc], options: dict[str, Any]) -> None:
    """The first steps fill the bank with embeddings that are still alike, which is harder than random directions."""
    losses = [loss for loss, _ in train(build(**options), steps=60)]
    assert losses[-1] < 0.8 * max(losses)
