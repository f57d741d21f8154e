"""Target networks: frozen copies that follow what is trained by an exponential moving average."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clvr_bench.contracts.values import Progress


class MomentumTarget(nn.Sequential):
    """A frozen copy of modules, applied one after the other; ``follow`` moves it towards them.

    Only parameters are averaged. BatchNorm's running statistics are the copy's own: while training, it normalizes by
    its own batches, and an average of the source's statistics would describe activations that it never had. So do the
    authors' codes of MoCo and BYOL.

    Args:
        *sources: What is copied, in the order of application. They stay outside, so they are not saved twice.

    Source: He et al. 2020, https://arxiv.org/abs/1911.05722; Grill et al. 2020, https://arxiv.org/abs/2006.07733.
    """

    def __init__(self, *sources: nn.Module) -> None:
        super().__init__(*[copy.deepcopy(source) for source in sources])
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the copies to inputs (B, ...), without a gradient."""
        outputs: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]  # torch's has no types
        return outputs

    @torch.no_grad()
    def follow(self, *sources: nn.Module, momentum: float) -> None:
        """Move each parameter xi towards its source theta: xi <- m xi + (1 - m) theta (MoCo, equation 2).

        Args:
            *sources: What was copied, in the same order.
            momentum: m, in [0, 1]; 1 stays, 0 copies.
        """
        targets = list(self.parameters())
        trained = [parameter for source in sources for parameter in source.parameters()]
        if len(targets) != len(trained):
            raise ValueError(f"follow takes what was copied: {len(targets)} parameters, got {len(trained)}")
        get_ema_multi_avg_fn(momentum)(targets, trained, 0)


def growing_momentum(base: float, progress: Progress) -> float:
    """Return the momentum of step k of K, 1 - (1 - base) (cos(pi k / K) + 1) / 2: from ``base`` at the first towards 1.

    Args:
        base: tau_base, in [0, 1].
        progress: Of the step just taken.

    Source: Grill et al. 2020, section 3.3, https://arxiv.org/abs/2006.07733.
    """
    return 1 - (1 - base) * (math.cos(math.pi * progress.fraction) + 1) / 2
