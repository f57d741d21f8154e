"""Noise-contrastive estimation with a normalizing constant that is estimated once and kept."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench.errors import ClvrBenchError


class NCE(nn.Module):
    """The noise-contrastive loss over a memory bank (Wu et al. 2018, section 3.2).

    The normalizing constant Z is the mean of the Monte Carlo estimates (equation 8) of the first step's samples, as in
    the authors' code. In that step itself each sample's loss takes its own estimate.

    Args:
        size: n, the vectors in the bank, which the noise is uniform over.
        temperature: tau, positive.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978; Gutmann and Hyvarinen 2010,
    https://proceedings.mlr.press/v9/gutmann10a.html.
    """

    log_constant: Tensor
    settled: Tensor

    def __init__(self, size: int, temperature: float) -> None:
        super().__init__()
        self.size, self.temperature = size, temperature
        self.register_buffer("log_constant", torch.zeros(()))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))

    def forward(self, similarities: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss of each sample, and its estimate of the constant.

        Args:
            similarities: (B, 1 + m), the positive's first, then those of m uniform negatives.

        Returns:
            Losses (B,), and detached estimates of log Z (B,), which ``settle`` takes after the first step.
        """
        logits = similarities / self.temperature
        estimates = log_constants(logits[:, 1:].detach(), self.size)
        constants = torch.where(self.settled, self.log_constant, estimates)
        return nce_losses(logits, constants, self.size), estimates

    def settle(self, estimates: Tensor) -> None:
        """Fix the constant at the mean of Z over estimates of log Z (B,); without effect once it is fixed."""
        mean = estimates.logsumexp(0) - math.log(len(estimates))
        self.log_constant.copy_(torch.where(self.settled, self.log_constant, mean))
        self.settled.fill_(True)


def log_constants(logits: Tensor, size: int) -> Tensor:
    """Estimate log Z_i, with Z_i = n / m times the sum of exp(v_jk f_i / tau) over m uniform j_k (equation 8).

    Args:
        logits: (B, m), similarities over the temperature.
        size: n.

    Returns:
        (B,).
    """
    return logits.logsumexp(dim=1) + math.log(size / logits.shape[1])


def nce_losses(logits: Tensor, log_constants: Tensor, size: int) -> Tensor:
    """Compute -log h(i, v) - sum over the noise v' of log(1 - h(i, v')) for each sample (equations 4, 6 and 7).

    h = P / (P + m / n) with P = exp(logit) / Z is the logistic function of logit - log Z - log(m / n).

    Args:
        logits: (B, 1 + m), similarities over the temperature, the positive's first.
        log_constants: (B,), log Z.
        size: n.

    Returns:
        (B,).
    """
    log_noise = math.log((logits.shape[1] - 1) / size)
    log_odds = logits - log_constants[:, None] - log_noise
    return F.softplus(-log_odds[:, 0]) + F.softplus(log_odds[:, 1:]).sum(dim=1)


def check_contrast(task: str, *, negatives: int, least: int, train_size: int, temperature: float) -> None:
    """Refuse a temperature or a number of negatives that makes no sense, in the name of a task.

    Raises:
        ClvrBenchError: The temperature is not positive, or there are more negatives than training pictures, or too few.
    """
    if temperature <= 0:
        raise ClvrBenchError(f"{task}: temperature must be positive, got {temperature}. Typical: 0.07 to 0.2.")
    if not least <= negatives <= train_size:
        raise ClvrBenchError(
            f"{task}: negatives must be from {least} to the {train_size} training pictures, got {negatives}. "
            f"Set fewer, such as negatives={max(1, train_size // 4)}."
        )
