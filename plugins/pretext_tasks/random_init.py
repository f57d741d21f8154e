"""Random initialization: the yardstick that a pretext task has to beat."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clvr_bench import DataFacts, Encoder, Epoch, PretextTask, Register, hookimpl


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register the untrained encoder."""
    register(
        "random_init",
        RandomInit,
        summary="Yardstick: the untrained encoder, BatchNorm calibrated on the training pictures.",
        source="none",
        version=1,
    )


class RandomInit(PretextTask):
    """The encoder as initialized, with BatchNorm's statistics measured on the training pictures.

    Residual branches that start at zero (a last BatchNorm of weight zero, as timm's ResNets have) would leave an
    untrained network nearly linear; here they start at one, which makes this the stronger yardstick.

    Args:
        encoder: Evaluated as it is.
        data: Unused.
    """

    views = 0
    trains = False
    ranked = False

    def __init__(self, encoder: Encoder, data: DataFacts) -> None:
        super().__init__()
        self.encoder = encoder
        for norm in batch_norms(encoder):
            if norm.affine and not norm.weight.any():
                nn.init.ones_(norm.weight)

    def before_epoch(self, epoch: Epoch) -> None:
        """Measure BatchNorm's statistics over the whole training set."""
        norms = batch_norms(self.encoder)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
        self.encoder.train()
        seen = 0
        with torch.no_grad():
            for _, images in epoch.images():
                seen += len(images)
                for norm in norms:
                    norm.momentum = len(images) / seen  # every picture counts alike, also those of a smaller last batch
                self.encoder(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List a module's BatchNorm layers."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
