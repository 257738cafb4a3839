"""Kurtosis and magnitudes block by block: which marks stand where."""

import math

import pytest
from outlier_features.figures.draw import draw_model
from outlier_features.figures.style import INK, MASSIVE, SITES
from portraits_of_models import BLOCKS, IN_WORDS, drawn, layers, legend, line, model, panel, words


@pytest.mark.parametrize("kurtosis", IN_WORDS)
@pytest.mark.parametrize(("title", "added"), [("all positions", 0.0), ("without position 0", 0.4)])
def test_each_kurtosis_has_its_own_panels_with_a_line_for_each_site(kurtosis, title, added):
    axes = panel(drawn(model, "kurtosis"), f"{kurtosis}: {title}")
    for i, look in enumerate(SITES.values()):
        assert line(axes, look.color) == pytest.approx({b: 1.0 + b + 10 * i + added for b in range(BLOCKS)})


def test_headline_kurtosis_shows_both_ends_of_its_range_and_is_the_largest():
    figure = draw_model("kurtosis", model(hidden_size=4096))
    axes = panel(figure, "over the RMS of channels: all")
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 1
    assert axes.get_ylim()[1] > 4096
    assert [axes.get_yticks()[0], axes.get_yticks()[-1]] == [1, 4096]
    dotted = [found.get_ydata()[0] for found in axes.lines if found.get_linestyle() == ":"]
    assert dotted == [1, 4096]
    assert all(axes.get_position().height >= other.get_position().height for other in figure.axes)


def test_a_kurtosis_that_can_be_negative_is_drawn_below_zero():
    table = layers()
    table["kurtosis_channel_mean"] = -1.5
    axes = panel(draw_model("kurtosis", model(layers=table)), "over the means of channels: all")
    assert set(line(axes, SITES["mlp_in"].color).values()) == {-1.5}
    assert axes.get_ylim()[0] < -1.5


def test_a_site_of_another_width_is_named():
    table = layers()
    table.loc[table["site"] == "out_proj_in", "channels"] = 2048
    assert "The tensor out_proj_in has 2,048 channels." in words(draw_model("kurtosis", model(layers=table)))


@pytest.mark.parametrize("metric", ["largest |x|", "RMS"])
def test_magnitudes_stand_apart_by_token_class_on_one_logarithmic_scale(metric):
    figure = drawn(model, "magnitude")
    titles = {"all positions": 0.0, "position 0 alone": 0.2, "without position 0": 0.4}
    panels = [panel(figure, f"{metric}: {title}") for title in titles]
    assert {axes.get_yscale() for axes in panels} == {"log"}
    assert len({axes.get_ylim() for axes in panels}) == 1
    scale = 1.0 if metric == "largest |x|" else 0.1
    for axes, added in zip(panels, titles.values(), strict=True):
        assert line(axes, SITES["residual"].color) == pytest.approx(
            {b: scale * (31.0 + b + added) for b in range(BLOCKS)}
        )


def test_threshold_crosses_the_panels_of_magnitudes_even_above_all_values():
    figure = draw_model("magnitude", model(hit_threshold=500.0))
    axes = panel(figure, "largest |x|: all")
    assert [found.get_ydata()[0] for found in axes.lines if found.get_linestyle() == "--"] == [500.0]
    assert axes.get_ylim()[1] > 500
    assert "hit: |x| ≥ 500" in legend(figure)


def test_massive_activations_are_ringed_where_they_are_and_put_into_words():
    table = layers()
    top = [{"window": 0, "position": 0, "channel": 17, "token": 3, "value": -900.0}]
    is_massive = (table["site"] == "residual") & (table["block"] == 2) & table["token_class"].isin(["all", "first"])
    table.loc[is_massive, "massive_count"] = 5
    table["massive_top"] = [
        top if found else each for found, each in zip(is_massive, table["massive_top"], strict=True)
    ]
    figure = draw_model("magnitude", model(layers=table))
    rings = {
        title: [list(found.get_xdata()) for found in panel(figure, f"largest |x|: {title}").lines if is_ring(found)]
        for title in ("all", "position 0", "without")
    }
    assert rings == {"all": [[2]], "position 0": [[2]], "without": [[]]}
    assert "up to 5 in a block, in 1 of the blocks 2 to 2" in words(figure)
    assert "in channel 17, at position 0." in words(figure)
    assert "massive activations" in legend(figure)


def is_ring(found):
    return found.get_color() == MASSIVE


def test_mmr_is_of_the_residual_alone():
    axes = panel(drawn(model, "magnitude"), "MMR: without")
    assert [found.get_color() for found in axes.lines] == [SITES["residual"].color]
    assert line(axes, INK) == pytest.approx({b: 31.4 + b for b in range(BLOCKS)})


def test_blocks_without_a_value_interrupt_the_line_and_are_counted():
    table = layers()
    table.loc[(table["site"] == "mlp_in") & (table["block"] == 1), "kurtosis_flattened"] = math.nan
    figure = draw_model("kurtosis", model(layers=table))
    values = line(panel(figure, "over all values: all"), SITES["mlp_in"].color)
    assert [math.isnan(value) for value in values.values()] == [False, True, False, False]
    assert "over all values of mlp_in (all positions) at 1 of 4" in words(figure)
