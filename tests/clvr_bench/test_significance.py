import numpy as np
import pytest

from clvr_bench.significance import differences, half_width, holm, image_variances, ranks, seed_variances

N = 2000


def marks(accuracy: float, *keys: int, seeds: int = 3) -> np.ndarray:
    """(S, N): each seed gets that part of the images right, chosen independently."""
    random = np.random.default_rng([int(1000 * accuracy), *keys])
    return random.random((seeds, N)) < accuracy


def test_interval_equals_the_one_computed_by_hand():
    # mean 61, std 1, t(0.975, 2) = 4.302653 from a table: 4.302653 * 1 / sqrt(3)
    assert half_width([60.0, 61.0, 62.0]) == pytest.approx(2.484138, abs=1e-6)


def test_interval_of_two_seeds_uses_one_degree_of_freedom():
    assert half_width([60.0, 62.0]) == pytest.approx(12.706205 * np.sqrt(2) / np.sqrt(2), abs=1e-5)


def test_one_seed_has_no_interval():
    assert np.isnan(half_width([60.0]))


def test_holm_equals_the_steps_computed_by_hand():
    adjusted = holm(np.array([0.04, 0.01, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.06, 0.03, 0.06, 0.02])


def test_holm_never_exceeds_one():
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_variance_over_images_is_the_limit_of_resampling_images_jointly():
    ease = np.random.default_rng(0).normal(size=200)
    noise = np.random.default_rng(1).normal(size=(2, 3, 200))
    correct = [ease + 0.3 + noise[0] > 0, ease + noise[1] > 0]
    draws = np.random.default_rng(2).integers(0, 200, size=(20_000, 200))
    difference = (correct[0].mean(axis=0) - correct[1].mean(axis=0))[draws].mean(axis=1)
    # a bootstrap of N images sees (N - 1) / N of the variance
    assert image_variances(correct)[0, 1] == pytest.approx(difference.var() * 200 / 199, rel=0.03)


def test_images_that_are_easy_for_both_do_not_blur_a_difference():
    first = marks(0.6, 1)
    second = first.copy()
    second[:, :5] = ~second[:, :5]
    apart = image_variances([first, marks(0.6, 2)])[0, 1]
    assert image_variances([first, second])[0, 1] < apart / 50


def test_variance_over_seeds_is_that_of_a_mean_of_seeds():
    correct = np.zeros((3, 100), dtype=bool)
    correct[0, :50], correct[1, :60], correct[2, :70] = True, True, True
    # between seeds: (0.1^2 + 0 + 0.1^2) / 2 = 0.01; of their mean: 0.01 / 3
    assert seed_variances([correct]) == pytest.approx([0.01 / 3])


def test_variance_over_seeds_is_at_least_the_median_of_all_methods():
    lucky = np.repeat(marks(0.6, 1)[:1], 3, axis=0)
    others = [np.arange(100) < np.array([[50], [60], [70]])] * 2
    assert seed_variances([lucky, *others]) == pytest.approx([0.01 / 3] * 3)


def test_p_value_equals_welchs_where_only_seeds_vary():
    # every image is right for one seed of three, so images do not vary; seeds score 1/4, 1/4, 1/2
    lower = np.repeat(np.eye(3, dtype=bool), [1, 1, 2], axis=1)
    higher = ~lower
    # means 1/3 and 2/3, variance of each mean 1/144: t = (1/3) / sqrt(2/144) = sqrt(8), with 4 degrees of freedom,
    # where P(|T| < t) = sin a (1 + cos^2 a / 2) with tan a = t / 2: sqrt(2/3) * 7/6
    assert differences([lower, higher]).p_values[0, 1] == pytest.approx(1 - np.sqrt(2 / 3) * 7 / 6)


def test_interval_of_a_difference_is_welchs_where_only_seeds_vary():
    # as above: standard error sqrt(2) / 12, and t(0.975, 4) = 2.776445 from a table
    lower = np.repeat(np.eye(3, dtype=bool), [1, 1, 2], axis=1)
    assert differences([lower, ~lower]).half_widths[0, 1] == pytest.approx(2.776445 * np.sqrt(2) / 12, abs=1e-6)


def test_a_difference_is_the_rows_accuracy_minus_the_columns():
    found = differences([marks(0.5), marks(0.9)])
    assert found.accuracy[1, 0] == pytest.approx(0.4, abs=0.03)
    assert found.accuracy[0, 1] == -found.accuracy[1, 0]


def test_where_nothing_varies_the_interval_has_no_width():
    right = np.ones((3, N), dtype=bool)
    found = differences([~right, right])
    assert found.half_widths.tolist() == [[0, 0], [0, 0]]
    assert found.p_values.tolist() == [[1, 0], [0, 1]]


def test_clear_winner_ranks_first_and_clear_loser_last():
    assert ranks([marks(0.5), marks(0.9), marks(0.7)]) == [3, 1, 2]


def test_equal_methods_share_a_rank():
    assert ranks([marks(0.7, 1), marks(0.7, 1), marks(0.4)]) == [1, 1, 3]


def test_difference_within_noise_is_a_tie():
    close = [marks(0.700, 1), marks(0.705, 2), marks(0.3)]
    assert close[0].mean() != close[1].mean()
    assert ranks(close) == [1, 1, 3]


def test_perfect_beats_hopeless_although_nothing_varies():
    right = np.ones((3, N), dtype=bool)
    assert ranks([~right, right, right]) == [3, 1, 1]


def test_a_small_difference_on_the_same_images_is_found_because_images_are_paired():
    better = np.repeat(marks(0.6, 1)[:1], 3, axis=0)
    worse = better.copy()
    worse[:, np.flatnonzero(better[0])[:40]] = False  # 2% of the images, lost by every seed
    assert ranks([worse, better]) == [2, 1]


def test_seeds_that_differ_more_than_methods_make_a_tie():
    # on 2,000 images the means, 60 and 64, differ by far more than images explain; the seeds range over 20 points
    def spread(center: float, *keys: int) -> np.ndarray:
        return np.concatenate([marks(center + shift, *keys, seeds=1) for shift in (-0.1, 0.0, 0.1)])

    assert ranks([spread(0.60, 1), spread(0.64, 2)]) == [1, 1]
    assert ranks([marks(0.60, 1), marks(0.64, 2)]) == [2, 1]


def test_method_with_a_collapsed_seed_does_not_share_the_first_rank():
    unstable = np.concatenate([marks(0.65, 1, seeds=2), marks(0.1, seeds=1)])
    assert ranks([marks(0.70), marks(0.5), unstable]) == [1, 2, 2]


def test_many_equal_methods_are_hardly_ever_told_apart():
    random = np.random.default_rng(0)
    false_winners = 0
    for _ in range(60):
        ease = random.normal(size=400)
        skill = random.normal(0, 0.1, size=(10, 3, 1))  # seeds that differ by about 3 points
        correct = list(ease + skill + random.normal(size=(10, 3, 400)) > 0)
        false_winners += max(ranks(correct)) > 1
    assert false_winners <= 6  # 5% of 60 is 3; more than 6 has a chance of 3% at that rate


def test_methods_may_have_different_numbers_of_seeds():
    assert ranks([marks(0.9, seeds=5), marks(0.5, seeds=2)]) == [1, 2]


def test_a_single_method_is_first():
    assert ranks([marks(0.5)]) == [1]
