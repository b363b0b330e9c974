"""The statistics of the slowdown: stretches with and without the profiler, side by side in time."""

import math
import statistics

PAIRS = 10  # of stretches in one run; a few less where switching takes long


def ratios(stretches):
    """[on / off] of each pair of neighbours; a stretch is (on, units, nanoseconds)."""
    found = []
    for one, two in zip(stretches[::2], stretches[1::2]):
        if bool(one[0]) == bool(two[0]):
            raise ValueError('two stretches of the same kind follow each other')
        on, off = (one, two) if one[0] else (two, one)
        found.append((on[2] / on[1]) / (off[2] / off[1]))
    return found


def binomial_tail(n, k):
    """P(X <= k) of a fair coin thrown n times."""
    return sum(math.comb(n, i) for i in range(k + 1)) / 2.0 ** n


def median_interval(values, confidence=0.95):
    """(median, low, high): order statistics, which assume nothing of the distribution.

    With fewer than six values no interval of 95 % exists: low and high are None then.
    """
    ordered = sorted(values)
    n = len(ordered)
    rank = -1  # the interval is ordered[rank], counted from either end
    while binomial_tail(n, rank + 1) <= (1 - confidence) / 2:
        rank += 1
    middle = statistics.median(ordered)
    if rank < 0:
        return middle, None, None
    return middle, ordered[rank], ordered[n - 1 - rank]
