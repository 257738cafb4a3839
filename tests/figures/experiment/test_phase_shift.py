"""The phase shift as a picture: fits, bands and words are those of the tests."""

import numpy as np
import pandas as pd
import pytest
from drawings import legend, marks, words
from figures_of_twelve import (
    DENSE,
    MOE,
    NOTHING_PUBLISHED,
    PUBLISHED_TABLES,
    alike,
    drawn,
    few,
    of_twelve,
    phase_shift_panel,
    trends,
)
from matplotlib.colors import to_hex
from outlier_features.experiment.answer import curve
from outlier_features.figures.experiment.phase_shift import fits
from outlier_features.figures.style import GREY, INK
from sweep_of_twelve import LOWER, SHIFT_POSITION, UPPER, twelve


def test_a_planted_shift_is_found_drawn_as_a_band_and_said():
    figure = of_twelve("phase_shift")
    axes = phase_shift_panel(figure, 0, 1)
    (said,) = (text.get_text() for text in axes.texts if text.get_text() != "6.7B")
    assert said.startswith("12 models; best: a step (weight 1.00).")
    assert "Jump at 4." in said
    assert "Spearman 0.9" in said
    (band,) = axes.patches
    assert band.get_x() < SHIFT_POSITION < band.get_x() + band.get_width()
    (preferred,) = (line for line in axes.lines if line.get_color() == INK and len(line.get_xdata()) > 2)
    assert preferred.get_ydata()[0] == pytest.approx(LOWER, abs=3)
    assert preferred.get_ydata()[-1] == pytest.approx(UPPER, abs=3)
    faint = [line for line in axes.lines if line.get_color() == GREY and len(line.get_xdata()) == 200]
    assert len(faint) == 3
    assert {"the fit that describes the models best", "the other fits", "where the jump may be"} <= set(legend(figure))


def test_without_a_shift_none_is_drawn_and_power_is_said():
    figure = drawn("phase_shift", twelve(False), PUBLISHED_TABLES, trends(False))
    axes = phase_shift_panel(figure, 0, 1)
    assert len(axes.patches) == 0
    (said,) = (text.get_text() for text in axes.texts if text.get_text() != "6.7B")
    assert "No jump shown (no step is best)." in said.replace("\n", " ")
    assert "80 % power: sharp jumps of" in said
    assert "where the jump may be" not in legend(figure)


def test_each_row_shows_its_kind_and_fits_in_its_colour_and_says_why_nothing_was_tested():
    figure = of_twelve("phase_shift")
    dense, moe = phase_shift_panel(figure, 1, 0), phase_shift_panel(figure, 2, 0)
    assert marks(dense, MOE.marker, filled=True) == []
    assert len(marks(dense, DENSE.marker, filled=True)) == 5
    assert len(marks(moe, MOE.marker, filled=True)) == 7
    assert any(to_hex(line.get_color()) == MOE.color and len(line.get_xdata()) == 200 for line in moe.lines)
    assert any("5 models, a phase shift needs 7." in text.get_text() for text in dense.texts)


def test_fits_are_those_of_the_table_of_trends():
    trend = pd.Series(
        {"x_low": 1e8, "x_high": 1e10, "constant": 40.0, "intercept": 5.0, "slope": 10.0}
        | {
            "smooth_shape": "quadratic",
            "smooth_bend": 0.0,
            "smooth_level": 1.0,
            "smooth_slope": 2.0,
            "smooth_size": 4.0,
        }
        | {"lower": 20.0, "upper": 60.0, "shift_size": 40.0, "shift_position": 1e9, "shift_decades": 0.5}
    )
    u = np.array([0.0, 0.375, 0.5, 0.625, 1.0])
    assert curve(trend, "constant", u) == pytest.approx(40)
    assert curve(trend, "linear", u)[[0, 2]] == pytest.approx([85, 95])
    assert curve(trend, "smooth", u)[[0, 2, 4]] == pytest.approx([1, 3, 7])
    assert curve(trend, "step", u) == pytest.approx([20, 24, 40, 56, 60], abs=0.02)
    assert fits(trend) == ["constant", "linear", "smooth", "step"]
    assert fits(trend.replace({1e9: np.nan})) == ["constant", "linear", "smooth"]


def test_an_interval_that_begins_at_0_has_a_place_on_a_logarithmic_axis():
    own = few().assign(outlier_count=16, outlier_count_low=0.0, outlier_count_high=30.0)
    axes = drawn("count_vs_perplexity", own, NOTHING_PUBLISHED).axes[0]
    assert axes.get_yscale() == "log"
    assert 0 < axes.get_ylim()[0] < 16


def test_of_few_models_one_row_shows_the_fits_of_the_published_ones():
    figure = drawn("phase_shift", few(), PUBLISHED_TABLES)
    assert len(figure.axes) == 3
    assert "a phase shift can be asked for of 7 or more" in words(figure)
    assert "12 models; best:" in " ".join(text.get_text() for text in figure.axes[0].texts)
    assert any(len(line.get_xdata()) == 200 for line in figure.axes[0].lines)


def test_a_phase_shift_in_quality_is_asked_of_comparable_perplexities_or_of_bits_per_byte():
    assert of_twelve("phase_shift").axes[2].get_xlabel() == "bits per byte"
    assert drawn("phase_shift", alike(), PUBLISHED_TABLES).axes[2].get_xlabel() == "perplexity"
    figure = drawn("phase_shift", few(), PUBLISHED_TABLES)
    assert marks(figure.axes[0], DENSE.marker, filled=True)
    assert figure.axes[2].get_xlabel() == "perplexity"
    assert marks(figure.axes[2], DENSE.marker, filled=True) == []
    assert len(marks(figure.axes[2], DENSE.marker, filled=False)) == 5
    assert "their perplexities are not comparable and not drawn" in words(figure)


def test_panels_without_a_trend_say_so():
    figure = drawn("phase_shift", twelve(False), PUBLISHED_TABLES)
    for axes in figure.axes:
        assert any("Not tested: there is no row of trends" in text.get_text() for text in axes.texts)
