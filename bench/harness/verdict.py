"""The result of the rounds: the median of their ratios, and its confidence interval."""

import math, statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`low` and `high` bound the median with 95 % confidence; they are None with fewer than six rounds."""

    median: float
    low: float | None
    high: float | None
    word: str


def judge(ratios, limit):
    """The median must be at most `limit`; the verdict is certain if it holds for the whole interval."""
    median = statistics.median(ratios)
    low, high = interval(ratios)
    if limit is None:
        word = "no limit"
    elif median <= limit:
        word = "met, certain" if high is not None and high <= limit else "met"
    else:
        word = "missed, certain" if low is not None and low > limit else "missed"
    return Verdict(median, low, high, word)


def interval(values):
    """The order statistics that contain the median with at least 95 % confidence, for any distribution (binomial)."""
    ordered, count = sorted(values), len(values)
    rank, beyond = 0, 0.0
    while beyond + 2 * math.comb(count, rank) / 2**count <= 0.05:
        beyond += 2 * math.comb(count, rank) / 2**count
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else (None, None)
