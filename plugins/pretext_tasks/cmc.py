"""CMC: the lightness of a picture and its color find each other among other pictures'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    DataFacts,
    Encoder,
    EncoderFacts,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.color_lab import from_unit_lab, lab_to_rgb, rgb_to_lab, unit_lab
from clvr_bench.toolbox import NCE, MemoryBank, check_contrast, linear_head

SHOWN_LIGHTNESS = 70.0  # of 100, where people look at a and b alone: few pairs of them are then no color of sRGB


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register contrastive multiview coding."""
    register(
        "cmc",
        CMC,
        summary="Lightness and color of a picture attract, those of others repel (NCE, memory banks).",
        source="Tian et al. 2019, https://arxiv.org/abs/1906.05849",
        version=1,
    )


class CMC(PretextTask):
    """Contrastive multiview coding of the views L and ab (Tian et al. 2019, sections 3.2 and 3.4).

    An encoder each for L and for ab; its embedding is compared with the other view's memory bank, with the same
    pictures as negatives in both directions. What is evaluated is both features side by side, (B, 2D), of twice the
    encoder's parameters. L, a and b reach the encoders in [-1, 1], as in the authors' code, in place of the encoders'
    own normalization, whose means are those of RGB.
    Both encoders have the full width, as most of the paper's ResNets; its AlexNet is split in two halves.
    Differs from the paper: crops and flips alone, as at first, without the learned augmentation of later results; the
    rate falls along a cosine, not by steps; biases and BatchNorm's parameters do not decay, as they do in the authors'
    code.

    Args:
        encoder: Of one channel; maps L to features (B, D). The encoder of ab is its sibling.
        data: Its ``train_size`` is N, the size of the banks.
        projection_dim: P, the length of an embedding (authors' code: 128).
        negatives: k, drawn from the bank for each picture (authors' code: 4096).
        temperature: tau of equation 3 (authors' code: 0.07; 0.1 on STL-10).
        bank_momentum: The share of a picture's old vector that a visit keeps, in [0, 1) (authors' code: 0.5).
        loss: ``"nce"`` approximates equation 2 by noise-contrastive estimation (section 3.4); ``"softmax"`` is
            equation 2 itself over the k + 1 pairs.
        batch_norm: Whether the projectors normalize features over the batch first, which the paper's do not. It spares
            a small data set the epochs in which all embeddings share a direction and the banks lag behind it.

    Raises:
        ClvrBenchError: An option is out of its range, or there are more negatives than training pictures.
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(optimizer="momentum", learning_rate=0.03, weight_decay=1e-4, warmup=0.0)  # authors' code
    moves = ("bank_l", "bank_ab", "nce_l", "nce_ab")
    check_options: ClassVar[Mapping[str, Any]] = {"negatives": 32}

    @classmethod
    def encoder_options(cls, **options: Any) -> dict[str, object]:
        """Ask for an encoder of one channel, L."""
        return {"in_channels": 1}

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Say so where pictures have no color."""
        return None if data.channels == 3 else f"cmc splits color pictures, these have {data.channels} channels"

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        negatives: int = 4096,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        loss: Literal["nce", "softmax"] = "nce",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        size = data.train_size
        check_contrast("cmc", negatives=negatives, least=1, train_size=size, temperature=temperature)
        self.negatives, self.loss = negatives, loss
        self.encoder, self.encoder_ab = encoder, encoder.sibling(in_channels=2)
        widths = (encoder.feature_dim, projection_dim)
        self.projector_l, self.projector_ab = (linear_head(*widths, batch_norm=batch_norm) for _ in range(2))
        self.bank_l, self.bank_ab = (MemoryBank(size, projection_dim, momentum=bank_momentum) for _ in range(2))
        self.nce_l, self.nce_ab = (NCE(size, temperature) for _ in range(2))

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 4: both directions' contrastive losses, added."""
        lightness, color = split_lab(batch.views[0])
        embedding_l = F.normalize(self.projector_l(self.encoder(lightness, normalize=False)).float(), dim=1)  # (B, P)
        embedding_ab = F.normalize(self.projector_ab(self.encoder_ab(color, normalize=False)).float(), dim=1)
        entries = self.bank_l.entries(batch.index, batch.random("negatives"), self.negatives)  # (B, 1 + k)
        losses_l, constants_l, top1_l = self._contrast(self.bank_ab.similarities(embedding_l, entries), self.nce_l)
        losses_ab, constants_ab, top1_ab = self._contrast(self.bank_l.similarities(embedding_ab, entries), self.nce_ab)
        kept = {"index": batch.index, "l": embedding_l.detach(), "ab": embedding_ab.detach()}
        return StepOutput(
            (losses_l + losses_ab).mean(),
            logs={"contrastive_top1_l": top1_l, "contrastive_top1_ab": top1_ab},
            kept={**kept, "constants_l": constants_l, "constants_ab": constants_ab},
        )

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the view of L as grays, and that of ab as its colors at one lightness."""
        lab = from_unit_lab(torch.cat(split_lab(batch.views[0]), dim=1))
        gray = lab.new_tensor([1, 0, 0]).view(3, 1, 1)
        light = SHOWN_LIGHTNESS * gray
        return {"L": lab_to_rgb(lab * gray), "ab": lab_to_rgb(lab * (1 - gray) + light)}

    def _contrast(self, similarities: Tensor, nce: NCE) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses (B,), estimates of log Z (B,) and how many percent find the other view of their picture."""
        losses, estimates = nce(similarities)
        if self.loss == "softmax":
            losses = softmax_losses(similarities / nce.temperature)
        return losses, estimates, 100 * (similarities.argmax(dim=1) == 0).float().mean()

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move both vectors of the pictures just seen; after the first step, fix the normalizing constants."""
        self.bank_l.update(kept["index"], kept["l"])
        self.bank_ab.update(kept["index"], kept["ab"])
        self.nce_l.settle(kept["constants_l"])
        self.nce_ab.settle(kept["constants_ab"])

    def representation(self) -> nn.Module:
        """Return both encoders behind the conversion to Lab: maps (B, 3, H, W) to (B, 2D)."""
        return LabEncoders(self.encoder, self.encoder_ab)


class LabEncoders(nn.Module):
    """The features of L and of ab, side by side.

    Args:
        encoder_l: Maps L (B, 1, H, W) to features (B, D).
        encoder_ab: Maps a and b (B, 2, H, W) to features (B, D).
    """

    def __init__(self, encoder_l: Encoder, encoder_ab: Encoder) -> None:
        super().__init__()
        self.encoder_l, self.encoder_ab = encoder_l, encoder_ab

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1] to (B, 2D)."""
        lightness, color = split_lab(images)
        return torch.cat([self.encoder_l(lightness, normalize=False), self.encoder_ab(color, normalize=False)], dim=1)


def split_lab(images: Tensor) -> tuple[Tensor, Tensor]:
    """Convert pictures (B, 3, H, W) in [0, 1] to L (B, 1, H, W) and ab (B, 2, H, W), each in [-1, 1]."""
    lab = unit_lab(rgb_to_lab(images))
    return lab[:, :1], lab[:, 1:]


def softmax_losses(logits: Tensor) -> Tensor:
    """Compute equation 2 for each sample: minus the log of the positive's share.

    Args:
        logits: (B, 1 + k), similarities over the temperature, the positive's first.

    Returns:
        (B,).
    """
    return logits.logsumexp(dim=1) - logits[:, 0]
