"""Rotation: say by which multiple of 90 degrees a picture was turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import Batch, DataFacts, Encoder, PretextTask, Recipe, Register, StepOutput, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register rotation prediction."""
    register(
        "rotation",
        Rotation,
        summary="Predicts by which of 0, 90, 180, 270 degrees a picture was turned.",
        source="Gidaris et al. 2018, https://arxiv.org/abs/1803.07728",
        version=1,
    )


class Rotation(PretextTask):
    """RotNet (Gidaris et al. 2018, equations 1 to 3): four turned copies of every picture, classified.

    All four copies of a picture are in one step (section 3.1, "implementation details").
    Differs from the paper: the head reads the pooled feature, not a further convolutional block, so that what is
    evaluated is the whole encoder; the rate falls along a cosine, not by steps at epochs 30, 60 and 80.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Unused.
    """

    views = 1
    separable = True
    default_augmentation = "crop_flip"
    recipe = Recipe(optimizer="momentum", learning_rate=0.1, reference_batch=128, weight_decay=5e-4, warmup=0.0)

    def __init__(self, encoder: Encoder, data: DataFacts) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_dim, 4)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the cross-entropy of the four turns of every picture."""
        turned = turns(batch.views[0])  # (4B, C, H, W)
        logits = self.classifier(self.encoder(turned)).float()  # (4B, 4)
        target = torch.arange(4, device=logits.device).repeat_interleave(len(batch))
        accuracy = 100 * (logits.argmax(dim=1) == target).float().mean()
        return StepOutput(loss=F.cross_entropy(logits, target), logs={"rotation_top1": accuracy})

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Show the four turns, labelled in degrees."""
        turned = turns(batch.views[0]).chunk(4)
        return {f"{90 * quarter}°": images for quarter, images in enumerate(turned)}


def turns(images: Tensor) -> Tensor:
    """Turn pictures (B, C, H, H) by 0, 90, 180 and 270 degrees, counter-clockwise: (4B, C, H, H), turn by turn."""
    return torch.cat([images.rot90(quarter, dims=(-2, -1)) for quarter in range(4)])
