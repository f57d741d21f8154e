from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clvr_bench.draws import Draws, SampleRandom, key_of

MANY = 20_000
CLOSE = 5 / math.sqrt(MANY)  # five standard errors of a mean, in standard deviations


def keyed(seed: int = 0, epoch: int = 0, samples: int = MANY) -> SampleRandom:
    return SampleRandom.keyed(seed, epoch, torch.arange(samples))


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def naive_uniform(seed: int, epoch: int, sample: int, purpose: str, count: int) -> list[float]:
    """Draw with Python's whole numbers, modulo 2**64, as Steele et al. 2014 print the generator."""
    gamma = 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z %= 1 << 64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % (1 << 64)
        return z ^ (z >> 31)

    key = mix(sample * gamma + key_of(seed, epoch))
    state = mix(key ^ key_of(purpose) % (1 << 64))
    return [(mix(state + step * gamma) >> 40) / (1 << 24) for step in range(1, count + 1)]


def test_a_key_is_the_same_in_every_process() -> None:
    assert key_of("val") == 7431694032825702374
    assert key_of(0, "encoder") == 8834651387508379433


def test_a_key_tells_its_parts_apart() -> None:
    keys = [key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("c", "ab"), key_of("ab", "c", "")]
    assert len(set(keys)) == len(keys)


def test_keys_are_signed_64_bit_numbers_of_both_signs() -> None:
    keys = [key_of(number) for number in range(100)]
    assert all(-(1 << 63) <= key < 1 << 63 for key in keys)
    assert 25 < sum(key < 0 for key in keys) < 75


def test_draws_are_those_of_splitmix64() -> None:
    draws = SampleRandom.keyed(1, 2, torch.tensor([3, 4]))("crop").uniform(2)
    assert draws.tolist() == [naive_uniform(1, 2, sample, "crop", count=2) for sample in (3, 4)]


def test_uniform_draws_fill_their_range_evenly() -> None:
    draws = keyed()("crop").uniform()
    assert draws.dtype == torch.float32
    assert (draws.min() >= 0, draws.max() < 1) == (True, True)
    assert draws.mean().item() == pytest.approx(1 / 2, abs=CLOSE * 12**-0.5)
    counts = draws.mul(20).long().bincount(minlength=20)
    assert ((counts - MANY / 20).abs() < 5 * (MANY / 20) ** 0.5).all()


def test_uniform_draws_are_scaled_to_their_bounds() -> None:
    unit, scaled = keyed()("crop").uniform(3), keyed()("crop").uniform(3, low=-2, high=6)
    torch.testing.assert_close(scaled, unit * 8 - 2, rtol=0, atol=1e-5)


def test_draws_have_a_row_for_every_sample() -> None:
    draws = keyed(samples=5)("crop")
    assert draws.uniform().shape == (5,)
    assert draws.uniform(2, 3).shape == (5, 2, 3)
    assert draws.normal(4).shape == (5, 4)
    assert draws.integers(9, 2).shape == (5, 2)
    assert draws.chance(0.5).shape == (5,)


def test_a_second_call_of_a_stream_draws_afresh() -> None:
    draws = keyed()("crop")
    assert abs(correlation(draws.uniform(), draws.uniform())) < CLOSE


def test_two_calls_draw_what_one_call_would() -> None:
    parts, whole = keyed(samples=9)("crop"), keyed(samples=9)("crop")
    assert torch.equal(torch.cat([parts.uniform(2), parts.uniform(3)], dim=1), whole.uniform(5))


def test_opening_a_purpose_again_repeats_its_draws() -> None:
    random = keyed(samples=9)
    assert torch.equal(random("crop").uniform(4), random("crop").uniform(4))


