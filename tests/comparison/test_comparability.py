"""Conditions: what two runs differ in is named, and what follows for which of their numbers."""

import pandas as pd
import pytest
from outlier_features.comparison.compare import QUANTITIES, Verdict, compare
from outlier_features.comparison.recorded_run import Run
from recorded_runs import ORIGIN, row, run

LOSSES = {"perplexity", "bits_per_byte"}
SUMS = {"outlier_count", "distinct_channels", "massive_count"}
OF_A_DEFINITION = {"outlier_count", "distinct_channels", "stable_channels", "mean_layer_pct", "mean_position_pct"}


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
