import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import cross_entropy

from clvr_bench.ops.logistic import LogisticFit, fit_logistic

GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def blobs(samples: int, dimensions: int, classes: int, *, apart: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated, unevenly scaled normal clouds (N, D), standardized, with their labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    centers = torch.randn(classes, dimensions, generator=generator) * apart / dimensions**0.5
    mixing = torch.randn(dimensions, dimensions, generator=generator) / torch.arange(1, dimensions + 1)
    features = (centers[labels] + torch.randn(samples, dimensions, generator=generator)) @ mixing.T
    return (features - features.mean(0)) / features.std(0), labels


def reference(features: Tensor, labels: Tensor, penalty: float) -> LogisticRegression:
    model = LogisticRegression(C=1 / (penalty * len(features)), tol=1e-6, max_iter=5_000)
    return model.fit(features.double().numpy(), labels.numpy())


def objective_gradient(fit: LogisticFit, position: int, features: Tensor, labels: Tensor, penalty: float) -> Tensor:
    """The gradient (K, D + 1) of the objective as its definition states it, by automatic differentiation in float64."""
    weight = fit.weight[position].double().requires_grad_()
    bias = fit.bias[position].double().requires_grad_()
    loss = cross_entropy(features.double() @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, (weight, bias))])


def test_coefficients_are_those_of_scikit_learn_where_the_penalty_is_strong() -> None:
    features, labels = blobs(600, 20, 4, apart=3)
    fit = fit_logistic(features, labels, 4, [0.1])
    model = reference(features, labels, 0.1)
    np.testing.assert_allclose(fit.weight[0], model.coef_, atol=2e-5)
    np.testing.assert_allclose(fit.bias[0], model.intercept_, atol=2e-5)


@pytest.mark.parametrize(("samples", "dimensions", "apart"), [(1_500, 40, 3), (300, 200, 4)], ids=["tall", "separable"])
def test_predictions_are_those_of_scikit_learn_at_every_penalty(samples: int, dimensions: int, apart: float) -> None:
    features, labels = blobs(samples + 1_000, dimensions, 10, apart=apart)
    train, held_out = features[:samples], features[samples:]
    predictions = fit_logistic(train, labels[:samples], 10, GRID).logits(held_out).argmax(2)
    for penalty, ours in zip(GRID, predictions, strict=True):
        theirs = reference(train, labels[:samples], penalty).predict(held_out.double().numpy())
        assert np.mean(ours.numpy() == theirs) >= 0.99, f"penalty {penalty}"


def test_fewer_samples_than_features_are_solved_in_their_span() -> None:
    features, labels = blobs(330, 200, 4, apart=4)
    train, held_out = features[:30] + 5, features[30:] + 5
    penalties = (1e-3, 1e-1, 10.0)
    fit = fit_logistic(train, labels[:30], 4, penalties)
    for position, penalty in enumerate(penalties):
        assert objective_gradient(fit, position, train, labels[:30], penalty).abs().max() <= 2e-6
        theirs = reference(train, labels[:30], penalty).decision_function(held_out.double().numpy())
        ours = fit.logits(held_out)[position]
        np.testing.assert_allclose(ours - ours.mean(1, keepdim=True), theirs, atol=0.01)  # of about 10


def test_gradient_at_every_solution_is_within_the_tolerance() -> None:
    features, labels = blobs(800, 30, 5, apart=2)
    fit = fit_logistic(features, labels, 5, GRID, tolerance=1e-7)
    for position, penalty in enumerate(GRID):  # a fifth more for float32's rounding
        assert objective_gradient(fit, position, features, labels, penalty).abs().max() <= 1.2e-7


def test_reported_gradient_is_the_true_one_where_the_search_was_cut_short() -> None:
    features, labels = blobs(800, 30, 5, apart=2)
    fit = fit_logistic(features, labels, 5, [1e-3], max_iterations=3)
    true = objective_gradient(fit, 0, features, labels, 1e-3).abs().max()
    assert fit.iterations.tolist() == [3]
    assert fit.gradient.item() == pytest.approx(true.item(), rel=1e-3)
    assert fit.gradient.item() > 1e-6


