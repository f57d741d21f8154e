from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from clvr_bench.convolutions import go_around_faults
from clvr_bench.devices import autocast

CPU = torch.device("cpu")
UNEVEN = """
import torch
from torch import nn
from clvr_bench.convolutions import go_around_faults
torch.set_num_threads(2)
layer = nn.Conv2d(8, 16, 1, stride=2).to(memory_format=torch.channels_last)
go_around_faults(layer)
for _ in range(20):
    layer(torch.rand(5, 8, 16, 16).to(memory_format=torch.channels_last)).sum().backward()
"""


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (nn.Conv2d(8, 16, 1, stride=2, bias=False), 16),
        (nn.Conv2d(8, 16, 1, stride=(3, 2), groups=2), 7),
        (nn.Conv2d(8, 16, 1, stride=2, padding=1), 4),
        (nn.Conv2d(16, 32, 3, stride=2, padding=1), 1),
        (nn.Conv2d(16, 32, 3, stride=3, padding=1), 2),
        (nn.Conv2d(16, 32, 3, stride=2, padding=1), 8),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_plain_layer(layer: nn.Conv2d, side: int, precision: str) -> None:
    exact, layer = deepcopy(layer).double(), deepcopy(layer).to(memory_format=torch.channels_last)
    go_around_faults(layer)
    images = torch.randn(4, layer.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    inputs = [channels_last(images).requires_grad_(), images.double().requires_grad_()]
    with autocast(CPU, precision):
        output = layer(inputs[0])
    expected = exact(inputs[1])
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (output.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    pairs = [(output, expected), (inputs[0].grad, inputs[1].grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(layer.parameters(), exact.parameters(), strict=True)]
    for found, right in pairs:
        assert found is not None
        assert right is not None
        error = (found.double() - right).abs().max() / right.abs().max()
        assert error < (0.03 if precision == "bf16" else 1e-5)


def test_memory_stays_sound_where_threads_share_a_batch_unevenly() -> None:
    assert subprocess.run([sys.executable, "-c", UNEVEN], check=False).returncode == 0


def test_other_layers_and_all_parameters_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2))
    before = deepcopy(network)
    go_around_faults(network)
    assert [type(layer) is type(plain) for layer, plain in zip(network, before, strict=True)] == [True, False, True]
    assert isinstance(network[1], nn.Conv2d)
    assert network.state_dict().keys() == before.state_dict().keys()
    deepcopy(network)(torch.rand(2, 3, 9, 9)).sum().backward()
