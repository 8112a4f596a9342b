"""Random numbers that are functions of what they are for, whole arrays at a time."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Keys = NDArray[np.uint64]


def name_key(name: str) -> int:
    """A name as a number in [0, 2^64)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def uniform(*keys: Keys | int) -> NDArray[np.float64]:
    """Numbers uniform in (0, 1), of the shape to which `keys` broadcast.

    The same keys give the same numbers, so a number depends on what it is for, and not on how many
    were drawn before.
    """
    mixed = np.zeros(1, dtype=np.uint64)
    for key in keys:
        mixed = _mix(mixed ^ np.asarray(key, dtype=np.uint64))
    # A float has 53 bits. Half a unit keeps 0 and 1 out, where `normal` is infinite.
    bits = (mixed >> np.uint64(11)).astype(np.float64)
    return (bits + 0.5) * 2.0**-53


def normal(*keys: Keys | int) -> NDArray[np.float64]:
    """The same, from the standard normal distribution."""
    return ndtri(uniform(*keys))


def _mix(x: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of `x` changes every bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
