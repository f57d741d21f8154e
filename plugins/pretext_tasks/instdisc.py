"""InstDisc: every picture is a class of its own, and its vector in a memory bank is that class's weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    PretextTask,
    Progress,
    Recipe,
    Register,
    StepOutput,
    hookimpl,
)
from clvr_bench.toolbox import NCE, MemoryBank, check_contrast, discriminate_instances, linear_head


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register instance discrimination."""
    register(
        "instdisc",
        InstDisc,
        summary="Tells each picture from all others by vectors in a memory bank (NCE).",
        source="Wu et al. 2018, https://arxiv.org/abs/1805.01978",
        version=1,
    )


class InstDisc(PretextTask):
    """Non-parametric instance discrimination (Wu et al. 2018, section 3).

    Where paper and authors' code disagree, the code is followed: the paper replaces a picture's vector at each visit
    and holds embeddings back by the proximal term of equation 9; the code has no such term and moves the vector only
    half-way, to the same effect as its authors say (https://github.com/zhirongw/lemniscate.pytorch/issues/11).
    ``bank_momentum=0`` with a positive ``proximal`` is the paper's.
    Differs from the paper: the rate falls along a cosine, not tenfold at epochs 120 and 160 of 200; Z is estimated from
    the negatives alone (equation 8), where the code counts the positive too; biases and BatchNorm's parameters do not
    decay, as they do in the code.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``train_size`` is N, the size of the bank.
        projection_dim: P, the length of an embedding (section 4.2: 128).
        negatives: m, drawn from the bank for each picture (section 4.2: 4096); 0 compares with all N (equation 2).
        temperature: tau of equation 2 (section 3.1: 0.07).
        bank_momentum: The share of a picture's old vector that a visit keeps, in [0, 1).
        proximal: lambda of equation 9, not negative.
        batch_norm: Whether the projector normalizes features over the batch first, which the paper's does not. It
            spares a small data set the epochs in which all embeddings share a direction and the bank lags behind it.

    Raises:
        ClvrBenchError: An option is out of its range, or there are more negatives than training pictures.
    """

    views = 1
    separable = True
    default_augmentation = "moco_v1"
    recipe = Recipe(optimizer="momentum", learning_rate=0.03, weight_decay=1e-4, warmup=0.0)  # section 4.2
    moves = ("bank", "nce")
    check_options: ClassVar[Mapping[str, Any]] = {"negatives": 32}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        projection_dim: int = 128,
        negatives: int = 4096,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        proximal: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        size = data.train_size
        check_contrast("instdisc", negatives=negatives, least=0, train_size=size, temperature=temperature)
        if proximal < 0:
            raise ClvrBenchError(f"instdisc: proximal must not be negative, got {proximal}. Use 0 for none.")
        self.encoder = encoder
        self.negatives, self.proximal = negatives, proximal
        self.projector = linear_head(encoder.feature_dim, projection_dim, batch_norm=batch_norm)
        self.bank = MemoryBank(size, projection_dim, momentum=bank_momentum)
        self.nce = NCE(size, temperature)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute equation 10, or the cross-entropy of equation 2, of one view a picture."""
        embeddings = F.normalize(self.projector(self.encoder(batch.views[0])).float(), dim=1)  # (B, P)
        losses, correct, kept = discriminate_instances(embeddings, batch, self.bank, self.nce, self.negatives)
        if self.proximal:
            losses = losses + self.proximal * squared_distances(embeddings, self.bank.vectors[batch.index])
        kept = {"index": batch.index, "embeddings": embeddings.detach(), **kept}
        return StepOutput(losses.mean(), logs={"contrastive_top1": 100 * correct.float().mean()}, kept=kept)

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Move the vectors of the pictures just seen; after the first step, fix the normalizing constant."""
        self.bank.update(kept["index"], kept["embeddings"])
        if self.negatives:
            self.nce.settle(kept["log_constants"])


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Compute the squared distances (B,) of vectors (B, P) and (B, P): equation 9's proximal term over lambda."""
    return (first - second).square().sum(dim=1)
