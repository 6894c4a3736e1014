"""What the rounds prove: the median of their ratios, and how sure that is."""

import math, statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """`low` and `high` bound the median with 95 % confidence; they are missing with fewer than six rounds."""

    median: float
    low: float | None
    high: float | None
    word: str


def judge(ratios, limit):
    """At most `limit` is asked of the median; certain is what the whole interval agrees with."""
    median = statistics.median(ratios)
    low, high = interval(ratios)
    if limit is None:
        word = "no line"
    elif median <= limit:
        word = "met, certain" if high is not None and high <= limit else "met"
    else:
        word = "missed, certain" if low is not None and low > limit else "missed"
    return Verdict(median, low, high, word)


def interval(values):
    """The order statistics between which the median lies with at least 95 %, whatever the values' distribution (binomial)."""
    ordered, count = sorted(values), len(values)
    rank, beyond = 0, 0.0
    while beyond + 2 * math.comb(count, rank) / 2**count <= 0.05:
        beyond += 2 * math.comb(count, rank) / 2**count
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else (None, None)
