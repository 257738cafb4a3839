"""Notes: what was asked of the models of a figure, and what it cannot show of them."""

import math

import pandas as pd
import pytest
from drawings import bars, marks, names, words
from figures_of_rows import DENSE, MOE, NOTHING_PUBLISHED, of_experiment, row


def test_unknown_interval_is_left_out_and_said():
    unknown = dict.fromkeys(("mean_layer_pct_low", "mean_layer_pct_high"), math.nan)
    figure = of_experiment("moe_vs_dense", pd.DataFrame([row("A", **unknown), row("B", "moe")]), NOTHING_PUBLISHED)
    assert "A 95 % interval of some value is missing for A." in words(figure)
    assert bars(figure.axes[0]) == [(MOE.color, 28, 33)]


def test_what_cannot_be_shown_is_said():
    rows = [
        row("Fine"),
        row("Odd", layer=math.nan, position=math.nan, outlier_count=math.nan, note="its inputs differ in width"),
        row("Elsewhere", definition="llm_int8"),
    ]
    said = words(of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED))
    assert "No mixture of experts was measured." in said
    assert "Not shown: Odd (its inputs differ in width)." in said
    assert "Not shown, for want of a row under arb8020: Elsewhere." in said


@pytest.mark.parametrize("rows", [[row("A", definition="llm_int8")], []])
def test_missing_definition_gives_a_figure_that_says_so(rows):
    summary = pd.DataFrame(rows, columns=list(row("A")))
    figure = of_experiment("moe_vs_dense", summary, NOTHING_PUBLISHED)
    present = ", ".join(summary["definition"]) or "no rows"
    assert f"No model was measured under arb8020; the summary has {present}." in words(figure)
    assert [[text.get_text() for text in names(axes)] for axes in figure.axes] == [["no model to show"]] * 4


def test_only_the_last_step_of_a_series_stands_among_models_and_it_is_said():
    steps = [row(f"Run step {s}", series="run", step=s, layer=layer) for s, layer in ((10, 20), (900, 70), (30, 40))]
    single = row("Other step 5", series="other", step=5, layer=55)
    summary = pd.DataFrame([row("A", layer=30), *steps, single]).astype({"step": "Int64"})
    figure = of_experiment("moe_vs_dense", summary, NOTHING_PUBLISHED)
    assert sorted(text.get_text() for text in names(figure.axes[0])) == ["A", "Other step 5", "Run step 900"]
    assert sorted(y for _, y in marks(figure.axes[0], DENSE.marker, filled=True)) == [30, 55, 70]
    assert "Of the training run run only the last of 3 steps is shown (900)." in words(figure)
    assert "training run other" not in words(figure)
