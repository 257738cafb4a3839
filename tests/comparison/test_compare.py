"""What moved between two runs, from summaries written by hand: every difference and verdict is known."""

import math

import numpy as np
import pandas as pd
import pytest
from outlier_features.comparison.compare import COLUMNS, Verdict, compare, difference
from outlier_features.comparison.recorded_run import Run
from outlier_features.metrics.intervals import Estimate
from recorded_runs import ORIGIN, interval, row, run, verdict

# --- the criterion -------------------------------------------------------------------------------------------------


def test_the_interval_of_a_difference_adds_the_distances_to_the_ends_in_quadrature():
    found = difference(Estimate(10.0, 7.0, 12.0), Estimate(20.0, 15.0, 24.0))
    assert (found.value, found.low, found.high) == (-10, -10 - math.hypot(3, 4), -10 + math.hypot(2, 5))


@pytest.mark.parametrize("side", [0, 1])
def test_a_difference_has_no_interval_where_a_value_has_none(side):
    pair = [Estimate(1.0, 0.0, 2.0), Estimate(5.0, 4.0, 6.0)]
    pair[side] = Estimate(pair[side].value, math.nan, math.nan)
    found = difference(*pair)
    assert found.value == -4
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def beyond(correlation, pairs=20_000):
    """Return how often two normal means of one expectation, so correlated, are beyond each other's intervals."""
    noise = np.random.default_rng(0).multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], pairs)
    half = 1.959964
    found = [difference(*(Estimate(value, value - half, value + half) for value in pair)) for pair in noise]
    return np.mean([not each.low <= 0 <= each.high for each in found])


def test_of_independent_samples_without_a_difference_one_in_twenty_is_beyond():
    assert beyond(0.0) == pytest.approx(0.05, abs=0.006)


def test_of_samples_that_vary_together_fewer_are_beyond():
    assert beyond(0.8) < 0.001


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_a_run_against_itself_has_nothing_that_moved():
    found = compare(run(row("a"), row("b")), run(row("a"), row("b")))
    assert set(found.rows["verdict"]) == {Verdict.SAME}
    assert found.warnings == ()
    assert list(found.rows) == list(COLUMNS)


def test_a_row_holds_both_values_their_intervals_and_those_of_the_difference():
    found = compare(run(row(**interval(40, 60))), run(row(**interval(30, 40)))).rows
    layers = found[found["quantity"] == "mean_layer_pct"].iloc[0]
    assert (layers["label"], layers["definition"]) == ("A", "arb8020")
    assert list(layers["value":"difference"]) == [50, 40, 60, 35, 30, 40, 15]
    assert layers["difference_low"] == pytest.approx(15 - math.hypot(10, 5))
    assert layers["difference_high"] == pytest.approx(15 + math.hypot(10, 5))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (interval(40, 60), Verdict.SAME),
        (interval(40 + 1e-6, 60 + 1e-6), Verdict.SAME),
        (interval(50, 70), Verdict.WITHIN),
        (interval(54.1, 74.1), Verdict.WITHIN),  # 14.1 is less than 10 in quadrature with 10
        (interval(54.2, 74.2), Verdict.BEYOND),
        (interval(25, 75) | {"mean_layer_pct": 60.0}, Verdict.WITHIN),
        ({"mean_layer_pct": math.nan, "mean_layer_pct_low": math.nan, "mean_layer_pct_high": math.nan}, "no value"),
        (interval(54.2, 74.2) | {"mean_layer_pct_low": math.nan}, Verdict.NO_INTERVAL),
    ],
)
def test_what_moved_is_within_the_interval_or_beyond_it(other, expected):
    assert verdict(compare(run(row()), run(row(**other))), "mean_layer_pct") == expected
    assert verdict(compare(run(row(**other)), run(row())), "mean_layer_pct") == expected


def test_what_neither_run_knows_has_not_moved():
    blank = dict.fromkeys(("mean_layer_pct", "mean_layer_pct_low", "mean_layer_pct_high"))
    assert verdict(compare(run(row(**blank)), run(row(**blank))), "mean_layer_pct") == Verdict.SAME


def test_intervals_without_width_call_any_difference_beyond():
    this, other = (row(**interval(value, value)) for value in (1, 2))
    assert verdict(compare(run(this), run(other)), "mean_layer_pct") == Verdict.BEYOND


def test_kurtosis_has_no_interval_so_it_moved_and_no_more_is_said():
    found = compare(run(row()), run(row(kurtosis_max=51.0)))
    assert verdict(found, "kurtosis_max") == Verdict.NO_INTERVAL
    assert found.count(Verdict.NO_INTERVAL) == 1


def test_what_no_definition_enters_is_compared_once_a_model():
    definitions = ("arb8020", "llm_int8", "llm_int8_rms")
    rows = compare(run(*(row("a", name) for name in definitions)), run(*(row("a", name) for name in definitions))).rows
    counts = rows.groupby("quantity").size()
    assert counts["outlier_count"] == 3
    assert counts["perplexity"] == 1
    assert rows[rows["quantity"] == "perplexity"]["definition"].isna().all()


def test_rows_keep_the_order_of_this_run():
    found = compare(run(row("b"), row("a")), run(row("a"), row("b"), row("c")))
    assert list(found.rows["model"].unique()) == ["b", "a", "c"]


# --- what cannot be compared ---------------------------------------------------------------------------------------


def test_models_and_definitions_of_one_run_are_named_and_not_compared():
    this = run(row("a"), row("a", "strict"), row("mine"))
    other = run(row("a"), row("theirs"))
    found = compare(this, other)
    assert found.warnings == (
        "Only in this run: model mine.",
        "Only in the other run: model theirs.",
        "Only in this run: definition strict.",
    )
    one_sided = found.rows[found.rows["verdict"] == Verdict.ONE_SIDE]
    assert set(one_sided["model"]) == {"a", "mine", "theirs"}
    assert set(one_sided[one_sided["model"] == "a"]["definition"]) == {"strict"}


def test_runs_without_a_model_in_common_say_so():
    found = compare(run(row("a")), run(row("b")))
    assert found.warnings[0] == "The runs have no model in common, so there is nothing to compare."
    assert set(found.rows["verdict"]) == {Verdict.ONE_SIDE}


def test_an_empty_summary_is_a_run_without_models():
    empty = Run(pd.DataFrame(columns=list(row())), ORIGIN)
    assert "no model in common" in compare(run(row()), empty).warnings[0]
    assert compare(empty, empty).rows.empty
