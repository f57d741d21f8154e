"""Intervals over seeds, and ranks that only significant differences move. Knows numbers, not records; needs no torch.

The same scores give the same ranks on every machine: nothing here draws random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05

Floats = NDArray[np.float64]


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Return the half-width of the t interval for the mean, in the values' unit; NaN for fewer than two values.

    Args:
        values: n numbers, one a seed.
        confidence: The interval's coverage, between 0 and 1.
    """
    from scipy.special import stdtrit  # imports in 0.3 s, which tables of single seeds need not wait for

    n = len(values)
    if n < 2:
        return float("nan")
    return float(stdtrit(n - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / np.sqrt(n))


def holm(p_values: Floats) -> Floats:
    """Adjust p-values so that the chance of any false rejection is at most the level (Holm 1979).

    Args:
        p_values: (P,) from 0 to 1.

    Returns:
        (P,) adjusted p-values in the same order: the i-th smallest times P - i + 1, made monotone, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def image_variances(correct: Sequence[NDArray[np.bool_]]) -> Floats:
    """Return, for each pair of methods, the variance of the difference in accuracy over draws of the test images.

    This is the variance of a bootstrap that draws images jointly for all methods, their seeds fixed, so what makes an
    image easy for both cancels. An accuracy is linear in the images' weights, so the limit of infinitely many resamples
    (the ideal bootstrap, Efron and Tibshirani 1993, chapter 6) is a formula: the variance over images of the difference
    between the two methods' mean correctness, divided by N. No resample is drawn, and none adds noise.

    Args:
        correct: M matrices (S, N), True where a seed classifies an image correctly; S may differ.

    Returns:
        (M, M) symmetric, in squared fractions; 0 on the diagonal.
    """
    per_image = np.stack([matrix.mean(axis=0) for matrix in correct])  # (M, N)
    centered = per_image - per_image.mean(axis=1, keepdims=True)
    n = per_image.shape[1]
    covariance = centered @ centered.T / (n * (n - 1))
    own = np.diag(covariance)
    variances: Floats = np.maximum(own[:, None] + own[None, :] - 2 * covariance, 0.0)
    return variances


def seed_variances(correct: Sequence[NDArray[np.bool_]]) -> Floats:
    """Return each method's variance of its mean accuracy over draws of its seeds.

    This is the ideal bootstrap over seeds, the images fixed, times S / (S - 1): a bootstrap of S seeds sees a variance
    that is too small by that factor, a third for three seeds.

    Three seeds may agree by chance, and among twenty methods some do: with each method's own variance alone, 15% of
    simulated tables of equally good methods (20 methods, 3 seeds that differ more than the images' draw explains) had
    a false winner at a nominal 5%. So a method's seeds count as varying at least as much as the median method's, which
    brought it below 1%, and to 6% where half of the methods' accuracies truly have a tenth of the others' standard
    deviation over seeds.

    Args:
        correct: M matrices (S, N) as above, S >= 2.

    Returns:
        (M,) in squared fractions.
    """
    between = np.array([matrix.mean(axis=1).var(ddof=1) for matrix in correct])
    variances: Floats = np.maximum(between, np.median(between)) / np.array([len(matrix) for matrix in correct])
    return variances


class Differences(NamedTuple):
    """How far the methods of each pair are apart, over new seeds and new test images.

    Attributes:
        accuracy: (M, M), the row's accuracy minus the column's, in fractions.
        error: (M, M) standard errors of these.
        degrees: (M, M) degrees of freedom of these; infinite where nothing varies.
    """

    accuracy: Floats
    error: Floats
    degrees: Floats

    @property
    def p_values(self) -> Floats:
        """(M, M) two-sided p-values for equal accuracy; 1 on the diagonal and between methods of equal accuracy."""
        from scipy.special import stdtr

        distance = np.abs(self.accuracy)
        with np.errstate(divide="ignore", invalid="ignore"):  # no variance: equal methods give 0/0, unequal ones x/0
            t = np.where(distance > 0, distance / self.error, 0.0)
        return np.asarray(2 * stdtr(self.degrees, -t), dtype=np.float64)

    @property
    def half_widths(self) -> Floats:
        """(M, M) half-widths of the 95% intervals; one leaves out 0 where the p-value is below 0.05."""
        from scipy.special import ndtri, stdtrit

        finite = np.isfinite(self.degrees)
        return self.error * np.where(finite, stdtrit(np.where(finite, self.degrees, 1.0), 0.975), ndtri(0.975))


def differences(correct: Sequence[NDArray[np.bool_]]) -> Differences:
    """Compare each pair of methods.

    The standard error is that of a two-level bootstrap: the variance over images plus that over the seeds of either
    method. The part of a seed's errors that is its own on that image enters both, so the test errs on the side of a
    tie. With hundreds of pairs a share of resamples could never be small enough for Holm's first step (0.05 / 190), so
    the p-value is Student's t of difference / standard error. Its degrees of freedom follow Welch and Satterthwaite,
    V^2 / sum(V_j^2 / df_j): N - 1 for the images' part, S - 1 for each method's seeds. So a difference that images
    alone could blur is tested almost normally, and one that seeds blur pays for there being few of them.

    Args:
        correct: M matrices (S, N) as above, S >= 2.
    """
    accuracy = np.array([matrix.mean() for matrix in correct])
    seeds, images = seed_variances(correct), image_variances(correct)
    seeds_squared = seeds**2 / np.array([len(matrix) - 1 for matrix in correct])
    variance = images + seeds[:, None] + seeds[None, :]
    spread = images**2 / (correct[0].shape[1] - 1) + seeds_squared[:, None] + seeds_squared[None, :]
    degrees = np.divide(variance**2, spread, out=np.full_like(variance, np.inf), where=spread > 0)
    return Differences(accuracy[:, None] - accuracy[None, :], np.sqrt(variance), degrees)


def adjusted_p_values(p_values: Floats) -> Floats:
    """Adjust the p-values of all pairs of a table together (Holm).

    Args:
        p_values: (M, M) symmetric.

    Returns:
        (M, M) symmetric; 1 on the diagonal.
    """
    upper = np.triu_indices(len(p_values), 1)
    adjusted = np.ones_like(p_values)
    adjusted[upper] = holm(p_values[upper])
    smaller: Floats = np.minimum(adjusted, adjusted.T)
    return smaller


def ranks(correct: Sequence[NDArray[np.bool_]], level: float = LEVEL) -> list[int]:
    """Rank methods: 1 + the number of methods that are significantly better, so ties share a rank.

    A rank is never better than that of a method with a higher accuracy. Seeds of which one collapsed differ so widely
    that nothing is significantly better, and such a method would share the first rank for being unstable.

    Args:
        correct: M matrices (S, N) over the same N images in the same order, S >= 2.
        level: The chance, over all pairs of the table together, of any false difference.

    Returns:
        M ranks, 1 the best.
    """
    accuracy = np.array([matrix.mean() for matrix in correct])
    different = adjusted_p_values(differences(correct).p_values) < level
    higher = accuracy[None, :] > accuracy[:, None]  # [i, j]: j is above i
    found = 1 + (different & higher).sum(axis=1)
    return [max([int(own), *map(int, found[above])]) for own, above in zip(found, higher, strict=True)]
