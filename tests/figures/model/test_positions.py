"""Positions: what stands along the window, and that the maximum stays one."""

import numpy as np
import pytest
from outlier_features.figures.draw import draw_model
from outlier_features.figures.model.positions import FIRST
from outlier_features.figures.style import SITES
from portraits_of_models import drawn, line, model, panel, position_rows, words


def test_position_0_stands_apart_from_the_line_with_its_own_marks():
    axes = panel(drawn(model, "positions"), SITES["attn_in"].label)
    color = SITES["attn_in"].color
    (mark,) = [found for found in axes.lines if len(found.get_xdata()) == 1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (FIRST, 100)
    assert min(line(axes, color)) == 0
    assert set(line(axes, color).values()) == {50}
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["0", "1", "4", "16"]


def test_part_that_is_an_outlier_feature_is_filled():
    axes = panel(drawn(model, "positions"), SITES["mlp_in"].label)
    (filled,) = [each for each in axes.collections if each.get_paths()[0].vertices[:, 1].max() < 100]
    assert filled.get_paths()[0].vertices[:, 1].max() == 25
    assert [bar.get_height() for bar in axes.patches if bar.get_width() < 0.35] == [12.5]


def test_neighbours_far_out_are_taken_together_and_the_maximum_stays_one():
    figure = draw_model("positions", model(positions=position_rows(8192)))
    color = SITES["residual"].color
    peaks = figure.axes[-1]
    drawn = line(peaks, color)
    assert len(drawn) < 200
    assert max(drawn.values()) == 10 + 8191
    assert list(drawn.values())[:4] == [11, 12, 13, 14]
    assert "16 groups to each doubling" in words(figure)


def test_weights_of_neighbours_are_their_windows():
    table = position_rows(64, sites=("mlp_in",))
    table["windows"] = np.where(table["position"] == 62, 3, 1)
    table["hit_share"] = np.where(table["position"] == 62, 1.0, 0.0)
    figure = draw_model("positions", model(positions=table))
    shares = list(line(figure.axes[0], SITES["mlp_in"].color).values())
    assert shares[-1] == pytest.approx(100 * 3 / 4)  # of positions 62 and 63
    assert "Windows differ in length: 1 to 3 of them have a position." in words(figure)
