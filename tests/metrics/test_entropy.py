"""Entropy of shares, in bits."""

import numpy as np
import pytest
from outlier_features.metrics.entropy import entropy


def test_even_shares_have_the_logarithm_of_their_number_and_a_whole_has_none() -> None:
    assert entropy(np.full(8, 1 / 8)) == pytest.approx(3)
    assert entropy(np.array([1.0, 0.0])) == 0
    assert entropy(np.array([2, 1, 1, 0])) == pytest.approx(1.5)
    assert np.isnan(entropy(np.zeros(3)))
