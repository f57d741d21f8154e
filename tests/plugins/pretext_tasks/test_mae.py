from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.models.utils import normalize_mean_var
from torch import Tensor

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, EncoderFacts, Progress, SampleRandom
from clvr_bench.assembly import build_encoder
from clvr_bench.combinations import Choice, Planner
from clvr_bench.optimization import build_optimizer
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.suites import parse_suite
from clvr_bench.toolbox import TimmEncoder
from clvr_plugins.pretext_tasks.mae import MAE, normalized, patch_layout, take

FACTS = DataFacts("image", train_size=8, image_size=16)
SMALL = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}


def built(plugins: Plugins, name: str = "vit_micro_patch4_32", size: int = 16, **options: object) -> Encoder:
    entry = plugins.registry.get(Kind.ENCODER, name)
    torch.manual_seed(0)
    choice = Choice(entry, resolve_options(entry.options, options, name))
    return build_encoder(choice, DataFacts("image", train_size=8, image_size=size))


def pictures(count: int = 3, seed: int = 0, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor, index: Tensor | None = None, epoch: int = 0) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, epoch, index)
    return Batch([images], index, torch.full_like(index, -1), random, Progress(0, 1, 0, 1))


def hidden_patches(task: MAE, batch: Batch) -> list[list[int]]:
    order = batch.random("mask").permutation(task.grid**2)
    return [row[task.visible :].tolist() for row in order]


@pytest.fixture
def task(plugins: Plugins) -> MAE:
    return MAE(built(plugins), FACTS, **SMALL)


def answering(task: MAE, answer: float) -> MAE:
    """Make the decoder predict one number for every pixel."""
    with torch.no_grad():
        task.leave.weight.zero_()
        task.leave.bias.fill_(answer)
    return task


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("answer", [0.0, 0.7])
def test_the_loss_is_the_squared_error_of_hidden_pixels_alone(plugins: Plugins, norm_pix: bool, answer: float) -> None:
    task = answering(MAE(built(plugins), FACTS, norm_pix=norm_pix, **SMALL), answer)
    batch = batch_of(pictures())
    images = (batch.views[0] - task.encoder.mean) / task.encoder.std
    errors = []
    for image, hidden in zip(images, hidden_patches(task, batch), strict=True):
        for patch in hidden:
            top, left = 4 * (patch // 4), 4 * (patch % 4)
            pixels = image[:, top : top + 4, left : left + 4].flatten().double()
            if norm_pix:
                pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            errors += [float(pixel - answer) ** 2 for pixel in pixels]
    assert len(errors) == 3 * 12 * 48
    assert task(batch).loss.item() == pytest.approx(sum(errors) / len(errors), abs=1e-5)


def test_a_prediction_of_zero_for_normalized_pixels_costs_one(task: MAE) -> None:
    pixels = 4 * 4 * 3  # of a patch; the variance is unbiased
    expected = pytest.approx((pixels - 1) / pixels, abs=1e-4)
    assert answering(task, 0.0)(batch_of(pictures())).loss.item() == expected


def test_predictions_are_compared_with_the_pixels_of_their_own_patch(
    task: MAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.norm_pix = False
    batch = batch_of(pictures(2))
    images = (batch.views[0] - task.encoder.mean) / task.encoder.std
    known = torch.stack(
        [images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] for row in range(4) for column in range(4)]
    )  # (16, 2, 3, 4, 4)
    truth = known.permute(1, 0, 3, 4, 2).flatten(2)  # (2, 16, 48), the channels of a pixel together
    task.leave = torch.nn.Identity()
    monkeypatch.setattr(task, "decode", lambda tokens, seen: truth)
    assert task(batch).loss.item() == 0


def test_the_encoder_sees_visible_patches_alone(task: MAE) -> None:
    images = pictures(2)
    batch = batch_of(images)
    seen: list[Tensor] = []
    encode = task.encoder.network.blocks.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    task(batch)
    for sample, hidden in enumerate(hidden_patches(task, batch)):
        for patch in hidden:
            top, left = 4 * (patch // 4), 4 * (patch % 4)
            images[sample, :, top : top + 4, left : left + 4] = 0
    task(batch)
    encode.remove()
    assert seen[0].shape == (2, 4, 96)  # a quarter of 16 patches
    torch.testing.assert_close(seen[1], seen[0])


def test_each_sample_and_epoch_hides_other_patches_but_equally_many(task: MAE) -> None:
    batches = [batch_of(pictures(8), epoch=epoch) for epoch in range(2)]
    hidden = [frozenset(patches) for batch in batches for patches in hidden_patches(task, batch)]
    assert {len(patches) for patches in hidden} == {12}
    assert len(set(hidden)) == 16


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 4), (0.5, 8), (0.9, 1)])
def test_the_mask_ratio_is_the_part_of_patches_that_is_hidden(plugins: Plugins, ratio: float, visible: int) -> None:
    assert MAE(built(plugins), FACTS, mask_ratio=ratio, **SMALL).visible == visible


