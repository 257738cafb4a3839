"""Quantities of the summary: their words stand once, and values are written with the decimals they deserve."""

import math

import numpy as np
import pandas as pd
import pytest
from outlier_features.experiment.quantities import QUANTITIES, Written, significant_places
from outlier_features.metrics.intervals import Estimate


@pytest.mark.parametrize(
    ("value", "places"), [(0.0, 0), (0.00236, 5), (0.986, 3), (1.0, 2), (22.7, 1), (374.2, 0), (1e6, 0), (np.inf, 0)]
)
def test_three_digits_are_significant(value: float, places: int) -> None:
    assert significant_places(value) == places


@pytest.mark.parametrize(
    ("column", "value", "low", "high", "expected"),
    [
        ("outlier_count", 9212, 9000.4, 9400.0, Written("9,212", "9,000", "9,400")),
        ("mean_layer_pct", 32.14, 28.04, 36.46, Written("32.1", "28.0", "36.5")),
        ("mean_layer_pct", 100.0, math.nan, math.nan, Written("100.0")),
        ("perplexity", 18.236, 17.0, 19.04, Written("18.2", "17.0", "19.0")),
        ("perplexity", 13580.4, 13200.0, math.nan, Written("13,580")),
        ("bits_per_byte", 0.98623, 0.9, 1.0, Written("0.986", "0.900", "1.000")),
        ("total_params", 134_515_008, math.nan, math.nan, Written("134.5M")),
    ],
)
def test_a_value_and_its_interval_have_the_decimals_of_the_value(
    column: str, value: float, low: float, high: float, expected: Written
) -> None:
    assert QUANTITIES[column].written(Estimate(value, low, high)) == expected
    row = {column: value, f"{column}_low": low, f"{column}_high": high}
    assert QUANTITIES[column].cell(row) == QUANTITIES[column].cell(pd.Series(row)) == expected


@pytest.mark.parametrize("blank", [None, math.nan, pd.NA])
def test_what_is_not_known_is_not_written(blank: object) -> None:
    assert QUANTITIES["mean_layer_pct"].cell({"mean_layer_pct": blank}) is None
    assert QUANTITIES["perplexity"].cell({}) is None


def test_two_values_are_set_beside_each_other_with_the_same_decimals() -> None:
    perplexity = QUANTITIES["perplexity"]
    assert [perplexity.written(Estimate(value), places=0) for value in (1234.5, 9.87)] == [
        Written("1,234"),
        Written("10"),
    ]


def test_an_interval_stands_in_brackets() -> None:
    assert Written("53.2", "52.2", "54.3").joined() == "53.2 (52.2-54.3)"
    assert Written("53.2", "52.2", "54.3").joined("\n", "\N{EN DASH}") == "53.2\n(52.2\N{EN DASH}54.3)"
    assert Written("53.2").joined() == "53.2"
