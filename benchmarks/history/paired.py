"""Two versions, timed in pairs: the median of the ratios, its confidence interval, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np
from scipy.stats import binom

CONFIDENCE = 0.99


class Verdict(Enum):
    """What the interval of a ratio says, beside a margin."""

    SLOWER = "slower"
    SAME = "same"
    FASTER = "faster"


@dataclass(frozen=True)
class Ratio:
    """Time of the new version over the old one's.

    Attributes
    ----------
    median, low, high
        Of the ratios of the pairs, and the ends of its confidence interval.
    """

    median: float
    low: float
    high: float

    def verdict(self, margin: float) -> Verdict:
        """Slower (faster) where the whole interval lies above 1 + margin (below 1/(1 + margin))."""
        if self.low > 1 + margin:
            return Verdict.SLOWER
        return Verdict.FASTER if self.high < 1 / (1 + margin) else Verdict.SAME


def least_pairs(confidence: float = CONFIDENCE) -> int:
    """Return how many pairs an interval needs: 2 · 2⁻ⁿ ≤ 1 − confidence."""
    return int(np.ceil(1 - np.log2(1 - confidence)))


def compare(old: Sequence[float], new: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """Return the median ratio new/old of pairs and the interval of the sign test.

    The k-th least and k-th greatest ratio enclose the median of whatever distribution the ratios have with
    probability 1 − 2 P(B < k), where B is binomial (n, ½); k is the greatest for which that is at least `confidence`.
    So k − 1 pairs can be arbitrarily wrong without moving an end of the interval out of the others.

    Parameters
    ----------
    old, new
        Times of the pairs, (n,).
    confidence
        Of the interval.

    Raises
    ------
    ValueError
        If the numbers of times differ, or there are fewer pairs than `least_pairs`.
    """
    ratios = np.sort(np.asarray(new, float) / np.asarray(old, float))
    n = len(ratios)
    if len(old) != len(new) or n < least_pairs(confidence):
        raise ValueError(f"{len(old)} and {len(new)} times: at least {least_pairs(confidence)} pairs are needed")
    k = _rank(n, confidence)
    return Ratio(float(np.median(ratios)), float(ratios[k - 1]), float(ratios[n - k]))


@cache
def _rank(n: int, confidence: float) -> int:
    return sum(2 * binom.cdf(below, n, 0.5) <= 1 - confidence for below in range(n // 2))