def test_an_uninformative_feature_leaves_the_log_frequencies_as_intercepts() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    fit = fit_logistic(torch.zeros(10, 1), labels, 3, [1.0])
    expected = torch.tensor([0.6, 0.3, 0.1]).log()
    torch.testing.assert_close(fit.bias[0] - fit.bias[0].mean(), expected - expected.mean(), atol=1e-4, rtol=0)
    torch.testing.assert_close(fit.weight[0], torch.zeros(3, 1))


def test_two_mirrored_points_satisfy_the_closed_form() -> None:
    """With x = +1 and -1 in classes 1 and 0, w solves sigmoid(-2 w) = penalty * w, where w = weight[1] = -weight[0]."""
    fit = fit_logistic(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2, [0.01, 0.5])
    for penalty, weight in zip((0.01, 0.5), fit.weight[:, :, 0], strict=True):
        assert weight[0].item() == pytest.approx(-weight[1].item(), abs=1e-5)
        assert torch.sigmoid(-2 * weight[1]).item() == pytest.approx(penalty * weight[1].item(), abs=2e-6)
    torch.testing.assert_close(fit.bias, torch.zeros(2, 2))


def test_intercept_is_free_of_penalty_so_a_shift_of_the_features_changes_no_logit() -> None:
    features, labels = blobs(500, 10, 3, apart=2)
    plain = fit_logistic(features, labels, 3, [0.1, 10.0])
    shifted = fit_logistic(features + 3, labels, 3, [0.1, 10.0])
    torch.testing.assert_close(plain.logits(features), shifted.logits(features + 3), atol=1e-4, rtol=0)


def test_penalties_solved_together_equal_those_solved_alone() -> None:
    features, labels = blobs(500, 10, 3, apart=2)
    penalties = (10.0, 1e-3, 1.0, 1e-2, 0.1)  # in no order, so that those solved first lie between the others
    together = fit_logistic(features, labels, 3, penalties)
    for position, penalty in enumerate(penalties):
        alone = fit_logistic(features, labels, 3, [penalty])
        torch.testing.assert_close(together.weight[position], alone.weight[0], atol=2e-3, rtol=1e-3)
        assert abs(together.iterations[position].item() - alone.iterations.item()) <= 1


def test_a_repeated_solve_gives_the_same_bits() -> None:
    features, labels = blobs(500, 10, 3, apart=2)
    first, second = (fit_logistic(features, labels, 3, GRID) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_an_absent_class_is_never_predicted() -> None:
    features, labels = blobs(500, 10, 3, apart=2)
    fit = fit_logistic(features, labels + 1, 5, [1e-3])  # classes 0 and 4 are absent
    assert fit.weight.isfinite().all()
    assert set(fit.logits(features)[0].argmax(1).tolist()) == {1, 2, 3}


def test_a_single_class_needs_no_step() -> None:
    fit = fit_logistic(torch.randn(20, 3), torch.zeros(20, dtype=torch.int64), 1, [0.1])
    assert fit.iterations.tolist() == [0]
    assert fit.logits(torch.randn(4, 3)).isfinite().all()


def test_fewer_samples_than_features_converge() -> None:
    features, labels = blobs(30, 100, 3, apart=2)
    fit = fit_logistic(features, labels, 3, GRID)
    assert fit.gradient.max() <= 1e-6


def test_an_unreachable_tolerance_ends_at_the_limit_with_finite_numbers() -> None:
    features, labels = blobs(200, 10, 3, apart=2)
    fit = fit_logistic(features, labels, 3, [1e-3, 1.0], tolerance=0.0, max_iterations=60)
    assert fit.iterations.tolist() == [60, 60]
    assert fit.gradient.max() < 1e-6


def test_data_that_one_feature_separates_perfectly_stay_finite() -> None:
    features = torch.cat([torch.full((50, 1), -1.0), torch.full((50, 1), 1.0)])
    fit = fit_logistic(features, torch.arange(100) // 50, 2, [1e-8], tolerance=1e-9)
    assert fit.weight.isfinite().all()
    assert (fit.logits(features)[0].argmax(1) == torch.arange(100) // 50).all()
