"""PIRL: a picture and its puzzle, or its turned self, attract one vector in a memory bank, and others repel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Draws,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    hookimpl,
)
from clvr_bench.ops.geometry import turn_quarters
from clvr_bench.toolbox import JigsawBranch, MemoryBank, TileCut, check_contrast, linear_head


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register PIRL."""
    register(
        "pirl",
        PIRL,
        summary="A picture's puzzle, or its turned self, finds its own vector in a memory bank.",
        source="Misra and van der Maaten 2019, https://arxiv.org/abs/1912.01991",
        version=1,
    )


class PIRL(PretextTask):
    """Pretext-invariant representation learning (Misra and van der Maaten 2019, section 2).

    What jigsaw and rotation have a network tell, this one is to forget: a transformed picture's embedding is drawn to
    the vector that the bank keeps of its picture, and so is the picture's own (equation 5). The bank learns of pictures
    alone, never of transformed ones (section 2.2). Each of the two has a head of its own (section 2.3).
    Each term is equations 3 and 4 as printed: noise-contrastive estimation whose normalizing constant comes from that
    sample's negatives, with a gradient. The authors' code (https://github.com/facebookresearch/vissl) keeps the
    constant of its first step, as ``instdisc`` does, and draws negatives anew for each term; here both have the same.
    Differs from the paper: negatives may repeat; the transformed view is drawn like the picture's, where a puzzle's
    picture is a crop of at least 60% and colors change from tile to tile (appendix A.1); colors change as in MoCo's
    first paper, without the sharpness and equalization that appendix A names; the rate falls to zero, not to 1.2e-4.

    Args:
        encoder: Maps pictures and tiles to features (B, D).
        data: Its ``train_size`` is the size of the bank.
        transform: ``"jigsaw"``: nine tiles in random order, each encoded on its own (section 2.3). ``"rotation"``: a
            turn by 0, 90, 180 or 270 degrees (section 4.3).
        transform_weight: lambda of equation 5, in [0, 1] (section 2.3: 0.5). 0 is instance discrimination.
        projection_dim: Length of an embedding and of a tile's (section 2.3: 128).
        negatives: N, drawn from the other pictures' vectors for each picture (section 3: 32,000); 0 takes all of them.
        temperature: tau of equation 3 (section 2.3: 0.07).
        bank_momentum: The share of a picture's old vector that a visit keeps, in [0, 1) (section 2.3: 0.5).
        enlarged: By what a puzzle's tiles are enlarged for the encoder, at least 1: to bring tiles of small pictures
            closer to the size that is evaluated. They also become multiples of the encoder's smallest size.
        batch_norm: Whether the heads normalize features over the batch first, which the paper's do not. It spares a
            small data set the epochs in which all embeddings share a direction and the bank lags behind it.

    Raises:
        ClvrBenchError: An option is out of its range, or there are more negatives than training pictures.
    """

    views = 2
    separable = True
    default_augmentation = "moco_v1"
    recipe = Recipe(  # section 3, training details
        optimizer="momentum", learning_rate=0.12, reference_batch=1024, weight_decay=1e-4, warmup=0.0
    )
    moves = ("bank",)
    check_options: ClassVar[Mapping[str, Any]] = {"negatives": 32}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        transform: Literal["jigsaw", "rotation"] = "jigsaw",
        transform_weight: float = 0.5,
        projection_dim: int = 128,
        negatives: int = 32_000,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        enlarged: float = 1.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_contrast("pirl", negatives=negatives, least=0, train_size=data.train_size, temperature=temperature)
        if not 0 <= transform_weight <= 1:
            raise ClvrBenchError(f"pirl: transform_weight must be in [0, 1], got {transform_weight}. The paper's: 0.5.")
        self.encoder = encoder
        self.transform_weight, self.negatives, self.temperature = transform_weight, negatives, temperature
        self.head, head = (linear_head(encoder.feature_dim, projection_dim, batch_norm=batch_norm) for _ in range(2))
        self.branch: JigsawBranch | RotationBranch = RotationBranch(head)
        if transform == "jigsaw":
            cut = TileCut.fitted(data.image_size, encoder.minimum_size, enlarged=enlarged)
            self.branch = JigsawBranch(cut, head, projection_dim)
        self.bank = MemoryBank(data.train_size, projection_dim, momentum=bank_momentum)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 5 of a batch."""
        first, second = batch.views
        own = F.normalize(self.head(self.encoder(first)).float(), dim=1)  # (B, P), f(v) of the pictures
        transformed = F.normalize(self.branch(self.encoder, second, batch.random).float(), dim=1)  # (B, P), g(v)
        entries = own_and_others(batch.index, len(self.bank), batch.random("negatives"), self.negatives)  # (B, 1 + N)
        similarities = [self.bank.similarities(embeddings, entries) for embeddings in (transformed, own)]
        losses = [nce_losses(each / self.temperature).mean() for each in similarities]
        top1s = [100 * (each.argmax(dim=1) == 0).float().mean() for each in similarities]
        return StepOutput(
            self.transform_weight * losses[0] + (1 - self.transform_weight) * losses[1],
            logs={"transformed_top1": top1s[0], "own_top1": top1s[1]},
            kept={"index": batch.index, "embeddings": own.detach()},
        )

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the vectors of the pictures just seen."""
        self.bank.update(kept["index"], kept["embeddings"])

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the picture, and the other view as it is transformed."""
        return {"picture": batch.views[0], **self.branch.preview(batch.views[1], batch.random)}


class RotationBranch(nn.Module):
    """Pictures, turned by quarters, to embeddings.

    Args:
        head: Maps features (B, D) to embeddings (B, P).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, encoder: nn.Module, images: Tensor, random: SampleRandom) -> Tensor:
        """Embed pictures (B, C, H, H), turned by their draws, with an encoder: (B, P), of any length."""
        embeddings: Tensor = self.head(encoder(self.turned(images, random)))
        return embeddings

    def turned(self, images: Tensor, random: SampleRandom) -> Tensor:
        """Turn each picture (B, C, H, H) by 0, 90, 180 or 270 degrees."""
        return turn_quarters(images, random("turn").integers(4))

    def preview(self, images: Tensor, random: SampleRandom) -> dict[str, Tensor]:
        """Show the turned pictures."""
        return {"turned": self.turned(images, random)}


def own_and_others(index: Tensor, size: int, draws: Draws, negatives: int) -> Tensor:
    """Choose what pictures are compared with: their own vector, then those of others, with replacement.

    Args:
        index: (B,) int64, the pictures' numbers in the training set.
        size: How many pictures there are.
        draws: The pictures' stream.
        negatives: N, how many others are drawn; 0 takes each of them once.

    Returns:
        (B, 1 + N) int64, or (B, size) for all; a picture's own number comes first and nowhere else.
    """
    steps = 1 + draws.integers(size - 1, negatives) if negatives else torch.arange(1, size, device=index.device)
    return torch.cat([index[:, None], (index[:, None] + steps) % size], dim=1)


def nce_losses(logits: Tensor) -> Tensor:
    """Compute equation 4 for each sample: -log h of the positive, minus the sum of log(1 - h) over its negatives.

    In equation 3, h = exp(s) / (exp(s) + sum over the negatives): the logistic function of s minus that sum's log.

    Args:
        logits: (B, 1 + N), similarities over the temperature, the positive's first.

    Returns:
        (B,).
    """
    log_odds = logits - logits[:, 1:].logsumexp(dim=1, keepdim=True)
    return F.softplus(-log_odds[:, 0]) + F.softplus(log_odds[:, 1:]).sum(dim=1)
