from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, ClvrBenchError, DataFacts, Encoder, EncoderFacts, Progress, SampleRandom
from clvr_bench.ops.color_lab import lab_to_rgb, rgb_to_lab, unit_lab
from clvr_plugins.pretext_tasks.colorization import (
    SHOWN_LIGHTNESS,
    Colorization,
    gamut_bins,
    rarity_weights,
    smoothed,
    soft_cross_entropy,
    soft_encoding,
)

FACTS = DataFacts("image", train_size=12, image_size=16)
BINS = gamut_bins()


class TwoMaps(Encoder):
    """An encoder of L whose maps have a half and a quarter of the side. It remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(mean=[0.5], std=[0.25])
        self.first, self.second = (nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1))
        self.norm = nn.BatchNorm2d(6)
        self.feature_dim, self.seen = 6, []

    def encode_maps(self, images: Tensor) -> list[Tensor]:
        self.seen.append(images)
        fine = self.first(images).relu()
        return [fine, self.norm(self.second(fine)).relu()]

    def encode(self, images: Tensor) -> Tensor:
        return self.encode_maps(images)[-1].mean(dim=(2, 3))


def colorization(**options: Any) -> Colorization:
    torch.manual_seed(0)
    return Colorization(TwoMaps(), FACTS, **{"hidden_dim": 8, "detail": 0.5, **options})


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def batch_of(images: Tensor) -> Batch:
    index = torch.arange(len(images))
    return Batch([images], index, torch.full_like(index, -1), SampleRandom.keyed(0, 0, index), Progress(0, 1, 0, 1))


def epoch_of(*parts: Tensor, number: int = 0) -> Any:
    def images() -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((torch.arange(len(part)), part) for part in parts)

    return SimpleNamespace(progress=Progress(0, 10, number, 2), images=images)


def naive_encoding(color: np.ndarray, neighbours: int, sigma: float) -> np.ndarray:
    """Section 2.1: the nearest bins, weighted by a Gaussian of their distance; (Q,) float64 of one color."""
    distances = np.linalg.norm(BINS.double().numpy() - color, axis=1)
    nearest = np.argsort(distances)[:neighbours]
    weights = np.exp(-(distances[nearest] ** 2) / (2 * sigma**2))
    encoded = np.zeros(len(BINS))
    encoded[nearest] = weights / weights.sum()
    return encoded


def naive_loss(logits: Tensor, color: Tensor, weights: Tensor, neighbours: int, sigma: float) -> float:
    """Equations 2 and 3 as they are printed, over the number of places: logits (B, Q, h, w), a and b (B, 2, h, w)."""
    total = 0.0
    for picture in range(len(logits)):
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                z = naive_encoding(color[picture, :, row, column].double().numpy(), neighbours, sigma)
                powers = np.exp(logits[picture, :, row, column].double().numpy())
                v = float(weights[int(z.argmax())])
                total -= v * float((z * np.log(powers / powers.sum())).sum())
    return total / (len(logits) * logits.shape[2] * logits.shape[3])


def colors(seed: int = 0) -> Tensor:
    """The a and b (2, 2, 3, 3) of a few colors, none of them equally far from two bins."""
    return rgb_to_lab(pictures(2, seed)[:, :, :3, :3])[:, 1:]


def test_every_color_lies_among_four_bins() -> None:
    ramp = torch.linspace(0, 1, 40)
    cube = torch.stack(torch.meshgrid(ramp, ramp, ramp, indexing="ij")).flatten(2)  # (3, 40, 1600)
    corner = (rgb_to_lab(cube[None])[0, 1:].flatten(1).T / 10).floor() * 10  # (n, 2)
    known = {tuple(point) for point in BINS.tolist()}
    for shift in ((0, 0), (0, 10), (10, 0), (10, 10)):
        assert {tuple(point) for point in (corner + torch.tensor(shift)).tolist()} <= known


def test_the_bins_are_near_the_papers() -> None:
    assert BINS.shape == (309, 2)  # 313 in the paper
    assert torch.equal(BINS % 10, torch.zeros_like(BINS))
    assert len({tuple(point) for point in BINS.tolist()}) == 309
    assert BINS[:2].tolist() == [[-90, 50], [-90, 60]]  # the first of the authors' file
    ramp = torch.linspace(0, 1, 30)
    cube = rgb_to_lab(torch.stack(torch.meshgrid(ramp, ramp, ramp, indexing="ij")).flatten(2)[None])[0, 1:].flatten(1)
    assert torch.cdist(BINS, cube.T).amin(dim=1).max() < math.hypot(10, 10) + 1


@pytest.mark.parametrize(("neighbours", "sigma"), [(5, 5.0), (1, 5.0), (10, 8.0)])
def test_colors_are_encoded_by_their_nearest_bins(neighbours: int, sigma: float) -> None:
    color = colors()
    nearest, shares = soft_encoding(color, BINS, neighbours, sigma)
    assert nearest.shape == shares.shape == (2, neighbours, 3, 3)
    whole = torch.zeros(2, len(BINS), 3, 3).scatter(1, nearest, shares)
    for picture, row, column in np.ndindex(2, 3, 3):
        expected = naive_encoding(color[picture, :, row, column].double().numpy(), neighbours, sigma)
        np.testing.assert_allclose(whole[picture, :, row, column], expected, atol=1e-5)
    assert torch.equal(nearest[:, 0], whole.argmax(dim=1))


def test_gray_is_its_own_bin_and_the_four_beside_it() -> None:
    nearest, shares = soft_encoding(torch.zeros(1, 2, 1, 1), BINS, 5, 5.0)
    assert BINS[nearest[0, 0, 0, 0]].tolist() == [0, 0]
    assert sorted(BINS[nearest[0, 1:, 0, 0]].tolist()) == [[-10, 0], [0, -10], [0, 10], [10, 0]]
    beside = math.exp(-2) / (1 + 4 * math.exp(-2))
    assert shares.flatten().tolist() == pytest.approx([1 - 4 * beside] + 4 * [beside])


def test_the_loss_is_equation_2() -> None:
    logits = 3 * torch.randn(2, len(BINS), 3, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.rand(len(BINS), generator=torch.Generator().manual_seed(2))
    nearest, shares = soft_encoding(colors(), BINS, 5, 5.0)
    found = (weights[nearest[:, 0]] * soft_cross_entropy(logits, nearest, shares)).mean()
    assert found.item() == pytest.approx(naive_loss(logits, colors(), weights, 5, 5.0), rel=1e-5)


def test_equal_logits_give_the_loss_of_chance() -> None:
    nearest, shares = soft_encoding(colors(), BINS, 5, 5.0)
    losses = soft_cross_entropy(torch.full((2, len(BINS), 3, 3), -1.5), nearest, shares)
    torch.testing.assert_close(losses, torch.full((2, 3, 3), math.log(len(BINS))))


def test_the_loss_is_that_of_soft_labels_in_torch() -> None:
    logits = torch.randn(2, len(BINS), 3, 3, generator=torch.Generator().manual_seed(1))
    nearest, shares = soft_encoding(colors(), BINS, 5, 5.0)
    labels = torch.zeros_like(logits).scatter(1, nearest, shares)
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, nearest, shares), expected)


def test_the_loss_of_a_batch_weighs_the_middle_pixel_of_each_place() -> None:
    task = colorization().eval()
    task.color_weights.copy_(torch.rand(len(BINS), generator=torch.Generator().manual_seed(2)))
    images = pictures(2)
    lab = rgb_to_lab(images)
    with torch.no_grad():
        logits = task.decoder(task.encoder.encode_maps(unit_lab(lab)[:, :1])[-1])
        loss = task(batch_of(images)).loss
    assert logits.shape == (2, 309, 8, 8)
    color = lab[:, 1:, 1::2, 1::2]  # of two pixels, the one behind the middle
    assert loss.item() == pytest.approx(naive_loss(logits, color, task.color_weights, 5, 5.0), rel=1e-5)


@pytest.mark.parametrize(("detail", "places"), [(0.25, 4), (0.1, 4), (0.3, 8), (0.5, 8), (1.0, 16)])
def test_maps_double_until_they_have_the_detail(detail: float, places: int) -> None:
    task = colorization(detail=detail)
    assert task.places == places
    maps = task.encoder.feature_maps(torch.zeros(2, 1, 16, 16))
    assert task.decoder(maps[-1]).shape == (2, len(BINS), places, places)


def test_building_it_counts_no_passes_and_moves_no_statistics() -> None:
    encoder = TwoMaps()
    Colorization(encoder, FACTS, hidden_dim=8)
    assert (encoder.passes, encoder.training, encoder.norm.num_batches_tracked.item()) == (0, True, 0)


def test_smoothing_keeps_the_sum_and_spreads_by_a_gaussian() -> None:
    center = int((BINS == 0).all(dim=1).nonzero())
    found = smoothed(F.one_hot(torch.tensor(center), len(BINS)).float(), BINS, 5.0)
    squares = (BINS.double() ** 2).sum(dim=1)
    expected = torch.exp(-squares / 50) / torch.exp(-squares / 50).sum()
    torch.testing.assert_close(found, expected.float())
    assert smoothed(torch.rand(len(BINS)).softmax(dim=0), BINS, 5.0).sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("uniform", [0.5, 0.1, 1.0])
def test_weights_are_equation_4(uniform: float) -> None:
    shares = torch.randn(len(BINS), generator=torch.Generator().manual_seed(3)).mul(2).softmax(dim=0)
    p = shares.double().numpy()
    unscaled = [1 / ((1 - uniform) * share + uniform / len(p)) for share in p]
    expected = np.array(unscaled) / sum(share * weight for share, weight in zip(p, unscaled, strict=True))
    np.testing.assert_allclose(rarity_weights(shares, uniform), expected, rtol=1e-4)
    assert (shares * rarity_weights(shares, uniform)).sum().item() == pytest.approx(1, abs=1e-5)


def test_equally_frequent_colors_and_a_uniform_mixture_have_equal_weights() -> None:
    ones = torch.ones(4)
    torch.testing.assert_close(rarity_weights(ones / 4, 0.5), ones)
    torch.testing.assert_close(rarity_weights(torch.tensor([0.7, 0.2, 0.1, 0.0]), 1.0), ones)
    assert rarity_weights(torch.tensor([1.0, 0.0]), 0.5).tolist() == pytest.approx([1, 3])  # 1 / 0.75 to 1 / 0.25


def test_colors_are_counted_before_the_first_epoch_and_never_again() -> None:
    task = colorization()
    many, few = torch.full((9, 3, 16, 16), 0.5), torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1).expand(3, -1, 16, 16)
    with torch.no_grad():
        task.before_epoch(epoch_of(many[:5], torch.cat([many[5:], few])))
    first = task.color_weights.clone()
    counts = torch.zeros(len(BINS))
    for images in (many, few):
        nearest, _ = soft_encoding(rgb_to_lab(images[:1, :, :1, :1])[:, 1:], BINS, 1, 5.0)
        counts[nearest.flatten()] += len(images) / 12
    torch.testing.assert_close(first, rarity_weights(smoothed(counts, BINS, 5.0), 0.5))
    assert first[counts == 0.25] > 2 * first[counts == 0.75]
    with torch.no_grad():
        task.before_epoch(epoch_of(few, number=1))
    assert torch.equal(task.color_weights, first)


def test_only_the_weights_of_colors_move_outside_of_training() -> None:
    task, batch = colorization(), batch_of(pictures(3))
    before = copy.deepcopy(task.state_dict())
    with torch.no_grad():
        task.before_epoch(epoch_of(pictures(12)))
    moved = {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == set(task.moves) == {"color_weights"}
    before = copy.deepcopy(task.state_dict())
    task.after_step(task.eval()(batch).kept, batch.progress)
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())


def test_the_encoder_sees_lightness_alone() -> None:
    task = colorization().eval()
    encoder: Any = task.encoder
    images = pictures(3)
    lightness = unit_lab(rgb_to_lab(images))[:, :1]
    task(batch_of(images))
    torch.testing.assert_close(encoder.seen[-1], lightness)
    features = task.representation()(images)
    torch.testing.assert_close(encoder.seen[-1], lightness)
    gray = lab_to_rgb(rgb_to_lab(images) * torch.tensor([1.0, 0, 0]).view(3, 1, 1))
    torch.testing.assert_close(features, task.representation()(gray), rtol=0, atol=1e-4)


def test_the_gradient_reaches_encoder_and_decoder() -> None:
    task = colorization()
    task(batch_of(pictures(4))).loss.backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    task = colorization().eval()
    images = pictures(4)
    parts = torch.stack([task(batch_of(part)).loss for part in images.split(2)])
    torch.testing.assert_close(parts.mean(), task(batch_of(images)).loss)


def test_color_top1_is_the_percentage_of_places_whose_nearest_bin_is_the_most_likely() -> None:
    task = colorization().eval()
    images = pictures(2)
    nearest = task.targets(rgb_to_lab(images))[0][:, 0]
    logits = F.one_hot(nearest, len(BINS)).movedim(-1, 1).float()
    logits[0] = -logits[0]
    task.decoder = nn.Flatten(0)
    task.decoder.forward = lambda _: logits.requires_grad_()
    assert float(task(batch_of(images)).logs["color_top1"]) == 50


def test_the_loss_is_in_float32_under_autocast() -> None:
    task = colorization().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task(batch_of(pictures(2))).loss
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(task(batch_of(pictures(2))).loss.item(), rel=0.02)


def test_pictures_without_color_and_encoders_without_maps_are_skipped_with_the_reason() -> None:
    encoder = EncoderFacts("tiny", 8, 100, 4, has_feature_maps=True, has_tokens=False)
    assert Colorization.skip_reason(encoder, FACTS) is None
    reason = Colorization.skip_reason(encoder, replace(FACTS, channels=1))
    assert reason == "colorization needs color pictures, these have 1 channels"
    reason = Colorization.skip_reason(replace(encoder, has_feature_maps=False), FACTS)
    assert reason == "it predicts places, tiny has no feature maps"
    assert Colorization.encoder_options() == {"in_channels": 1}


@pytest.mark.parametrize(
    "options",
    [{"neighbours": 0}, {"neighbours": 310}, {"sigma": 0.0}, {"uniform": 0.0}, {"uniform": 1.1}, {"detail": 0.0},
     {"detail": 2.0}, {"hidden_dim": 0}],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ClvrBenchError, match=r"^colorization: neighbours must be from 1 to 309, .* The authors' are 5"):
        colorization(**options)


def test_the_loss_falls_within_a_few_steps() -> None:
    task = colorization(detail=0.25)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.05)
    left = (torch.arange(16) < 8).float()
    images = torch.stack([0.2 + 0.7 * left, 0.2 * torch.ones(16), 0.9 - 0.7 * left])  # (3, 16): red, then blue
    images = images[:, None, :].expand(8, 3, 16, 16) * 0.9 + 0.1 * pictures(8)
    losses = []
    for _ in range(15):
        loss = task(batch_of(images)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_preview_shows_the_lightness_and_the_bins_of_the_targets() -> None:
    task = colorization()
    batch = batch_of(pictures(3) * 0.2 + 0.4)
    shown = task.preview(batch)
    assert list(shown) == ["L", "nearest bins"]
    gray = rgb_to_lab(shown["L"])
    torch.testing.assert_close(gray[:, :1], rgb_to_lab(batch.views[0])[:, :1], rtol=0, atol=0.1)
    assert gray[:, 1:].abs().max() < 0.1
    bins = rgb_to_lab(shown["nearest bins"])
    assert bins.shape == batch.views[0].shape
    assert (bins[:, 0] - SHOWN_LIGHTNESS).abs().max() < 0.1
    nearest = BINS[task.targets(rgb_to_lab(batch.views[0]))[0][:, 0]].movedim(-1, 1)
    torch.testing.assert_close(bins[:, 1:, ::2, ::2], nearest, rtol=0, atol=0.1)  # 8 x 8 places of 16 x 16 px
    assert torch.equal(bins[..., ::2, ::2], bins[..., 1::2, 1::2])
    assert not task.encoder.seen[1:]  # the one of building it


def test_the_bins_are_on_the_cpu_where_a_task_is_only_tried() -> None:
    gamut_bins.cache_clear()
    with torch.device("meta"):
        assert torch.equal(gamut_bins(), BINS)
