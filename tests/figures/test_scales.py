"""Scales: ticks are round numbers inside their axis, whatever it spans."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from outlier_features.figures import scales


@pytest.mark.parametrize(
    ("blocks", "ticks"),
    [(1, [0]), (3, [0, 1, 2]), (28, [0, 5, 10, 15, 20, 25]), (96, list(range(0, 96, 10)))],
)
def test_ticks_of_blocks_are_blocks(blocks: int, ticks: list[int]) -> None:
    assert scales.block_ticks(blocks) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1000, [1, 10, 100, 1000]),
        (1, 20, [1, 2, 5, 10, 20]),
        (2, 6, [2, 3, 5]),
        (41, 58, [42, 44, 46, 48, 50, 52, 54, 56, 58]),
    ],
)
def test_a_logarithmic_axis_has_powers_of_ten_or_more_numbers_where_those_are_few(low, high, ticks) -> None:
    found = [tick for tick in scales.round_numbers(low, high) if tick <= high]
    assert found == pytest.approx(ticks)


def test_a_place_below_an_axis_is_that_share_of_its_length_away() -> None:
    assert scales.below(10, 30, "linear", 0.5) == 0
    assert scales.below(10, 1000, "log", 0.5) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "ends"), [([6.0, 6.0], (5, 10)), ([0.3, 1200.0], (0.2, 2000)), ([20.0, 50.0], (20, 100)), ([], (1, 5))]
)
def test_magnitudes_end_at_round_numbers_around_their_values(values: list[float], ends: tuple[float, float]) -> None:
    found = scales.magnitudes(pd.Series(values, dtype=float))
    assert (found.vmin, found.vmax) == pytest.approx(ends)


def test_ticks_are_thinned_evenly_and_written_in_full() -> None:
    figure, axes = plt.subplots()
    scales.write_values(axes, [1, 10, 100, 1000, 10_000], most=3)
    assert list(axes.yaxis.get_major_locator()()) == [1, 100, 10_000]
    assert axes.yaxis.get_major_formatter()(10_000) == "10,000"
    plt.close(figure)


def test_a_single_value_gets_an_axis_with_air_around_it() -> None:
    figure, axes = plt.subplots()
    scales.set_decades(axes, 7.0, 7.0, air=0.1)
    assert axes.get_ylim() == pytest.approx((7 / 1.15, 7 * 1.15))
    assert axes.get_yscale() == "log"
    plt.close(figure)
