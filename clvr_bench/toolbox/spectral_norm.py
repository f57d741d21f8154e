"""Spectral normalization, which keeps a discriminator from growing steep, for tasks that train one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

_FIRST_ITERATIONS = 15  # as torch's own takes when it is set up; one a step then follows the slowly moving weights
_LEAST = 1e-12  # so that weights of zero stay zero


class SpectralNorm(nn.Module):
    """A module whose weights are divided by their largest singular values (Miyato et al. 2018, equation 8).

    The values are found by power iteration (algorithm 1), which goes on from singular vectors that are kept. torch's
    own keeps them in every forward; this one keeps them when told to, so that a forward leaves no trace. Call
    ``iterate`` in ``after_step``, and name ``"NAME.vectors"`` in the task's ``moves``.

    Args:
        module: What is run. Its parameters of two and more dimensions are normalized, as matrices of
            (outputs, all else); it must not have BatchNorm, whose scale would undo that.

    Attributes:
        vectors: The left singular vectors, a buffer (outputs,) for each normalized parameter.

    Source: Miyato et al. 2018, https://arxiv.org/abs/1802.05957.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.vectors = nn.Module()
        for name, weight in self._weights().items():
            self.vectors.register_buffer(_buffer_name(name), F.normalize(torch.randn(len(weight)), dim=0))
        for _ in range(_FIRST_ITERATIONS):
            self.iterate()

    def forward(self, *inputs: Any, frozen: bool = False) -> Any:
        """Run the module with normalized weights.

        Args:
            *inputs: The module's.
            frozen: Whether its parameters stay out of the gradient, which then still reaches the inputs.
        """
        parameters = {name: p.detach() if frozen else p for name, p in self.module.named_parameters()}
        with torch.autocast(_device_type(parameters), enabled=False):
            for name in self._weights():
                left, right = singular_vectors(parameters[name].detach(), self._vector(name))
                value = left @ parameters[name].flatten(1) @ right
                parameters[name] = parameters[name] / value.clamp(min=_LEAST)
        return functional_call(self.module, parameters, inputs)

    @torch.no_grad()
    def iterate(self) -> None:
        """Take one power iteration from the kept vectors, and keep what it gives."""
        for name, weight in self._weights().items():
            self._vector(name).copy_(singular_vectors(weight, self._vector(name))[0])

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter for name, parameter in self.module.named_parameters() if parameter.ndim > 1}

    def _vector(self, name: str) -> Tensor:
        return self.vectors.get_buffer(_buffer_name(name))


def singular_vectors(weight: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Take one power iteration towards the singular vectors of the largest singular value.

    Args:
        weight: (outputs, ...), seen as a matrix.
        left: (outputs,), where it starts.

    Returns:
        The left vector (outputs,) and the right one (all else,), of length 1.
    """
    matrix = weight.flatten(1)
    right = F.normalize(left @ matrix, dim=0)
    return F.normalize(matrix @ right, dim=0), right


def _buffer_name(parameter: str) -> str:
    return parameter.replace(".", "/")  # a buffer's name must not have a dot, and a parameter's has no slash


def _device_type(parameters: Mapping[str, Tensor]) -> str:
    return next(iter(parameters.values())).device.type
