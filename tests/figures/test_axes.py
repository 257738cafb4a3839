"""Axes: ranges and readable ticks, and a named shelf for what has no value."""

import pandas as pd
import pytest
from drawings import legend, marks, names
from figures_of_rows import DENSE, MOE, NOTHING_PUBLISHED, of_experiment, row
from figures_of_twelve import drawn, without_features
from outlier_features.figures.axes import SHELF


@pytest.mark.parametrize("name", ["count_vs_perplexity", "llm_int8_figure_4a", "llm_int8_figure_4b"])
def test_models_without_outlier_feature_stand_below_a_logarithmic_axis(name):
    for axes in drawn(name, without_features()).axes:
        low, high = axes.get_ylim()
        ground = low * (high / low) ** (SHELF / (1 + SHELF))
        dense, moe = (marks(axes, look.marker, filled=True) for look in (DENSE, MOE))
        assert len(dense) == len(moe) == 2
        assert all(low < y < ground for _, y in dense + moe)
        assert max(y for _, y in moe) < min(y for _, y in dense)
        assert {"none", "no outlier\nfeature"} & {tick.get_text() for tick in axes.get_yticklabels()}


def test_axes_are_logarithmic_with_readable_ticks_and_end_where_the_data_do(two):
    for axes in two.axes:
        assert axes.get_xscale() == "log"
        assert axes.get_ylim() == (0, 80)  # the highest interval ends at 63 %
        labels = dict(zip(axes.get_xticks(), (tick.get_text() for tick in axes.get_xticklabels()), strict=True))
        assert labels == {1e9: "1B", 1e10: "10B", 1e11: "100B"}


@pytest.mark.parametrize(("share", "top"), [(0.4, 5), (8.0, 20), (33.0, 40), (96.0, 100)])
def test_an_axis_of_percentages_begins_at_0_and_ends_at_the_next_round_number(share, top):
    rows = [row("A", layer=share, position=share, definition="arb8020_rms")]
    for axes in of_experiment("moe_vs_dense_rms", pd.DataFrame(rows), NOTHING_PUBLISHED).axes:
        assert axes.get_ylim() == (0, top)
        assert axes.get_xlim()[1] / axes.get_xlim()[0] == pytest.approx(100)  # no decade without a model but for ticks


def has_phase_shift(figure):
    return [[6.7e9, 6.7e9] in [list(line.get_xdata()) for line in axes.lines] for axes in figure.axes]


@pytest.mark.parametrize(
    ("name", "definition", "threshold", "expected"),
    [
        ("llm_int8_figure_3a", "llm_int8", 6.0, True),
        ("llm_int8_figure_4a", "llm_int8", 6.0, True),
        ("llm_int8_figure_3a", "llm_int8", 8.0, False),
        ("moe_vs_dense", "arb8020", 6.0, False),
        ("moe_vs_dense_rms", "arb8020_rms", 6.0, False),
        ("moe_vs_dense_median", "arb8020", 6.0, False),
        ("reach_lines", "arb8020", 6.0, False),
    ],
)
def test_the_phase_shift_of_2022_stands_on_axes_of_its_own_criterion_only(name, definition, threshold, expected):
    shares = {"largest_quartile_1": 8.0, "largest_quartile_2": 9.0, "largest_quartile_3": 10.0}
    shares |= {f"median_{name}_pct{end}": 30.0 for name in ("layer", "position") for end in ("", "_low", "_high")}
    made = row("A", total=2e9, definition=definition, threshold=threshold, **shares)
    figure = of_experiment(name, pd.DataFrame([made]), NOTHING_PUBLISHED)
    assert set(has_phase_shift(figure)) == {expected}
    assert any("6.7B" in text for text in legend(figure)) == expected
    assert all(axes.get_xlim()[1] > 6.7e9 for axes in figure.axes) or not expected


def test_the_line_of_the_phase_shift_passes_behind_names():
    near = row("A model of that size", total=6.6e9, definition="llm_int8")
    for axes in of_experiment("llm_int8_figure_3a", pd.DataFrame([near]), NOTHING_PUBLISHED).axes:
        (line,) = (line for line in axes.lines if list(line.get_xdata()) == [6.7e9, 6.7e9])
        (name,) = names(axes)
        assert name.get_zorder() > line.get_zorder()
        assert name.get_bbox_patch().get_facecolor()[:3] == (1.0, 1.0, 1.0)


def test_models_without_outlier_feature_stand_on_a_named_shelf_and_hide_nobody(empty):
    for axes in empty.axes:
        ((dense_x, dense_y), _), ((moe_x, moe_y),) = (marks(axes, look.marker, filled=True) for look in (DENSE, MOE))
        assert dense_x == 3e6
        assert moe_x in (3e6, 8e6)
        assert axes.get_ylim()[0] < moe_y < dense_y < 0
        assert "no outlier\nfeature" in [tick.get_text() for tick in axes.get_yticklabels()]
        assert [text.get_text() for text in names(axes)] == ["None dense", "None sparse", "Some"]


def test_no_shelf_without_need(two):
    for axes in two.axes:
        assert "no outlier\nfeature" not in [tick.get_text() for tick in axes.get_yticklabels()]
