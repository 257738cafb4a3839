"""Stability: channels by the sequences they qualify in, and how many windows it takes."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from outlier_features.figures.draw import draw_model
from outlier_features.figures.model.stability import MOST_NUMBERED
from outlier_features.figures.style import GREY, INK, definition_looks
from portraits_of_models import convergence_rows, drawn, legend, line, model, outlier_rows, panel, said, words


def stems(axes):
    """Return the heights of the stems, and the colours of the dots on them."""
    heights = [segment[1][1] for segment in axes.collections[0].get_segments()]
    return heights, [to_hex(color) for color in axes.collections[1].get_facecolors()]


def test_channels_stand_by_the_number_of_sequences_they_qualify_in():
    figure = drawn(model, "stability")
    axes = panel(figure, "absolute threshold (llm_int8)")
    heights, colors = stems(axes)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["7", "3", "9"]
    assert heights == [8, 4, 1]
    assert colors == [INK, INK, GREY]
    assert axes.get_title(loc="left").endswith(": 3 channels")
    assert panel(figure, "scale-free (llm_int8_rms)").get_title(loc="left").endswith(": 1 channel")


def test_a_channel_that_no_sequence_has_alone_still_has_a_mark():
    axes = panel(
        draw_model("stability", model(outliers=outlier_rows(llm_int8={5: 0}))), "absolute threshold (llm_int8)"
    )
    assert axes.collections[1].get_offsets().tolist() == [[0, 0]]


def test_too_many_channels_are_drawn_without_numbers_and_it_is_said():
    many = {channel: channel % 9 for channel in range(MOST_NUMBERED + 1)}
    axes = panel(draw_model("stability", model(outliers=outlier_rows(llm_int8=many))), "absolute threshold (llm_int8)")
    assert len(stems(axes)[0]) == MOST_NUMBERED + 1
    assert "31 channels, too many to number" in axes.get_xlabel()
    assert list(axes.get_xticks()) == []


def test_convergence_has_a_line_and_a_band_for_each_definition_by_its_kind():
    figure = drawn(model, "stability")
    looks = definition_looks(["arb8020", "llm_int8", "llm_int8_rms"])
    absolute, relative = (
        panel(figure, "agreement of windows, absolute"),
        panel(figure, "agreement of windows, scale-free"),
    )
    assert line(absolute, looks["arb8020"].color)[1] == 0.5
    assert line(absolute, looks["llm_int8"].color)[1] == 0.25
    assert line(relative, looks["llm_int8_rms"].color) == pytest.approx(
        dict(zip(range(1, 9), np.linspace(0.75, 1, 8), strict=True))
    )
    assert [len(axes.collections) for axes in (absolute, relative)] == [2, 1]
    assert relative.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.65)
    assert "llm_int8, llm_int8_rms" in legend(figure)


def test_a_definition_without_outlier_channel_is_named():
    table = convergence_rows(llm_int8=0.5, llm_int8_paper=math.nan)
    figure = draw_model("stability", model(convergence=table))
    assert "Without any outlier channel, so without a line: llm_int8_paper." in words(figure)
    assert said(panel(figure, "agreement of windows, scale-free")) == "No definition finds an outlier channel."
