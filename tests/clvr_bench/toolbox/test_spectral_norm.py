from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clvr_bench.toolbox import SpectralNorm
from clvr_bench.toolbox.spectral_norm import singular_vectors


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)
        self.linear = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.linear(self.convolution(images).sum(dim=(2, 3)))
        return scores


@pytest.fixture
def normalized() -> SpectralNorm:
    torch.manual_seed(0)
    return SpectralNorm(Network())


def settle(normalized: SpectralNorm) -> None:
    for _ in range(300):
        normalized.iterate()


def images() -> Tensor:
    return torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def largest(weight: Tensor) -> Tensor:
    return torch.linalg.svdvals(weight.detach().flatten(1))[0]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_it_runs_the_module_with_weights_over_their_largest_singular_value(normalized: SpectralNorm) -> None:
    settle(normalized)
    expected = Network()
    expected.load_state_dict(normalized.module.state_dict())
    with torch.no_grad():
        for weight in (expected.convolution.weight, expected.linear.weight):
            weight /= largest(weight)
    torch.testing.assert_close(normalized(images()), expected(images()))


def test_power_iteration_is_the_papers(normalized: SpectralNorm) -> None:
    weight = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    left, right = singular_vectors(weight, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(right, torch.tensor([1.8, 0.8]) / (1.8**2 + 0.8**2) ** 0.5)
    torch.testing.assert_close(left, torch.tensor([5.4, 0.8]) / (5.4**2 + 0.8**2) ** 0.5)


def test_the_first_vectors_are_close_to_the_singular_ones(normalized: SpectralNorm) -> None:
    weight = normalized.module.convolution.weight
    left, right = singular_vectors(weight.detach(), normalized.vectors.get_buffer("convolution/weight"))
    value = left @ weight.flatten(1) @ right
    assert value.item() == pytest.approx(largest(weight).item(), rel=0.02)


def test_the_gradient_is_that_of_torchs_spectral_norm(normalized: SpectralNorm) -> None:
    torch.manual_seed(1)
    module = nn.Linear(4, 3)
    mine = SpectralNorm(module)
    settle(mine)
    theirs = nn.Linear(4, 3)
    theirs.load_state_dict(module.state_dict())
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=300)
    inputs = torch.rand(5, 4)
    mine(inputs).pow(2).sum().backward()
    theirs(inputs).pow(2).sum().backward()
    torch.testing.assert_close(module.weight.grad, theirs.parametrizations.weight.original.grad)
    torch.testing.assert_close(module.bias.grad, theirs.bias.grad)


def test_a_forward_and_its_gradient_leave_no_trace(normalized: SpectralNorm) -> None:
    before = state(normalized)
    normalized(images()).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in normalized.state_dict().items())


def test_only_the_vectors_iterate(normalized: SpectralNorm) -> None:
    with torch.no_grad():
        for parameter in normalized.module.parameters():
            parameter += torch.rand_like(parameter)
    before = state(normalized)
    normalized.iterate()
    moved = {name for name, tensor in normalized.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved == {"vectors.convolution/weight", "vectors.linear/weight"}


def test_frozen_weights_get_no_gradient_and_inputs_the_same(normalized: SpectralNorm) -> None:
    grads = []
    for frozen in (False, True):
        normalized.zero_grad()
        inputs = images().requires_grad_()
        normalized(inputs, frozen=frozen).pow(2).sum().backward()
        grads.append(inputs.grad)
        assert all((parameter.grad is None) == frozen for parameter in normalized.module.parameters())
    torch.testing.assert_close(*grads)


def test_vectors_are_found_again_in_a_saved_state(normalized: SpectralNorm) -> None:
    torch.manual_seed(7)
    other = SpectralNorm(Network())
    other.load_state_dict(normalized.state_dict())
    assert torch.equal(other(images()), normalized(images()))


def test_the_singular_value_is_float32_under_autocast(normalized: SpectralNorm) -> None:
    settle(normalized)
    with torch.autocast("cpu", torch.bfloat16):
        scores = normalized(images())
    torch.testing.assert_close(scores.float(), normalized(images()), rtol=0.03, atol=0.03)


def test_weights_of_zero_stay_zero(normalized: SpectralNorm) -> None:
    nn.init.zeros_(normalized.module.linear.weight)
    nn.init.zeros_(normalized.module.linear.bias)
    assert torch.equal(normalized(images()), torch.zeros(4, 2))
