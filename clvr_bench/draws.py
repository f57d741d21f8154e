"""Random numbers keyed by (seed, purpose, epoch, sample): alike for any batch, rank and device, with no state to save.

Every number is a hash of its key (the SplitMix64 finalizer, Steele et al. 2014, https://doi.org/10.1145/2714064.2660195),
so a sample's draws do not depend on the samples beside it and a resumed run repeats them exactly.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)
_MANTISSA = 24  # float32 holds 24 bits exactly, so a uniform draw is the same number on every device


def key_of(*parts: object) -> int:
    """Hash any printable parts into a signed 64-bit key, the same in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Apply SplitMix64's finalizer to int64 values, which wrap as unsigned ones do."""
    z = (z ^ _shift(z, 30)).mul_(_FIRST)
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_SECOND)
    return z.bitwise_xor_(_shift(z, 31))


class Draws:
    """A stream of per-sample random numbers for one purpose; each call gives fresh ones.

    Args:
        keys: (B,) int64, one a sample.
    """

    def __init__(self, keys: Tensor) -> None:
        self._keys = keys
        self._drawn = 0

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        counter = torch.arange(self._drawn + 1, self._drawn + count + 1, device=self._keys.device)
        self._drawn += count
        bits = _mix(self._keys[:, None] + counter * _GOLDEN)  # (B, count)
        return bits.view(-1, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw (B, *shape) float32 values, uniform in [low, high); rounding may give a ``high`` other than 1."""
        return _shift(self._bits(shape), 64 - _MANTISSA).float().mul_((high - low) / (1 << _MANTISSA)).add_(low)

    def normal(self, *shape: int) -> Tensor:
        """Draw (B, *shape) float32 values from the standard normal distribution (Box and Muller 1958)."""
        radius = (1 - self.uniform(*shape)).log_().mul_(-2).sqrt_()
        return self.uniform(*shape).mul_(2 * math.pi).cos_().mul_(radius)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw (B, *shape) int64 values, uniform in [0, high)."""
        return _shift(self._bits(shape), 1) % high

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Draw (B, *shape) booleans that are true with the given probability."""
        return self.uniform(*shape) < probability

    def permutation(self, n: int) -> Tensor:
        """Draw (B, n) int64: one permutation of 0..n-1 a sample."""
        return self._bits((n,)).argsort(dim=1)


class SampleRandom:
    """The random numbers of a batch of samples: ``random("crop")`` is the stream for one purpose.

    Args:
        keys: (B,) int64, one a sample.
    """

    def __init__(self, keys: Tensor) -> None:
        self._keys = keys

    @classmethod
    def keyed(cls, seed: int, epoch: int, samples: Tensor) -> SampleRandom:
        """Key each sample by the run's seed, the epoch and its own number.

        Args:
            seed: The run's seed.
            epoch: Counted from 0.
            samples: (B,) int64 sample numbers; draws are made on their device.
        """
        return cls(_mix(samples * _GOLDEN + key_of(seed, epoch)))

    def __getitem__(self, part: slice) -> SampleRandom:
        """Return the streams of some of the samples."""
        return SampleRandom(self._keys[part])

    def __call__(self, purpose: str) -> Draws:
        """Open the stream of one purpose; the same purpose always gives the same numbers."""
        return Draws(_mix(self._keys ^ key_of(purpose)))

    def scoped(self, purpose: str) -> SampleRandom:
        """Split off an independent family of streams, such as one a view."""
        return SampleRandom(_mix(self._keys + key_of("scope", purpose)))
