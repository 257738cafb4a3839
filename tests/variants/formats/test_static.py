"""The frozen range of w8a8_static: percentiles of each calibration window, a running mean, 0 inside."""

import fake_quantisation
import numpy as np
import pytest
import torch
from operands import assert_rounded, kinds
from outlier_features.errors import ConfigError
from outlier_features.variants.formats.static import StaticRange


def learnt(windows: list[np.ndarray]) -> StaticRange:
    found = StaticRange().begin()
    for window in windows:
        found.learn(torch.from_numpy(window))
    return found


@pytest.mark.parametrize("names", [("normal",), ("heavy", "planted", "first row"), ("positive", "positive")])
def test_the_ends_are_those_of_definitions(names: tuple[str, ...]) -> None:
    windows = [kinds()[name] for name in names]
    found = learnt(windows)
    low, high = fake_quantisation.ranges([window.astype(np.float64) for window in windows])
    assert found.ends == pytest.approx((low, high), rel=1e-6)
    x = kinds()["planted"]
    exact = fake_quantisation.static(x.astype(np.float64), *found.ends)
    assert_rounded(found.round_trip(torch.from_numpy(x), torch.from_numpy(x)), exact, x)


def test_each_matrix_input_learns_its_own() -> None:
    one = StaticRange()
    one.learn(torch.ones(4))
    assert one.begin()._ends is None
    with pytest.raises(ConfigError, match="no calibration window"):
        one.begin().round_trip(torch.ones(2, 2), torch.ones(2, 2))


def test_a_window_without_values_and_one_of_zeros_are_taken() -> None:
    found = learnt([np.zeros((3, 4), np.float32), np.zeros((0, 4), np.float32)])
    assert found.round_trip(torch.ones(1, 4), torch.ones(1, 4)).tolist() == [[0, 0, 0, 0]]
