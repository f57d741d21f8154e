"""Colorization: from the lightness of a picture alone, say which color each of its parts has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    Epoch,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.color_lab import lab_to_rgb, rgb_to_lab, unit_lab

GRID = 10  # distance of neighbouring bins along a and b (section 2.1)
REACH = 120 // GRID  # in steps of the grid, beyond any a and b of sRGB
COUNTED_AT_ONCE = 50  # pictures: of 56 x 56 places, distances to all bins are then 0.2 GB
SHOWN_LIGHTNESS = 70.0  # of 100, where people look at bins alone: few of them are then no color of sRGB


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register colorization."""
    register(
        "colorization",
        Colorization,
        summary="Tells the colors of a picture, as a distribution over bins, from its lightness.",
        source="Zhang et al. 2016, https://arxiv.org/abs/1603.08511",
        version=1,
    )


class Colorization(PretextTask):
    """Colorful image colorization (Zhang et al. 2016, sections 2.1 and 2.2, equations 2 to 4).

    The encoder sees L; a decoder on its last feature map predicts a distribution over quantized ab at each place. Its
    maps double in size until they have at least a quarter of the picture's side, the resolution of the authors' code
    (models/colorization_train_val_v2.prototxt, where conv8 doubles once); a place has the color of one pixel, as there,
    here of its middle one. Rare colors count more, by weights from the training set's own colors at the places of its
    centre views, computed once before the first epoch.
    Bins are the 309 points of the grid that are a corner of a square with some sRGB color in it; so each color lies
    among four. The paper keeps 313 "in gamut" and does not say how: 229 lie within the gamut themselves, 233 within its
    convex hull, and 261 are the nearest to some color.
    Differs from the paper: the encoder is any that has feature maps, L reaches it in [-1, 1], and the mean of its last
    map, or its own pooling, is what is evaluated; between that and the classifier lie one convolution and the
    doublings, where the authors' AlexNet has two wide layers; the loss is a mean over places, not a sum; pictures
    without any color are kept, which that code gives no weight; the rate falls along a cosine, not by steps.
    Where paper and code disagree, the paper is followed: the code encodes by the 10 nearest bins.
    Left open by the paper: how smoothing ends at the gamut's edge. Here each bin's whole share stays within it.

    Args:
        encoder: Of one channel, with feature maps; maps L to features (B, D).
        data: Its image size tells how often maps double.
        neighbours: Nearest bins that a color is encoded by (section 2.1: 5).
        sigma: Of the Gaussians that weigh these by their distance and smooth the distribution of colors, in units of
            ab (sections 2.1 and 2.2: 5).
        uniform: lambda of equation 4, in (0, 1]: the share of a uniform distribution that the colors' own is mixed
            with; 1 gives all colors the same weight (section 2.2: 0.5).
        detail: Places that colors are predicted at, along a side, as a part of the picture's pixels, in (0, 1]; maps
            double until they have as many (authors' code: 1/4, and 1/8 for AlexNet).
        hidden_dim: Channels of the decoder's maps (authors' code: 256 where they double).

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(  # authors' train/solver.prototxt
        optimizer="adam", learning_rate=3e-5, scaling="none", betas=(0.9, 0.99), weight_decay=1e-3, warmup=0.0
    )
    moves = ("color_weights",)
    check_options: ClassVar[Mapping[str, Any]] = {"hidden_dim": 32}
    bins: Tensor
    color_weights: Tensor

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Ask for an encoder of one channel, L."""
        return {"in_channels": 1}

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say so where pictures have no color, or the encoder no feature maps."""
        if data.channels != 3:
            return f"colorization needs color pictures, these have {data.channels} channels"
        return None if encoder.has_feature_maps else f"it predicts places, {encoder.name} has no feature maps"

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        neighbours: int = 5,
        sigma: float = 5.0,
        uniform: float = 0.5,
        detail: float = 0.25,
        hidden_dim: int = 256,
    ) -> None:
        super().__init__()
        bins = gamut_bins()
        if not (1 <= neighbours <= len(bins) and sigma > 0 and 0 < uniform <= 1 and 0 < detail <= 1 and hidden_dim > 0):
            raise ClvrBenchError(
                f"colorization: neighbours must be from 1 to {len(bins)}, sigma and hidden_dim positive, uniform and "
                f"detail in (0, 1], got {neighbours}, {sigma}, {hidden_dim}, {uniform} and {detail}. "
                "The authors' are 5, 5, 256, 0.5 and 0.25."
            )
        self.encoder = encoder
        self.neighbours, self.sigma, self.uniform = neighbours, sigma, uniform
        channels, side = last_map(encoder, data.image_size)
        doublings = max(0, math.ceil(math.log2(detail * data.image_size / side)))
        self.places = side * 2**doublings
        self.decoder = build_decoder(channels, hidden_dim, len(bins), doublings)
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("color_weights", torch.ones(len(bins)))

    def before_epoch(self, epoch: Epoch) -> None:
        """Before the first epoch, weigh bins by how rare they are in the training set."""
        if epoch.progress.epoch > 0:
            return
        counts = torch.zeros_like(self.color_weights, dtype=torch.int64)
        for _, images in epoch.images():
            for part in images.split(COUNTED_AT_ONCE):
                nearest = self.targets(rgb_to_lab(part.to(counts.device)))[0][:, 0]
                counts += torch.bincount(nearest.flatten(), minlength=len(counts))
        shares = smoothed(counts / counts.sum(), self.bins, self.sigma)
        self.color_weights.copy_(rarity_weights(shares, self.uniform))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 2 as a mean over places."""
        lab = rgb_to_lab(batch.views[0])
        nearest, shares = self.targets(lab)
        maps = self.encoder.feature_maps(unit_lab(lab)[:, :1], normalize=False)
        logits = self.decoder(maps[-1]).float()  # (B, Q, h, h)
        losses = self.color_weights[nearest[:, 0]] * soft_cross_entropy(logits, nearest, shares)  # (B, h, h)
        accuracy = 100 * (logits.argmax(dim=1) == nearest[:, 0]).float().mean()
        return StepOutput(losses.mean(), logs={"color_top1": accuracy})

    def targets(self, lab: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the colors of pictures (B, 3, H, W) at h x h places; see ``soft_encoding``."""
        color = F.interpolate(lab[:, 1:], size=(self.places, self.places), mode="nearest-exact")
        return soft_encoding(color, self.bins, self.neighbours, self.sigma)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show L as grays, and the bin nearest to the color at each place, at one lightness, as large as the place."""
        lab = rgb_to_lab(batch.views[0])
        nearest = self.bins[self.targets(lab)[0][:, 0]].movedim(-1, 1)  # (B, 2, h, h)
        light = torch.full_like(nearest[:, :1], SHOWN_LIGHTNESS)
        gray = lab.new_tensor([1, 0, 0]).view(3, 1, 1)
        bins = F.interpolate(torch.cat([light, nearest], dim=1), size=lab.shape[-2:], mode="nearest-exact")
        return {"L": lab_to_rgb(lab * gray), "nearest bins": lab_to_rgb(bins)}

    def representation(self) -> nn.Module:
        """Return the encoder behind the conversion to L: maps (B, 3, H, W) to (B, D)."""
        return LightnessEncoder(self.encoder)


class LightnessEncoder(nn.Module):
    """An encoder of L: pictures (B, 3, H, W) in [0, 1] to features (B, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Encode L, in [-1, 1], as it is."""
        features: Tensor = self.encoder(unit_lab(rgb_to_lab(images))[:, :1], normalize=False)
        return features


def last_map(encoder: Encoder, image_size: int) -> tuple[int, int]:
    """Find the channels and the side of an encoder's last feature map, given the side of its pictures."""
    training, passes = encoder.training, encoder.passes
    blank = torch.zeros(1, len(encoder.mean), image_size, image_size, device=encoder.mean.device)
    with torch.no_grad():
        _, channels, side, _ = encoder.eval().feature_maps(blank)[-1].shape
    encoder.train(training)
    encoder.passes = passes
    return channels, side


def build_decoder(inputs: int, width: int, outputs: int, doublings: int) -> nn.Sequential:
    """Build a network from maps (B, inputs, h, w) to logits (B, outputs, 2**doublings * h, 2**doublings * w)."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1, bias=False)]
    for _ in range(doublings):
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False))
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, outputs, 1))


@lru_cache(maxsize=1)  # it takes a fifth of a second, and checks build a task many times
def gamut_bins() -> Tensor:
    """Find the points of the grid that are a corner of one of its squares with some sRGB color in it.

    All values of a and b that sRGB has are on the faces of its cube: a line of constant a and b leaves it somewhere.

    Returns:
        (Q, 2) float32, a and b, ascending.
    """
    ramp = torch.linspace(0, 1, 256, device="cpu")  # also where a task is only tried on the meta device
    first, second = torch.meshgrid(ramp, ramp, indexing="ij")
    faces = [
        torch.stack([first, second, torch.full_like(first, value)]).roll(axis, 0)
        for axis in range(3)
        for value in (0.0, 1.0)
    ]
    squares = (rgb_to_lab(torch.stack(faces))[:, 1:] / GRID).floor().long() + REACH  # (6, 2, 256, 256)
    found = squares.new_zeros(2 * REACH + 1, 2 * REACH + 1, dtype=torch.bool)
    for down, right in itertools.product((0, 1), repeat=2):
        found[squares[:, 0] + down, squares[:, 1] + right] = True
    return GRID * (found.nonzero() - REACH).float()


def soft_encoding(color: Tensor, bins: Tensor, neighbours: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Encode colors by their nearest bins, weighted by a Gaussian of the distance (section 2.1).

    Args:
        color: (B, 2, h, w) float32, a and b.
        bins: (Q, 2) float32.
        neighbours: K, from 1 to Q.
        sigma: The Gaussian's standard deviation, positive.

    Returns:
        The nearest bins' numbers (B, K, h, w) int64, ascending in distance, and their shares (B, K, h, w) of 1.
    """
    distances = torch.cdist(color.movedim(1, -1), bins, compute_mode="donot_use_mm_for_euclid_dist")  # (B, h, w, Q)
    distances, nearest = distances.topk(neighbours, largest=False)  # (B, h, w, K), ascending
    shares = (-distances.square() / (2 * sigma**2)).softmax(dim=-1)
    return nearest.movedim(-1, 1), shares.movedim(-1, 1)


def soft_cross_entropy(logits: Tensor, nearest: Tensor, shares: Tensor) -> Tensor:
    """Compute the cross-entropy of each place, the inner sum of equation 2, with equation 2's sign.

    Args:
        logits: (B, Q, h, w) float32.
        nearest: (B, K, h, w) int64, the bins whose shares are not zero.
        shares: (B, K, h, w), whose sum over K is 1.

    Returns:
        (B, h, w).
    """
    return logits.logsumexp(dim=1) - (shares * logits.gather(1, nearest)).sum(dim=1)


def smoothed(shares: Tensor, bins: Tensor, sigma: float) -> Tensor:
    """Spread each bin's share (Q,) over the bins (Q, 2) near it, by a Gaussian of the distance; the sum stays."""
    kernel = (-torch.cdist(bins, bins).square() / (2 * sigma**2)).softmax(dim=1)  # (Q, Q), from and to
    return shares @ kernel


def rarity_weights(shares: Tensor, uniform: float) -> Tensor:
    """Compute equation 4: the inverse of shares (Q,) mixed with equal ones, scaled to a mean of 1 over the shares."""
    weights = 1 / ((1 - uniform) * shares + uniform / len(shares))
    return weights / (shares * weights).sum()
