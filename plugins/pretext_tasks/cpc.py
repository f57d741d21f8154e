"""Contrastive predictive coding: from the upper rows of a picture's patches, tell which patch comes further down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    PretextTask,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.color import luminance
from clvr_bench.toolbox import (
    PatchMean,
    cut_pieces,
    encode_grid,
    grouped_info_nce,
    patch_grid,
    row_context,
    tiled,
)

GRID = 7  # patches along a side (section 3.2)


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register contrastive predictive coding."""
    register(
        "cpc_v1",
        CPC,
        summary="Predicts features of patches from the rows above, against all patches of the batch (InfoNCE).",
        source="van den Oord et al. 2018, https://arxiv.org/abs/1807.03748",
        version=1,
    )


class CPC(PretextTask):
    """CPC for pictures (van den Oord et al. 2018, sections 2.3 and 3.2).

    A gray picture becomes 7 x 7 patches, each a quarter of its side and half covered by the next: 8 px at 32. A random
    piece of each, padded back, is encoded to z without BatchNorm, through which patches would tell of each other. A
    network over the grid sums up the rows down to r in a context c, and a linear map W_k a step k predicts the z of the
    same column k rows below. The row right below shares pixels with the context and is skipped, as figure 4 draws it;
    the five others share none.
    Negatives are all other patches of a group of pictures, as many as the paper's minibatch on one of its 32 GPUs; the
    groups are drawn anew each step.
    Left open by the paper: which five rows are predicted (here 2 to 6 below), how steps are weighted (alike), the
    context network (that of Henaff et al. 2019, https://arxiv.org/abs/1905.09272, appendix A.2, which sees all columns
    of the rows down to r), where a piece is padded (around) and which is evaluated (the one at the centre).
    Differs from the paper: z is the feature of a whole encoder, not the third block of a ResNet-101.

    Args:
        encoder: Maps patches to features (B, D).
        data: A quarter of its image size is a patch's side.
        rows: How many rows are predicted (section 3.2: up to 5).
        skipped_rows: Rows between a context and the first that it predicts (figure 4: 1).
        piece: A piece's side as a part of its patch's, in (0, 1]; rounded down to pixels (section 3.2: 60 of 64).
        group: Pictures whose patches are told apart (section 3.2: 16 a GPU; section 3.1: negatives come from there).
        gray: Whether color is taken out of pictures, those that are evaluated included (section 3.2).
        context_width: Hidden channels of the context network.
    """

    views = 1
    default_augmentation = "crop_flip"
    # the paper has this rate for 64 samples of audio and for 512 pictures, so it does not grow with the batch
    recipe = Recipe(
        optimizer="adam", learning_rate=2e-4, scaling="none", weight_decay=0.0, warmup=0.0, schedule="constant"
    )

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        rows: int = 5,
        skipped_rows: int = 1,
        piece: float = 60 / 64,
        group: int = 16,
        gray: bool = True,
        context_width: int = 256,
    ) -> None:
        super().__init__()
        if rows < 1 or skipped_rows < 0 or rows + skipped_rows >= GRID:
            raise ClvrBenchError(
                f"cpc_v1: rows and skipped_rows must leave one of {GRID} rows to predict from, got {rows} and "
                f"{skipped_rows}. The paper's are 5 and 1."
            )
        if not 0 < piece <= 1 or group < 1 or context_width < 1:
            raise ClvrBenchError(
                "cpc_v1: piece must be in (0, 1], group and context_width positive, got "
                f"{piece}, {group} and {context_width}. Typical: 0.9375, 16 and 256."
            )
        side = data.image_size // 4
        self.encoder = encoder
        self.cut = Cut(side, max(1, int(piece * side)), gray)
        self.group = group
        self.steps = range(skipped_rows + 1, skipped_rows + rows + 1)
        width = encoder.feature_dim
        self.context = row_context(width, context_width)
        self.predictors = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in self.steps)

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Ask for an encoder without BatchNorm (section 3.2)."""
        return {"norm": "layer"}

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say where patches are too small for the encoder."""
        patch, least = data.image_size // 4, max(2, encoder.minimum_size)
        return None if patch >= least else f"its patches have {patch} px, {encoder.name} takes no less than {least}"

    def forward(self, batch: Batch) -> StepOutput:
        """Compute InfoNCE over the predicted rows, averaged over the steps."""
        order = batch.random("groups").uniform().argsort()
        corners = self._corners(batch)
        z = encode_grid(self.encoder, self.cut(batch.views[0][order], corners[order]))  # (B, 7, 7, D)
        context = self.context(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, 7, 7, D)
        losses, top1s = [], []
        for step, predict in zip(self.steps, self.predictors, strict=True):
            loss, hits = grouped_info_nce(predict(context[:, :-step]), z, step, self.group)
            losses.append(loss.mean())
            top1s.append(100 * hits.float().mean())
        logs = {"nearest_top1": top1s[0], "farthest_top1": top1s[-1]}
        return StepOutput(loss=torch.stack(losses).mean(), logs=logs)

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the grid of patches, drawn apart."""
        patches = self.cut(batch.views[0], self._corners(batch))
        return {f"{GRID} x {GRID} patches": tiled(patches, gap=max(1, self.cut.patch // 8))}

    def _corners(self, batch: Batch) -> Tensor:
        """Draw where each patch's piece is cut: top and left, (B, 49, 2)."""
        return batch.random("pieces").integers(self.cut.places, GRID * GRID, 2)

    def representation(self) -> nn.Module:
        """Return the mean of the patches' features (section 3.2)."""
        return PatchMean(self.encoder, self.cut)


@dataclass(frozen=True)
class Cut:
    """Pictures into the pieces of their patches.

    Attributes:
        patch: P, a patch's side in pixels.
        piece: Side of the piece that is kept of it, in pixels.
        gray: Whether color is taken out.
    """

    patch: int
    piece: int
    gray: bool

    @property
    def places(self) -> int:
        """Where a piece can lie along a side."""
        return self.patch - self.piece + 1

    def __call__(self, images: Tensor, corners: Tensor | None = None) -> Tensor:
        """Cut pictures (B, C, H, W) into (B, 49, C, P, P): pieces at ``corners`` (B, 49, 2), or central, and zeros."""
        if self.gray:
            images = luminance(images).expand_as(images)
        patches = patch_grid(images, self.patch, GRID)
        before = (self.patch - self.piece) // 2
        if corners is None:
            corners = torch.full((*patches.shape[:2], 2), before, device=images.device)
        after = self.patch - self.piece - before
        return F.pad(cut_pieces(patches, self.piece, corners), (before, after, before, after))
