"""Decibels of scalars and arrays, and where there is no error or no number."""

import numpy as np
import pytest
from outlier_features.metrics.decibels import decibels


def test_a_ratio_in_decibels() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert decibels(2.0, 4.0) == pytest.approx(-3.0103)
    np.testing.assert_allclose(decibels(np.array([1.0, 10.0]), 1.0), [0, 10])


def test_nothing_lost_is_infinite_and_no_number_is_none() -> None:
    assert decibels(0.0, 0.0) == decibels(1.0, 0.0) == np.inf
    assert decibels(0.0, 1.0) == -np.inf
    assert np.isnan(decibels(1.0, np.nan))
    assert np.isnan(decibels(np.nan, 1.0))
