"""What moved between two runs, from summaries written by hand: every difference and verdict is known."""

import math

import numpy as np
import pandas as pd
import pytest
from outlier_features.artefacts.tables import write_table
from outlier_features.comparison.compare import COLUMNS, QUANTITIES, Verdict, compare, difference
from outlier_features.comparison.recorded_run import Run
from outlier_features.errors import ConfigError
from outlier_features.metrics.intervals import Estimate

ORIGIN = {
    "lineage": {"summary": "aaa", "reduction a": "1", "reduction b": "2", "perplexity a": "3", "perplexity b": "4"},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}
LOSSES = {"perplexity", "bits_per_byte"}
SUMS = {"outlier_count", "distinct_channels", "massive_count"}
OF_A_DEFINITION = {"outlier_count", "distinct_channels", "stable_channels", "mean_layer_pct", "mean_position_pct"}


def row(model="a", definition="arb8020", **columns):
    """Return a row of a summary; every value with an interval is 50 (40-60)."""
    values = {"model": model, "label": model.upper(), "kind": "dense", "hub": None, "total_params": 1_000_000}
    values |= {"corpus": "sotu", "sequences": 16, "length": 512, "windows": "packed", "windows_digest": "f00d"}
    values |= {"definition": definition, "threshold": 6.0, "dtype": "float32"}
    values |= {"min_layers": 0.25, "min_positions": 0.06, "scope": "sequence", "sites": "attn_in+mlp_in"}
    values |= {"rounding": "bfloat16", "interval_note": None}
    for quantity in QUANTITIES:
        values[quantity.column] = 50.0
        if quantity.column not in ("kurtosis_max", "massive_count"):
            values |= {f"{quantity.column}_low": 40.0, f"{quantity.column}_high": 60.0}
    return values | columns


def run(*rows, origin=ORIGIN):
    return Run(pd.DataFrame(rows), origin)


def verdict(comparison, quantity, model="a"):
    rows = comparison.rows
    (found,) = rows[(rows["quantity"] == quantity) & (rows["model"] == model)]["verdict"]
    return found


def interval(low, high, name="mean_layer_pct"):
    return {name: (low + high) / 2, f"{name}_low": low, f"{name}_high": high}


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


@pytest.mark.parametrize(
    ("condition", "sentence", "spoilt"),
    [
        ({"corpus": "fineweb"}, "Different corpus (model a): sotu in this run, fineweb in the other. ", LOSSES),
        (
            {"length": 2048},
            "Different window length (model a): 512 in this run, 2,048 in",
            {*LOSSES, "massive_count"},
        ),
        ({"windows": "arb8020"}, "Different way to cut windows (model a): packed in this run, arb8020", LOSSES),
        ({"sequences": 64}, "Different number of sequences (model a): 16 in this run, 64 in the other. ", SUMS),
        (
            {"threshold": 7.5},
            "Different threshold (definition arb8020): 6 in this run, 7.5 in the other. ",
            OF_A_DEFINITION,
        ),
        ({"dtype": "bfloat16"}, "Different precision (model a): float32 in this run, bfloat16 in the other. ", set()),
        ({"windows_digest": "beef"}, "Different token ids of the windows (model a): f00d in this run, beef", set()),
        (
            {"hub": "org/name"},
            "Different source on the hub (model a): none in this run, org/name in the other. ",
            set(),
        ),
        ({"total_params": 2_000_000}, "Different parameters (model a): 1,000,000 in this run, 2,000,000", set()),
    ],
)
def test_conditions_that_differ_are_named_with_what_follows(condition, sentence, spoilt):
    moved = {quantity.column: 99.0 for quantity in QUANTITIES}
    found = compare(run(row()), run(row(**condition, **moved)))
    assert [warning for warning in found.warnings if warning.startswith(sentence)] == list(found.warnings)
    assert set(found.rows[found.rows["verdict"] == Verdict.NOT_COMPARABLE]["quantity"]) == spoilt


def test_other_windows_go_without_saying_where_the_corpus_is_another():
    (warning,) = compare(run(row()), run(row(corpus="fineweb", windows_digest="beef"))).warnings
    assert warning.startswith("Different corpus")


def test_what_is_equal_under_other_conditions_has_not_moved():
    assert compare(run(row()), run(row(sequences=64))).count(Verdict.NOT_COMPARABLE) == 0


def test_a_condition_that_differs_for_several_models_is_one_sentence():
    this = run(row("a"), row("a", "llm_int8"), row("b"), row("c"))
    other = run(
        row("a", dtype="bfloat16"), row("a", "llm_int8", dtype="bfloat16"), row("b", dtype="bfloat16"), row("c")
    )
    (warning,) = compare(this, other).warnings
    assert warning.startswith("Different precision (models a, b): ")
    (warning,) = compare(Run(this.summary[:3], ORIGIN), Run(other.summary[:3], ORIGIN)).warnings
    assert warning.startswith("Different precision (all 2 models): ")


