"""Counter-based random numbers: draw k of image i is a pure function of (key, i, k).

Every image owns a SplitMix64 stream (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") whose
start is a hash of the key and the image's index. No state is carried between images, so an image is the same alone, in
a batch and in any order; integer arithmetic only, so it is the same on every platform and NumPy release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_LANES = np.uint64(0x00FF00FF00FF00FF)
_EIGHT = np.uint64(8)


def mix64(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 that spreads every input bit; a new array of the same shape."""
    z = x ^ (x >> _S30)
    z *= _M1
    z ^= z >> _S27
    z *= _M2
    z ^= z >> _S31
    return np.asarray(z)


def key_of(*parts: object) -> int:
    """A 64-bit key from words and numbers, the same on every platform and in every process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def streams(key: int, indices: np.ndarray) -> np.ndarray:
    """Start state (N,) uint64 of the stream of every index (N,)."""
    i = np.asarray(indices).astype(np.uint64)
    return mix64(mix64(i * GOLDEN + GOLDEN) ^ np.uint64(key))


class Draws:
    """Scalar draws for N images at once; each call consumes the same columns of every image's stream."""

    def __init__(self, key: int, indices: np.ndarray) -> None:
        self._state = streams(key, indices)

    def __len__(self) -> int:
        return len(self._state)

    def unit(self) -> np.ndarray:
        """(N,) float64 uniform in [0, 1), 53 bits."""
        self._state = self._state + GOLDEN
        return (mix64(self._state) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(self, low: float, high: float) -> np.ndarray:
        return low + (high - low) * self.unit()

    def normal(self, sd: float = 1.0) -> np.ndarray:
        """Near-Gaussian with standard deviation `sd`: the sum of four uniforms, so never beyond 3.5 sd."""
        total = self.unit() + self.unit() + self.unit() + self.unit()
        return np.asarray((total - 2.0) * (sd * 1.7320508075688772))

    def chance(self, p: float | np.ndarray) -> np.ndarray:
        """(N,) bool, True with probability p."""
        return self.unit() < p

    def choice(self, weights: Sequence[float]) -> np.ndarray:
        """(N,) int64 in 0..len(weights)-1 with the given relative weights."""
        total = float(sum(weights))
        u = self.unit()
        picked = np.zeros(len(self), np.int64)
        edge = 0.0
        for weight in weights[:-1]:
            edge += weight / total
            picked += u >= edge
        return picked


def pixel_noise(key: int, indices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two independent near-Gaussian fields of unit variance, (N, count) float32 each, one 64-bit hash per pixel.

    Each value is the sum of four random bytes.
    """
    step = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
    bits = mix64(streams(key, indices)[:, None] + step)
    pairs = (bits & _LANES) + ((bits >> _EIGHT) & _LANES)
    pairs = pairs + (pairs >> np.uint64(16))  # lanes 0 and 2 now hold sums of four bytes, below 2**16
    scale = np.float32(1.0 / 147.8)  # sd of the sum of four bytes
    first = (pairs & np.uint64(0xFFFF)).astype(np.float32)
    second = ((pairs >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.float32)
    first -= 510.0
    first *= scale
    second -= 510.0
    second *= scale
    return first, second
