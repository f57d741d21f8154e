"""Ways around two faults of torch's convolutions on the CPU, in the gradient of their weights.

Seen with torch 2.15.0 on a processor with AVX-512. The outputs are right, so only training is concerned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NARROW = 16  # channels: with as many or more, strided 1x1 convolutions are sound


def go_around_faults(module: nn.Module) -> None:
    """Let the strided convolutions of a module on the CPU compute the same in sound ways, in place."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and max(layer.stride) > 1:
            layer.__class__ = _StridedConv2d


class _StridedConv2d(nn.Conv2d):
    """A convolution whose stride is above 1."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        if self.in_channels < NARROW and self.kernel_size == (1, 1) and self.padding == (0, 0):
            # Where threads share a batch unevenly, the kernel for channels_last writes beyond its memory.
            rows, columns = self.stride
            return F.conv2d(images[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)
        if min(images.shape[-2:]) < max(self.stride):
            # In bf16, the gradient of weights that meet padding alone is garbage, or not finite.
            with torch.autocast("cpu", enabled=False):
                return super().forward(images.float())
        return super().forward(images)