@pytest.mark.parametrize(("pool", "prefix"), [("mean", 0), ("token", 1)])
def test_decoded_patches_stand_in_raster_order(plugins: Plugins, pool: str, prefix: int) -> None:
    task = MAE(built(plugins, pool=pool), FACTS, **SMALL)
    task.blocks = torch.nn.Sequential()
    task.norm = torch.nn.Identity()  # type: ignore[assignment]
    tokens = torch.rand(2, prefix + 4, 96)
    seen = torch.tensor([[3, 0, 9, 15], [1, 2, 4, 8]])
    decoded = task.decode(tokens, seen)
    entered = task.enter(tokens)[:, prefix:]
    for sample in range(2):
        for patch in range(16):
            places = seen[sample].tolist()
            token = entered[sample, places.index(patch)] if patch in places else task.mask_token
            torch.testing.assert_close(decoded[sample, patch], token + task.positions[patch])


def test_the_decoder_sees_the_class_token_where_there_is_one(plugins: Plugins) -> None:
    task = MAE(built(plugins, pool="token"), FACTS, **SMALL)
    assert task.prefix == 1
    tokens = torch.rand(1, 1 + 4, 96, requires_grad=True)
    decoded = task.decode(tokens, torch.tensor([[0, 5, 10, 15]]))
    assert decoded.shape == (1, 16, 16)
    (gradient,) = torch.autograd.grad(decoded[0, 3].square().sum(), tokens)
    assert gradient[0].abs().amax(dim=1).gt(0).all()


def test_without_positions_hidden_patches_would_be_alike(task: MAE) -> None:
    tokens, seen = torch.rand(1, 4, 96), torch.tensor([[0, 5, 10, 15]])
    decoded = task.decode(tokens, seen)
    assert not torch.allclose(decoded[0, 1], decoded[0, 2], atol=1e-3)
    task.positions.zero_()
    decoded = task.decode(tokens, seen)
    torch.testing.assert_close(decoded[0, 1], decoded[0, 2])


@pytest.mark.parametrize(
    ("name", "size", "layout"),
    [
        ("vit_micro_patch4_32", 32, (8, 0)),
        ("vit_micro_patch4_32", 20, (5, 0)),
        ("vit_tiny_patch16_224", 48, (3, 1)),
        ("deit_tiny_distilled_patch16_224", 32, (2, 2)),
    ],
)
def test_the_layout_of_patches_is_found_on_a_device_without_memory(
    plugins: Plugins, name: str, size: int, layout: tuple[int, int]
) -> None:
    with torch.device("meta"):
        encoder = built(plugins, name, size)
        assert patch_layout(encoder, size) == layout


def test_looking_at_the_layout_changes_and_counts_nothing(plugins: Plugins) -> None:
    encoder = built(plugins)
    MAE(encoder, FACTS, **SMALL)
    assert encoder.training
    assert encoder.passes == 0


def test_patches_that_leave_pixels_over_are_refused(plugins: Plugins) -> None:
    class Odd(TimmEncoder):
        def encode_tokens(self, images: Tensor, keep: Tensor | None) -> Tensor:
            return torch.zeros(len(images), 9 if keep is None else keep.shape[1], 8)

    encoder: Any = Odd(torch.nn.Identity())
    with pytest.raises(ClvrBenchError, match=r"mae: patches must make a square grid over 32 px pictures, got 9\."):
        MAE(encoder, DataFacts("image", train_size=8, image_size=32), **SMALL)


