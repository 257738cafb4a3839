"""The figure of predicted damage: a panel a format, one scale of colours, the worst tensors ringed and named."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from outlier_features.figures.draw import draw_model
from outlier_features.figures.style import SHADE
from portraits_of_models import BLOCKS, DAMAGED, damage_rows, drawn, model, panel, said, words


def figure():
    return drawn(model, "damage")


def image(axes):
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("name", ["absmax: int8, one scale a window", "row_wise: int8, one", "mxfp4: e2m1, one scale"])
def test_every_format_has_a_panel_of_sites_by_blocks(name):
    axes = panel(figure(), name)
    assert image(axes).shape == (len(DAMAGED), BLOCKS, 3)


def test_sites_are_written_beside_the_panels_on_the_left():
    for name in ("absmax", "mxfp4"):
        axes = panel(figure(), f"{name}:")
        assert [tick.get_text() for tick in axes.get_yticklabels()] == list(DAMAGED)


def test_colours_are_darker_where_more_is_lost_on_one_scale_for_all():
    brightness = {name: image(panel(figure(), f"{name}:")).sum(2) for name in ("mxfp4", "absmax", "row_wise")}
    assert brightness["mxfp4"].max() < brightness["absmax"].max() < brightness["row_wise"].max()
    assert (np.diff(brightness["row_wise"], axis=1) > 0).all()


def test_the_worst_tensors_are_named_once_each_with_their_format():
    lowest = said(figure().axes[-1])
    assert "The 10 tensors that lose most" in lowest
    assert "1. attn_in of block 0: 15.0 dB (mxfp4)" in lowest
    assert "10. out_proj_in of block 2: 17.2 dB (mxfp4)" in lowest
    assert "absmax" not in lowest


def test_what_is_named_is_ringed():
    rings = panel(figure(), "mxfp4:").lines[-1]
    places = set(zip(rings.get_xdata(), rings.get_ydata(), strict=True))
    assert places == {(b, s) for b in (0, 1) for s in range(4)} | {(2, 0), (2, 1)}
    assert not panel(figure(), "absmax:").lines


def test_a_tensor_that_is_not_there_is_pale():
    table = damage_rows()
    table = table[(table["block"] != 3) | (table["site"] != "down_in")]
    found = draw_model("damage", model(damage=table))
    np.testing.assert_allclose(image(panel(found, "absmax:"))[3, 3], to_rgb(SHADE))
    assert "Pale: blocks without such a tensor (1)." in words(found)


def test_a_format_that_is_not_known_is_drawn_by_its_name():
    found = draw_model("damage", model(damage=damage_rows(formats={"new": 30.0})))
    assert panel(found, "new").get_title(loc="left") == "new"
