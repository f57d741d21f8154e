from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import NCE, check_contrast
from clvr_bench.toolbox.nce import log_constants, nce_losses


def similarities(samples: int = 4, negatives: int = 6, seed: int = 0) -> Tensor:
    return 2 * torch.rand(samples, 1 + negatives, generator=torch.Generator().manual_seed(seed)) - 1


def naive_nce(row: list[float], constant: float, size: int, temperature: float) -> float:
    """Equation 7 for one sample, with h of equation 6 and P of equation 4 as they are printed."""
    m = len(row) - 1

    def h(similarity: float) -> float:
        p = math.exp(similarity / temperature) / constant
        return p / (p + m * (1 / size))

    return -math.log(h(row[0])) - sum(math.log(1 - h(negative)) for negative in row[1:])


def naive_constant(row: list[float], size: int, temperature: float) -> float:
    """Equation 8 for one sample."""
    m = len(row) - 1
    return size / m * sum(math.exp(negative / temperature) for negative in row[1:])


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize(("negatives", "size"), [(1, 1), (3, 50), (20, 7)])
def test_the_loss_is_equation_7(negatives: int, size: int, temperature: float) -> None:
    given, constants = similarities(5, negatives), torch.tensor([0.5, 1.0, 30.0, 1e3, 1e5])
    losses = nce_losses(given / temperature, constants.log(), size)
    for loss, row, constant in zip(losses.tolist(), given.double().tolist(), constants.tolist(), strict=True):
        assert loss == pytest.approx(naive_nce(row, constant, size, temperature), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_constant_is_estimated_by_equation_8(temperature: float) -> None:
    given = similarities(negatives=9)
    estimates = log_constants(given[:, 1:] / temperature, 123)
    expected = [math.log(naive_constant(row, 123, temperature)) for row in given.double().tolist()]
    assert estimates.tolist() == pytest.approx(expected, abs=1e-5)


def test_over_the_whole_bank_the_constant_is_exactly_that_of_equation_5() -> None:
    logits = similarities(samples=3, negatives=20)[:, 1:]
    torch.testing.assert_close(log_constants(logits, 20).exp(), logits.exp().sum(dim=1))


def test_in_the_first_step_each_sample_takes_its_own_estimate() -> None:
    nce, given = NCE(50, 0.1), similarities()
    losses, estimates = nce(given)
    rows = given.double().tolist()
    assert losses.tolist() == pytest.approx([naive_nce(r, naive_constant(r, 50, 0.1), 50, 0.1) for r in rows], rel=1e-5)
    assert estimates.tolist() == pytest.approx([math.log(naive_constant(r, 50, 0.1)) for r in rows], abs=1e-5)


def test_the_constant_is_the_first_steps_mean_and_stays() -> None:
    nce = NCE(50, 0.1)
    first = similarities(seed=1)
    nce.settle(nce(first)[1])
    constant = sum(naive_constant(row, 50, 0.1) for row in first.double().tolist()) / 4
    assert nce.log_constant.item() == pytest.approx(math.log(constant), abs=1e-5)
    settled = nce.log_constant.clone()
    later = similarities(seed=2)
    losses, estimates = nce(later)
    nce.settle(estimates)
    assert torch.equal(nce.log_constant, settled)
    rows = later.double().tolist()
    assert losses.tolist() == pytest.approx([naive_nce(row, constant, 50, 0.1) for row in rows], rel=1e-5)


def test_forward_moves_nothing() -> None:
    nce = NCE(50, 0.1)
    nce(similarities())
    assert nce.log_constant == 0
    assert not nce.settled


def test_the_constant_is_state() -> None:
    nce, other = NCE(50, 0.1), NCE(50, 0.1)
    nce.settle(nce(similarities(seed=1))[1])
    other.load_state_dict(nce.state_dict())
    assert torch.equal(other(similarities())[0], nce(similarities())[0])


def test_no_gradient_flows_through_an_estimate() -> None:
    given = similarities().requires_grad_()
    losses, estimates = NCE(50, 0.1)(given)
    losses.sum().backward()
    assert not estimates.requires_grad
    constants = log_constants(given.detach()[:, 1:] / 0.1, 50)[:, None]
    # the logistic loss of a sample: minus 1 - h at the positive, h at each negative, over the temperature
    h = torch.sigmoid(given.detach() / 0.1 - constants - math.log(6 / 50))
    expected = torch.cat([h[:, :1] - 1, h[:, 1:]], dim=1) / 0.1
    torch.testing.assert_close(given.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_posterior_of_a_half_has_the_closed_form() -> None:
    negatives, size = 4, 8
    logits = torch.full((2, 1 + negatives), 0.7)
    constants = logits[:, 0] - math.log(negatives / size)  # P equals m / n, so h is 1/2 throughout
    losses = nce_losses(logits, constants, size)
    assert losses.tolist() == pytest.approx([(1 + negatives) * math.log(2)] * 2, rel=1e-6)


def test_it_stays_finite_where_exponentials_overflow() -> None:
    given = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]], requires_grad=True)
    nce = NCE(1_000_000, 0.005)  # exp(200) is beyond float32
    losses, estimates = nce(given)
    losses.sum().backward()
    nce.settle(estimates)
    assert given.grad is not None
    assert all(bool(values.isfinite().all()) for values in (losses, estimates, given.grad, nce.log_constant))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), constant=st.floats(0, 10))
def test_a_nearer_positive_and_farther_negatives_cost_less(seed: int, constant: float) -> None:
    logits = 5 * similarities(seed=seed)
    constants = torch.full((4,), constant)
    better = logits - 0.1
    better[:, 0] += 0.2
    assert (nce_losses(better, constants, 50) < nce_losses(logits, constants, 50)).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_negatives_does_not_matter(seed: int) -> None:
    given = similarities(seed=seed)
    shuffled = given[:, [0, 4, 2, 6, 1, 3, 5]]
    for ours, theirs in zip(NCE(50, 0.1)(given), NCE(50, 0.1)(shuffled), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loss_is_least_at_the_true_constant() -> None:
    """Noise-contrastive estimation is consistent: over all noise, the normalized model has the least loss."""
    logits = 3 * similarities(samples=1, negatives=30)[:, 1:]  # all 30 vectors, each as often data as P says
    truth = logits.logsumexp(dim=1)

    def expected_loss(log_constant: Tensor) -> Tensor:
        rows = torch.cat([logits.T, logits.expand(30, 30)], dim=1)  # each vector as the positive, all as noise
        return (logits.softmax(dim=1)[0] * nce_losses(rows, log_constant.expand(30), 30)).sum()

    best = expected_loss(truth)
    assert all(expected_loss(truth + shift) > best for shift in (-0.2, -0.05, 0.05, 0.2))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ClvrBenchError, match=rf"some_task: temperature must be positive, got {temperature}\. Typical"):
        check_contrast("some_task", negatives=1, least=1, train_size=4, temperature=temperature)


@pytest.mark.parametrize("negatives", [-1, 0, 401])
def test_negatives_that_do_not_fit_the_data_are_refused(negatives: int) -> None:
    message = rf"some_task: negatives must be from 1 to the 400 training pictures, got {negatives}\. .*negatives=100\."
    with pytest.raises(ClvrBenchError, match=message):
        check_contrast("some_task", negatives=negatives, least=1, train_size=400, temperature=0.1)


@pytest.mark.parametrize("negatives", [0, 400])
def test_negatives_that_just_fit_are_accepted(negatives: int) -> None:
    check_contrast("some_task", negatives=negatives, least=0, train_size=400, temperature=0.1)