@pytest.mark.parametrize(
    "other",
    [
        keyed()("flip"),
        keyed(epoch=1)("crop"),
        keyed(seed=1)("crop"),
        keyed().scoped("view0")("crop"),
        keyed().scoped("crop")("crop"),
        SampleRandom.keyed(0, 0, torch.arange(1, MANY + 1))("crop"),
    ],
    ids=["purpose", "epoch", "seed", "scope", "scope_of_that_name", "next_sample"],
)
def test_streams_are_independent(other: Draws) -> None:
    ours, theirs = keyed()("crop").uniform(), other.uniform()
    assert (ours == theirs).float().mean() < 1e-3
    assert abs(correlation(ours, theirs)) < CLOSE


def test_scopes_are_independent_of_each_other() -> None:
    first, second = (keyed().scoped(name)("crop").uniform() for name in ("view0", "view1"))
    assert abs(correlation(first, second)) < CLOSE


def test_a_scope_within_a_scope_depends_on_both() -> None:
    streams = [("a", "b"), ("b", "a"), ("a", "a"), ("b", "b")]
    drawn = {keyed(samples=1).scoped(outer).scoped(inner)("crop").uniform().item() for outer, inner in streams}
    assert len(drawn) == 4


def test_samples_and_draws_do_not_repeat() -> None:
    bits = keyed(samples=1000)("crop")._bits((100,))
    assert len(bits.unique()) == 100_000


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20), st.integers(-(1 << 31), 1 << 31))
def test_a_samples_draws_do_not_depend_on_its_batch(samples: list[int], seed: int) -> None:
    together = SampleRandom.keyed(seed, 3, torch.tensor(samples)).scoped("view1")("crop").uniform(2)
    alone = [SampleRandom.keyed(seed, 3, torch.tensor([s])).scoped("view1")("crop").uniform(2) for s in samples]
    assert torch.equal(together, torch.cat(alone))


def test_normal_draws_have_the_moments_of_the_standard_normal() -> None:
    draws = keyed()("noise").normal()
    assert draws.isfinite().all()
    assert draws.mean().item() == pytest.approx(0, abs=CLOSE)
    assert draws.var().item() == pytest.approx(1, abs=CLOSE * 2**0.5)
    assert draws.pow(3).mean().item() == pytest.approx(0, abs=CLOSE * 15**0.5)
    assert draws.pow(4).mean().item() == pytest.approx(3, abs=CLOSE * 96**0.5)


def test_normal_draws_are_finite_at_the_ends_of_the_uniform_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (0, -1):  # the least and the greatest uniform draw
        monkeypatch.setattr(Draws, "_bits", lambda self, shape, bits=bits: torch.full((2, *shape), bits))
        assert keyed(samples=2)("noise").normal(3).isfinite().all()


def test_integers_are_evenly_spread_below_their_bound() -> None:
    counts = keyed()("jigsaw").integers(7).bincount(minlength=7)
    assert len(counts) == 7
    assert ((counts - MANY / 7).abs() < 5 * (MANY / 7) ** 0.5).all()


@pytest.mark.parametrize("probability", [0.2, 0.8])
def test_chance_is_true_as_often_as_it_says(probability: float) -> None:
    drawn = keyed()("flip").chance(probability)
    assert drawn.dtype == torch.bool
    spread = (probability * (1 - probability)) ** 0.5
    assert drawn.float().mean().item() == pytest.approx(probability, abs=CLOSE * spread)


def test_chance_is_never_or_always_at_its_ends() -> None:
    assert not keyed()("flip").chance(0.0).any()
    assert keyed()("flip").chance(1.0).all()


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_permutation_has_every_number_once(n: int, seed: int) -> None:
    drawn = keyed(seed=seed, samples=6)("jigsaw").permutation(n)
    assert drawn.sort(dim=1).values.tolist() == [list(range(n))] * 6


def test_all_permutations_are_equally_likely() -> None:
    drawn = keyed()("jigsaw").permutation(3)
    counts = (drawn @ torch.tensor([9, 3, 1])).unique(return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - MANY / 6).abs() < 5 * (MANY / 6) ** 0.5).all()
