"""Exact sums: parts add up to the sum that rational numbers give, in any order and in any grouping."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from outlier_features.exact_sums import add


def total(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    high, low = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for row in values:
        high, low = add(high, low, row, np.zeros_like(row))
    return high, low


@pytest.mark.parametrize("seed", range(5))
def test_a_sum_is_that_of_rational_numbers_in_any_grouping(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.lognormal(0, 2, (37, 20)) * generator.choice([1e-2, 1.0, 1e2], (37, 1))
    exact = [sum(map(Fraction, values[:, c])) for c in range(20)]
    whole = total(values)
    assert whole[0].tolist() == [float(value) for value in exact]
    assert [Fraction(high) + Fraction(low) for high, low in zip(*whole, strict=True)] == exact
    parts = [total(part) for part in np.array_split(values[generator.permutation(37)], 4)]
    merged = parts[0]
    for part in parts[1:]:
        merged = add(*merged, *part)
    np.testing.assert_array_equal(merged, whole)


def test_arrays_tensors_and_numbers_add_up_alike() -> None:
    high, low = add(1.0, 0.0, 1e-17, 0.0)
    assert (high, low) == (1.0, 1e-17)
    tensors = add(*(torch.tensor([x], dtype=torch.float64) for x in (1.0, 0.0, 1e-17, 0.0)))
    assert [x.item() for x in tensors] == [1.0, 1e-17]
