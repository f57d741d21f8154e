from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, EncoderFacts, Progress, SampleRandom
from clvr_bench.assembly import build_encoder
from clvr_bench.combinations import Choice
from clvr_bench.ops.color_lab import rgb_to_lab, unit_lab
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.cmc import CMC, SHOWN_LIGHTNESS, softmax_losses, split_lab

SIZE = 40
FACTS = DataFacts("image", train_size=SIZE, image_size=8)
PROGRESS = Progress(0, 1, 0, 1)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, PROGRESS)


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., CMC]:
    def make(**options: Any) -> CMC:
        torch.manual_seed(0)
        entry = plugins.registry.get(Kind.ENCODER, "tiny")
        choice = Choice(entry, resolve_options(entry.options, CMC.encoder_options(**options), "test"))
        given = {"projection_dim": 6, "negatives": 10, "temperature": 0.3, **options}
        return CMC(build_encoder(choice, FACTS), FACTS, **given)

    return make


def embeddings(task: CMC, images: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of L and of ab in float64, from the task's own parts."""
    lightness, color = split_lab(images)
    projected = (
        task.projector_l(task.encoder.encode(lightness)).detach().double(),
        task.projector_ab(task.encoder_ab.encode(color)).detach().double(),
    )
    return projected[0] / projected[0].norm(dim=1, keepdim=True), projected[1] / projected[1].norm(dim=1, keepdim=True)


def naive_direction(anchors: Tensor, bank: Tensor, entries: Tensor, temperature: float, loss: str) -> float:
    """One direction of equation 2, or its noise-contrastive estimate with Z estimated for each picture."""
    losses = []
    for anchor, chosen in zip(anchors, entries.tolist(), strict=True):
        powers = [math.exp(float(bank[entry].double() @ anchor) / temperature) for entry in chosen]
        if loss == "softmax":
            losses.append(-math.log(powers[0] / sum(powers)))
            continue
        k, n = len(powers) - 1, len(bank)
        constant = n / k * sum(powers[1:])
        h = [(power / constant) / (power / constant + k / n) for power in powers]
        losses.append(-math.log(h[0]) - sum(math.log(1 - value) for value in h[1:]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_the_loss_is_the_sum_of_both_directions(build: Callable[..., CMC], loss: str) -> None:
    task = build(loss=loss).eval()
    batch = batch_of(pictures(5), torch.tensor([3, 30, 7, 39, 0]))
    entries = task.bank_l.entries(batch.index, batch.random("negatives"), 10)
    of_l, of_ab = embeddings(task, batch.views[0])
    expected = naive_direction(of_l, task.bank_ab.vectors, entries, 0.3, loss)
    expected += naive_direction(of_ab, task.bank_l.vectors, entries, 0.3, loss)
    assert task(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_softmax_losses_of_equal_logits_are_those_of_chance() -> None:
    assert softmax_losses(torch.full((3, 8), 2.5)).tolist() == pytest.approx([math.log(8)] * 3)


def test_views_are_lightness_and_color_in_minus_one_to_one() -> None:
    black, white, gray = (torch.full((1, 3, 2, 2), value) for value in (0.0, 1.0, 0.5))
    for images, lightness in ((black, -1.0), (white, 1.0), (gray, 2 * 53.389 / 100 - 1)):
        view, color = split_lab(images)
        torch.testing.assert_close(view, torch.full((1, 1, 2, 2), lightness), rtol=0, atol=1e-4)
        torch.testing.assert_close(color, split_lab(gray)[1], rtol=0, atol=1e-4)
    view, color = split_lab(pictures(4))
    assert view.shape == (4, 1, 8, 8)
    assert color.shape == (4, 2, 8, 8)
    assert view.abs().max() <= 1
    assert color.abs().max() <= 1


def test_each_encoder_sees_its_own_view_alone(build: Callable[..., CMC]) -> None:
    task = build().eval()
    grays = pictures(4)[:, :1].expand(-1, 3, -1, -1)
    with torch.no_grad():
        features = task.representation()(grays)
        colored = task.representation()(pictures(4))
    assert features.shape == (4, 16)
    assert torch.allclose(features[:, 8:], features[:1, 8:].expand(4, 8), atol=1e-5)  # no grays differ in color
    assert not torch.allclose(features[:, :8], features[:1, :8].expand(4, 8), atol=1e-5)
    assert not torch.allclose(colored[:, 8:], colored[:1, 8:].expand(4, 8), atol=1e-5)


def test_the_representation_is_both_encoders_features_side_by_side(build: Callable[..., CMC]) -> None:
    task = build().eval()
    lightness, color = split_lab(pictures(4))
    expected = torch.cat([task.encoder.encode(lightness), task.encoder_ab.encode(color)], dim=1)
    torch.testing.assert_close(task.representation()(pictures(4)), expected)
    count = sum(p.numel() for p in task.representation().parameters())
    assert count == sum(p.numel() for encoder in (task.encoder, task.encoder_ab) for p in encoder.parameters())


def test_the_encoders_share_no_weights(build: Callable[..., CMC]) -> None:
    task = build()
    assert (len(task.encoder.mean), len(task.encoder_ab.mean)) == (1, 2)
    assert not {id(p) for p in task.encoder.parameters()} & {id(p) for p in task.encoder_ab.parameters()}


def test_a_step_moves_each_views_vectors_in_its_own_bank(build: Callable[..., CMC]) -> None:
    task = build().eval()
    batch = batch_of(pictures(3), torch.tensor([9, 2, 31]))
    banks = (task.bank_l, task.bank_ab)
    before = [bank.vectors.clone() for bank in banks]
    task.after_step(task(batch).kept, PROGRESS)
    others = [position for position in range(SIZE) if position not in (9, 2, 31)]
    for bank, old, new in zip(banks, before, embeddings(task, batch.views[0]), strict=True):
        half_way = 0.5 * old[batch.index].double() + 0.5 * new
        torch.testing.assert_close(
            bank.vectors[batch.index], (half_way / half_way.norm(dim=1, keepdim=True)).float(), rtol=0, atol=1e-5
        )
        assert torch.equal(bank.vectors[others], old[others])


def test_forward_moves_nothing_and_a_step_what_is_declared(build: Callable[..., CMC]) -> None:
    task = build().eval()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    output = task(batch_of(pictures(5)))
    assert all(torch.equal(before[name], tensor) for name, tensor in task.state_dict().items())
    task.after_step(output.kept, PROGRESS)
    moved = {name.split(".")[0] for name, tensor in task.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == set(CMC.moves)


def test_each_direction_has_its_own_constant_of_the_first_step(build: Callable[..., CMC]) -> None:
    task = build().eval()
    kept = task(batch_of(pictures(5))).kept
    task.after_step(kept, PROGRESS)
    constants = [task.nce_l.log_constant.clone(), task.nce_ab.log_constant.clone()]
    assert [c.item() for c in constants] == pytest.approx(
        [kept[name].exp().mean().log().item() for name in ("constants_l", "constants_ab")], abs=1e-5
    )
    task.after_step(task(batch_of(pictures(5, seed=1))).kept, PROGRESS)
    assert [task.nce_l.log_constant, task.nce_ab.log_constant] == constants


def test_each_direction_is_normalized_by_its_own_constant(build: Callable[..., CMC]) -> None:
    task = build().eval()
    batch = batch_of(pictures(5))
    task.nce_l.settle(torch.tensor([3.0]))
    task.nce_ab.settle(torch.tensor([5.0]))
    entries = task.bank_l.entries(batch.index, batch.random("negatives"), 10)
    expected = 0.0
    of_l, of_ab = embeddings(task, batch.views[0])
    for anchors, bank, log_constant in ((of_l, task.bank_ab, 3.0), (of_ab, task.bank_l, 5.0)):
        for anchor, chosen in zip(anchors, entries.tolist(), strict=True):
            p = [math.exp(float(bank.vectors[entry].double() @ anchor) / 0.3 - log_constant) for entry in chosen]
            h = [value / (value + 10 / SIZE) for value in p]
            expected -= (math.log(h[0]) + sum(math.log(1 - value) for value in h[1:])) / 5
    assert task(batch).loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(build: Callable[..., CMC]) -> None:
    task = build().eval()  # batch statistics are the one thing that parts do not share
    images, index = pictures(6), torch.randperm(SIZE, generator=torch.Generator().manual_seed(0))[:6]
    parts = [task(batch_of(images[part], index[part])).loss for part in torch.arange(6).chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images, index)).loss)
    assert CMC.separable


def test_the_gradient_reaches_both_encoders_and_projectors(build: Callable[..., CMC]) -> None:
    task = build()
    task(batch_of(pictures(4))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_top1_is_the_percentage_that_find_the_other_view(build: Callable[..., CMC]) -> None:
    task = build(negatives=SIZE).eval()
    images = pictures(4)
    batch = batch_of(images)
    task.bank_ab.vectors[:4] = embeddings(task, images)[0].float()[[0, 1, 3, 2]]  # L of 2 looks like ab of 3
    task.bank_ab.vectors[4:] = -task.bank_ab.vectors[0]
    of_l = embeddings(task, images)[0]
    entries = task.bank_ab.entries(batch.index, batch.random("negatives"), SIZE)
    found = [
        max(chosen, key=lambda entry: float(task.bank_ab.vectors[entry].double() @ anchor)) == chosen[0]
        for anchor, chosen in zip(of_l, entries.tolist(), strict=True)
    ]
    assert float(task(batch).logs["contrastive_top1_l"]) == 25 * sum(found)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_features_are_normalized_over_the_batch_where_asked_for(build: Callable[..., CMC], batch_norm: bool) -> None:
    task = build(batch_norm=batch_norm)
    found = [isinstance(layer, nn.BatchNorm1d) for layer in (*task.projector_l.modules(), *task.projector_ab.modules())]
    assert sum(found) == 2 * batch_norm


def test_both_encoders_passes_are_counted(build: Callable[..., CMC]) -> None:
    task = build()
    task(batch_of(pictures(5)))
    assert (task.encoder.passes, task.encoder_ab.passes) == (5, 5)


def test_the_loss_is_in_float32_under_autocast(build: Callable[..., CMC]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = build()(batch_of(pictures(4)))
    assert output.loss.dtype is torch.float32
    assert output.kept["ab"].dtype is torch.float32


def test_pictures_without_color_are_skipped_with_the_reason() -> None:
    encoder = EncoderFacts("tiny", 8, 100, 4, has_feature_maps=False, has_tokens=False)
    assert CMC.skip_reason(encoder, FACTS) is None
    assert CMC.skip_reason(encoder, replace(FACTS, channels=1)) == "cmc splits color pictures, these have 1 channels"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("negatives", 41, r"cmc: negatives must be from 1 to the 40 training pictures, got 41\. Set fewer"),
        ("negatives", 0, r"cmc: negatives must be from 1 to the 40 training pictures, got 0\."),
        ("temperature", -0.1, r"cmc: temperature must be positive, got -0\.1\. Typical"),
        ("bank_momentum", 1.0, r"memory bank: momentum must be in \[0, 1\), got 1\.0"),
    ],
)
def test_options_out_of_range_are_refused(build: Callable[..., CMC], option: str, value: float, message: str) -> None:
    with pytest.raises(ClvrBenchError, match=message):
        build(**{option: value})


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_the_loss_falls_within_a_few_steps(build: Callable[..., CMC], loss: str) -> None:
    task = build(loss=loss)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    tint = torch.rand(SIZE, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    batch = batch_of((tint + 0.2 * pictures(SIZE)) / 1.2)
    losses = []
    for step in range(25):
        output = task(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        with torch.no_grad():
            task.after_step(output.kept, Progress(step, 25, 0, 1))
        losses.append(output.loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_the_preview_shows_the_two_views_that_the_encoders_see(build: Callable[..., CMC]) -> None:
    task, seen = build(), []
    for encoder in (task.encoder, task.encoder_ab):
        encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    batch = batch_of(pictures(3))
    shown = task.preview(batch)
    task(batch)
    lightness, color = seen
    assert list(shown) == ["L", "ab"]
    gray = rgb_to_lab(shown["L"])
    torch.testing.assert_close(unit_lab(gray)[:, :1], lightness, rtol=0, atol=0.01)
    assert gray[:, 1:].abs().max() < 0.1
    inside = ((shown["ab"] > 0.001) & (shown["ab"] < 0.999)).all(dim=1, keepdim=True)  # what sRGB has at this lightness
    at_one_lightness = rgb_to_lab(shown["ab"])
    assert inside.float().mean() > 0.3
    assert (at_one_lightness[:, :1] - SHOWN_LIGHTNESS).abs()[inside].max() < 0.1
    difference = (unit_lab(at_one_lightness)[:, 1:] - color).abs().amax(dim=1, keepdim=True)
    assert difference[inside].max() < 0.01
