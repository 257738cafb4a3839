"""Exact sums: a float64 sum with what its rounding left, so that parts add up to the same bits in any order."""

from typing import Any


def add(high: Any, low: Any, value_high: Any, value_low: Any) -> tuple[Any, Any]:
    """Return the sum of two sums, each `high + low`: float64 numbers, NumPy arrays or torch tensors alike.

    The sum is exact where its terms span less than 2^53, and `high` is it rounded to float64; beyond that it is within
    2^-104 (two-sum and fast two-sum: Knuth 1969, Dekker 1971).
    """
    total = high + value_high
    part = total - high
    rest = (high - (total - part)) + (value_high - part) + (low + value_low)
    rounded = total + rest
    return rounded, rest - (rounded - total)