def test_normalized_patches_are_lightlys() -> None:
    patches = torch.rand(2, 5, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalized(patches), normalize_mean_var(patches, dim=-1))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_brightness_and_contrast_of_a_patch_do_not_matter(seed: int, scale: float, shift: float) -> None:
    patches = torch.rand(2, 3, 48, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(normalized(scale * patches + shift), normalized(patches), rtol=1e-2, atol=1e-2)


def test_a_patch_of_one_color_is_zero() -> None:
    assert not normalized(torch.full((1, 1, 48), 0.25)).any()


def test_tokens_are_taken_where_each_sample_says() -> None:
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert take(tokens, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_the_loss_of_a_permuted_batch_is_the_same(task: MAE) -> None:
    images, order = pictures(5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(task(batch_of(images[order], order)).loss, task(batch_of(images)).loss)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts(task: MAE) -> None:
    images = pictures(6)
    index = torch.arange(6)
    parts = [task(batch_of(images[part], part)).loss for part in index.chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images)).loss)


def test_the_loss_is_float32_under_autocast(task: MAE) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = task(batch_of(pictures())).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(task(batch_of(pictures())).loss.item(), rel=0.02)


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_the_gradient_reaches_every_parameter(plugins: Plugins, pool: str) -> None:
    task = MAE(built(plugins, pool=pool), FACTS, **SMALL)
    task(batch_of(pictures())).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_what_is_evaluated_is_the_encoder(task: MAE) -> None:
    assert task.representation() is task.encoder


def test_the_optimizer_has_the_papers_betas(task: MAE) -> None:
    optimizer = build_optimizer(task.parameter_groups("train"), MAE.recipe, batch_size=4096)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {1.5e-4 * 4096 / 256}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(task.parameters()))


@pytest.mark.parametrize("has_tokens", [True, False])
def test_encoders_without_patches_are_skipped(has_tokens: bool) -> None:
    reason = MAE.skip_reason(EncoderFacts("net", 8, 100, 4, has_feature_maps=True, has_tokens=has_tokens), FACTS)
    assert reason == (None if has_tokens else "it hides patches, net has no patch tokens")


@pytest.mark.parametrize("ratio", [-0.1, 0.0, 0.95, 1.0])
def test_a_mask_that_hides_nothing_or_all_is_refused(plugins: Plugins, ratio: float) -> None:
    with pytest.raises(
        ClvrBenchError, match=rf"mae: mask_ratio must hide some of 16 patches .*, got {ratio}\. Typical"
    ):
        MAE(built(plugins), FACTS, mask_ratio=ratio, **SMALL)


@pytest.mark.parametrize(
    "options",
    [{"decoder_dim": 18}, {"decoder_dim": 0}, {"decoder_depth": 0}, {"decoder_heads": 0}, {"decoder_heads": 3}],
)
def test_decoders_that_cannot_be_built_are_refused(plugins: Plugins, options: dict[str, int]) -> None:
    with pytest.raises(ClvrBenchError, match=r"mae: decoder_dim must be a multiple of 4 and of decoder_heads"):
        MAE(built(plugins), FACTS, **{**SMALL, **options})


def test_the_decoder_starts_xavier_uniformly(plugins: Plugins) -> None:
    task = MAE(built(plugins), FACTS, decoder_dim=64, decoder_depth=1, decoder_heads=2)
    layer = task.blocks[0].mlp.fc1
    assert layer.weight.abs().max().item() == pytest.approx((6 / (64 + 256)) ** 0.5, rel=0.01)
    assert not layer.bias.any()


def test_its_default_augmentation_crops_and_flips(plugins: Plugins) -> None:
    content = {
        "name": "test",
        "encoders": ["vit_micro_patch4_32"],
        "datasets": ["shapes"],
        "budget": {"epochs": 1, "batch_size": 2},
        "pretext_tasks": ["mae"],
    }
    (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
    assert [choice.entry.name for choice in combination.augmentation] == ["crop_flip"]


def test_the_loss_falls_within_a_few_steps(task: MAE) -> None:
    images = torch.linspace(0, 1, 16).expand(8, 3, 16, 16)  # every patch is a ramp
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = task(batch_of(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert math.isfinite(losses[0])
    assert losses[-1] < 0.5 * losses[0]


def test_the_preview_shows_the_patches_that_are_encoded_and_hides_the_others_in_mid_gray(task: MAE) -> None:
    images, kept = pictures(3).clamp(max=0.49), []
    tokens = task.encoder.tokens
    task.encoder.tokens = lambda *a, **k: kept.append(k["keep"]) or tokens(*a, **k)  # type: ignore[func-returns-value, method-assign]  # records
    ((label, shown),) = task.preview(batch_of(images)).items()
    task(batch_of(images))
    assert label == "4 of 16 seen"
    for number, picture in enumerate(shown):
        for patch in range(16):
            row, column = (4 * place for place in divmod(patch, 4))
            place = (slice(None), slice(row, row + 4), slice(column, column + 4))
            seen = patch in kept[0][number].tolist()
            expected = images[number][place] if seen else torch.full((3, 4, 4), 0.5)
            assert torch.equal(picture[place], expected)
