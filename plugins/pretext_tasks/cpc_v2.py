"""CPC v2: patches of a picture, each distorted on its own, are told apart from above, below, the left and the right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.color import Jitter, color_jitter, grayscale
from clvr_bench.ops.rand_augment import rand_augment
from clvr_bench.toolbox import (
    PatchMean,
    encode_grid,
    enlarged_side,
    grouped_info_nce,
    patch_grid,
    resized,
    row_context,
    tiled,
)

GRID = 6  # patches along a side: of 80 px in 260, each 36 px from the next
SIDES = ("above", "right", "below", "left")  # where a context lies, by quarter turns of the grid
PREDICTION_SCALE = 0.1  # appendix A.2
COLOR_STRENGTHS = (32 / 255, 0.5, 0.5, 0.2)  # brightness, contrast, saturation, hue: TensorFlow's Inception pipeline
MID_GRAY = 0.5  # of dropped channels


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the second version of contrastive predictive coding."""
    register(
        "cpc_v2",
        CPCv2,
        summary="Predicts features of distorted patches from all four sides, against all patches of the batch.",
        source="Henaff et al. 2019, https://arxiv.org/abs/1905.09272",
        version=1,
    )


class CPCv2(PretextTask):
    """CPC v2 (Henaff et al. 2019; pseudocode in appendix A.2).

    A picture becomes 6 x 6 overlapping patches, each 4/13 of its side: 10 px at 32. Every patch is distorted on its own
    and encoded to z by a network with layer normalization, as through BatchNorm patches would tell of each other. A
    masked convolutional network sums up the rows down to r in a context, from which a linear map a step predicts a
    linear map of the z of the same column, k rows below. The nearest two rows share pixels with the context and are
    skipped. The same is done from below, from the left and from the right, each with a network and maps of its own.
    Negatives are all other patches of a group of pictures; the groups are drawn anew each step.
    Distortions, in this order: a few of AutoAugment's primitives, a change of colors, grayscale, and color dropping,
    which leaves one channel of three.
    Left open by the paper: how steps and sides are weighted (alike), what takes a dropped channel's place (mid-gray).
    Differs from the paper: primitives and their strengths are those that FixMatch took over, without inversion, cutout
    and pairs of samples; no elastic deformation and no change of the color histogram; brightness is multiplied; z is
    the feature of a whole encoder, not the third block of a ResNet-161.
    Not checked against the paper: rate and schedule, which are those of CPC v1; how many pictures are told apart, 16 as
    there; shares of patches whose colors change or go, which follow reimplementations.

    Args:
        encoder: Maps patches to features (B, D).
        data: Patches are parts of its image size.
        patch: A patch's side as a part of the picture's, in (0, 1]; rounded to pixels (80 of 260), for the encoder
            resized to a multiple of its smallest picture.
        rows: How many rows are predicted (the loop of appendix A.2 takes one).
        skipped_rows: Rows between a context and the first that it predicts (appendix A.2: 2).
        group: Pictures whose patches are told apart.
        context_width: Hidden channels of the context networks (appendix A.2: 256).
        target_dim: Length of predictions and of what they are compared with (appendix A.2: 64).
        primitives: How many of AutoAugment's primitives a patch gets, 0 or more (2).
        color_change: The share of patches whose brightness, contrast, saturation and hue change, in [0, 1].
        gray: The share of patches that become gray, in [0, 1].
        color_drop: The share of patches of which one channel stays, in [0, 1] (all).

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    views = 1
    default_augmentation = "crop_flip"
    recipe = Recipe(
        optimizer="adam", learning_rate=2e-4, scaling="none", weight_decay=0.0, warmup=0.0, schedule="constant"
    )
    check_options: ClassVar[Mapping[str, Any]] = {"context_width": 16, "target_dim": 16}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        patch: float = 80 / 260,
        rows: int = 1,
        skipped_rows: int = 2,
        group: int = 16,
        context_width: int = 256,
        target_dim: int = 64,
        primitives: int = 2,
        color_change: float = 0.8,
        gray: float = 0.25,
        color_drop: float = 1.0,
    ) -> None:
        super().__init__()
        if rows < 1 or skipped_rows < 0 or rows + skipped_rows >= GRID:
            raise ClvrBenchError(
                f"cpc_v2: rows and skipped_rows must leave one of {GRID} rows to predict from, got {rows} and "
                f"{skipped_rows}. Typical: 1 and 2."
            )
        if not 0 < patch <= 1 or min(group, context_width, target_dim) < 1:
            raise ClvrBenchError(
                "cpc_v2: patch must be in (0, 1], group, context_width and target_dim positive, got "
                f"{patch}, {group}, {context_width} and {target_dim}. Typical: 0.3, 16, 256 and 64."
            )
        if primitives < 0 or not all(0 <= share <= 1 for share in (color_change, gray, color_drop)):
            raise ClvrBenchError(
                "cpc_v2: primitives must not be negative, color_change, gray and color_drop in [0, 1], got "
                f"{primitives}, {color_change}, {gray} and {color_drop}. Typical: 2, 0.8, 0.25 and 1."
            )
        side = max(1, round(patch * data.image_size))
        self.encoder, self.group = encoder, group
        self.cut = Cut(side, enlarged_side(side, 1.0, encoder.minimum_size))
        self.distort = Distort(primitives, color_change, gray, color_drop)
        self.steps = range(skipped_rows + 1, skipped_rows + rows + 1)
        width = encoder.feature_dim
        self.target = nn.Linear(width, target_dim)
        self.predictors = nn.ModuleList(Predictor(width, context_width, target_dim, len(self.steps)) for _ in SIDES)

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Ask for an encoder with layer normalization."""
        return {"norm": "layer"}

    def forward(self, batch: Batch) -> StepOutput:
        """Compute InfoNCE over the predicted patches, averaged over steps and sides."""
        order = batch.random("groups").uniform().argsort()
        z = encode_grid(self.encoder, self.patches(batch)[order])  # (B, 6, 6, D)
        targets = self.target(z)  # (B, 6, 6, T)
        losses: list[Tensor] = []
        logs: dict[str, Tensor | float] = {}
        for quarter, (side, predict) in enumerate(zip(SIDES, self.predictors, strict=True)):
            turned, turned_targets = (grid.rot90(quarter, dims=(1, 2)) for grid in (z, targets))
            for step, predicted in zip(self.steps, predict(turned), strict=True):
                scaled = PREDICTION_SCALE * predicted[:, :-step]
                loss, hits = grouped_info_nce(scaled, turned_targets, step, self.group)
                losses.append(loss.mean())
                logs.setdefault(f"from_{side}_top1", 100 * hits.float().mean())  # of the nearest predicted row
        return StepOutput(loss=torch.stack(losses).mean(), logs=logs)

    def patches(self, batch: Batch) -> Tensor:
        """Return what the encoder sees: (B, 36, C, S, S), row by row."""
        return resized(self.distort(patch_grid(batch.views[0], self.cut.patch, GRID), batch.random), self.cut.side)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the patches as they are cut, and as the encoder sees them, drawn apart."""
        gap = max(1, self.cut.side // 8)
        return {"patches": tiled(self.cut(batch.views[0]), gap), "seen": tiled(self.patches(batch), gap)}

    def representation(self) -> nn.Module:
        """Return the mean of the features of undistorted patches."""
        return PatchMean(self.encoder, self.cut)


class Predictor(nn.Module):
    """Contexts of the rows of a grid, and a linear map a step.

    Args:
        width: D, of features.
        hidden: Hidden channels of the context network.
        target_dim: T, the length of a prediction.
        steps: How many maps.
    """

    def __init__(self, width: int, hidden: int, target_dim: int, steps: int) -> None:
        super().__init__()
        self.context = row_context(width, hidden)
        self.maps = nn.ModuleList(nn.Linear(width, target_dim) for _ in range(steps))

    def forward(self, z: Tensor) -> list[Tensor]:
        """Map features (B, G, G, D) to a prediction a step from every place, each (B, G, G, T)."""
        context = self.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, G, G, D)
        return [predict(context) for predict in self.maps]


@dataclass(frozen=True)
class Cut:
    """Pictures into patches as they are.

    Attributes:
        patch: P, a patch's side in pixels.
        side: S, what it is resized to, in pixels.
    """

    patch: int
    side: int

    def __call__(self, images: Tensor) -> Tensor:
        """Cut pictures (B, C, H, W) into patches (B, 36, C, S, S), row by row."""
        return resized(patch_grid(images, self.patch, GRID), self.side)


@dataclass(frozen=True)
class Distort:
    """Changes of patches, each with draws of its own.

    Attributes:
        primitives: How many of AutoAugment's primitives.
        color_change: The share whose colors change.
        gray: The share that becomes gray.
        color_drop: The share of which one channel stays.
    """

    primitives: int
    color_change: float
    gray: float
    color_drop: float

    def __call__(self, patches: Tensor, random: SampleRandom) -> Tensor:
        """Distort patches (B, N, C, P, P) in [0, 1]."""
        keys = random("patches").integers(2**62, patches.shape[1])  # (B, N)
        each = SampleRandom(keys.flatten())
        flat = rand_augment(patches.flatten(0, 1), each, self.primitives)  # (B * N, C, P, P)
        flat = color_jitter(flat, Jitter.draw(each("color"), COLOR_STRENGTHS, self.color_change))
        flat = grayscale(flat, each("gray").chance(self.gray))
        kept = each("channel").integers(flat.shape[1])
        return keep_channel(flat, kept, each("drop").chance(self.color_drop)).view_as(patches)


def keep_channel(pixels: Tensor, kept: Tensor, chosen: Tensor) -> Tensor:
    """Leave one channel of some pictures and make the others mid-gray.

    Args:
        pixels: (B, C, H, W).
        kept: (B,) int64, the channel that stays.
        chosen: (B,) bool, which pictures are changed.
    """
    others = kept[:, None] != torch.arange(pixels.shape[1], device=pixels.device)  # (B, C)
    return pixels.masked_fill((others & chosen[:, None])[:, :, None, None], MID_GRAY)