def test_conditions_stand_beside_the_rows_they_concern():
    rows = compare(run(row()), run(row(threshold=7.0, dtype="bfloat16"))).rows.set_index("quantity")
    assert rows.loc["mean_layer_pct", "conditions"] == "precision, threshold"
    assert rows.loc["perplexity", "conditions"] == "precision"


def test_a_summary_from_before_the_corpus_was_written_down_is_compared_with_a_warning():
    old = Run(pd.DataFrame([row()]).drop(columns=["corpus", "windows_digest"]), ORIGIN)
    (warning,) = compare(run(row()), old).warnings
    assert warning.startswith(
        "The other run was summarised before the summary held corpus and token ids of the windows"
    )
    assert compare(run(row()), old).count(Verdict.SAME) == len(QUANTITIES)


def test_blank_integers_of_a_parquet_file_are_not_known():
    table = pd.DataFrame([row()]).astype({"outlier_count": "Int64"})
    table.loc[0, "outlier_count"] = pd.NA
    assert verdict(compare(Run(table, ORIGIN), run(row())), "outlier_count") == Verdict.NO_VALUE


def test_a_model_twice_under_one_definition_is_refused():
    with pytest.raises(ConfigError, match="the other run: two rows of a under arb8020"):
        compare(run(row()), run(row(), row()))


# --- where the runs come from --------------------------------------------------------------------------------------


def lineage(**changes):
    return {**ORIGIN, "lineage": ORIGIN["lineage"] | {name.replace("_", " "): value for name, value in changes.items()}}


def test_runs_of_one_lineage_say_so_and_what_else_can_have_moved_a_number():
    same = compare(run(row()), run(row())).origins
    assert same[-1] == "Both have the lineage aaa: the same code, settings and inputs."
    moved = compare(run(row()), run(row(kurtosis_max=51.0))).origins
    assert moved[-1].startswith("What moved then comes from what no lineage covers: ")


def test_artefacts_that_differ_are_named_and_the_cause_is_left_open():
    origin = lineage(summary="bbb", reduction_a="9", reduction_b="9", perplexity_b="9")
    lines = compare(run(row()), run(row(), origin=origin)).origins
    assert lines[-2] == "Lineages: aaa of this run, bbb of the other."
    assert "which of them cannot be told): reduction of a, b; perplexity of b." in lines[-1]


def test_another_list_of_models_alone_is_said_to_be_just_that():
    assert compare(run(row()), run(row(), origin=lineage(summary="bbb"))).origins[-1].startswith("No artefact of a mod")


def test_versions_that_differ_are_named():
    origin = ORIGIN | {"versions": {"python": "3.11.7", "torch": "2.14.0", "numpy": "2.4.6"}}
    (line,) = [line for line in compare(run(row()), run(row(), origin=origin)).origins if line.startswith("Versions")]
    assert line.endswith("torch 2.13.0 and 2.14.0, numpy none and 2.4.6.")


def test_a_summary_without_provenance_is_compared_and_named():
    lines = compare(run(row()), run(row(), origin={})).origins
    assert "The summary of the other run has no provenance, so what it was made from cannot be told." in lines


@pytest.mark.parametrize(("digest", "is_said"), [("f00d", True), ("beef", False), (None, False)])
def test_the_same_windows_are_said_to_be_the_same(digest, is_said):
    lines = compare(run(row("a"), row("b")), run(row("a"), row("b", windows_digest=digest))).origins
    assert ("Both were measured on the same windows, so no difference is one of text." in lines) == is_said


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_run_is_read_back_with_its_provenance(tmp_path):
    path = tmp_path / "summary.parquet"
    write_table(path, pd.DataFrame([row()]), ORIGIN)
    found = Run.read(path)
    assert found.origin == ORIGIN
    assert set(compare(found, run(row())).rows["verdict"]) == {Verdict.SAME}


def test_a_file_that_is_no_summary_is_one_line(tmp_path):
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "summary.csv").write_text("model,label,kind,definition\n")
    write_table(tmp_path / "channels.parquet", pd.DataFrame([{"definition": "arb8020", "channel": 3}]), ORIGIN)
    reasons = {
        "missing.parquet": "no such file",
        ".": "a directory",
        "empty.parquet": "not a readable parquet file",
        "summary.csv": "not a readable parquet file",
        "channels.parquet": "no summary, for it has no column model, label, kind",
    }
    for name, reason in reasons.items():
        with pytest.raises(ConfigError, match=rf"{reason}; give the summary\.parquet of a run\.$") as refused:
            Run.read(tmp_path / name)
        assert "\n" not in str(refused.value)
