"""Experts: how much each is used, and how large its output becomes."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from outlier_features.errors import ConfigError
from outlier_features.figures.draw import draw_model, save_of_mixture
from outlier_features.figures.style import GREY, SHADE
from portraits_of_models import BLOCKS, legend, model, panel, router, said, with_routers, words


def colors_of(axes):
    """Return the colours of the image of a panel, block by expert."""
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    return [[to_hex(color) for color in row] for row in image.get_array()]


def test_load_tells_unused_experts_from_little_used_ones_and_from_none(mixture):
    figure = draw_model("experts", mixture)
    colors = colors_of(panel(figure, "load"))
    assert [len(colors), len(colors[0])] == [BLOCKS, 4]
    assert set(colors[0]) == set(colors[2]) == {SHADE}
    assert [color == GREY for color in colors[1]] == [False, False, True, False]
    assert len(set(colors[3])) == 1
    assert colors[1][0] != colors[1][1] == colors[1][3] == colors[3][0]
    assert panel(figure, "load").get_title(loc="left").endswith("1 expert without a token")
    assert {"expert that saw no token", "no such expert"} <= set(legend(figure))


def test_entropy_stands_between_its_bounds(mixture):
    axes = panel(draw_model("experts", mixture), "routing entropy")
    entropy, high, low = ([value for value in found.get_xdata() if not math.isnan(value)] for found in axes.lines)
    assert entropy == [1.5, 2.0]
    assert set(high) == {2.0}
    assert set(low) == {0.0}


def test_super_experts_are_ringed_and_named(mixture):
    figure = draw_model("experts", mixture)
    axes = panel(figure, "largest |output")
    rings = {(x, y) for found in axes.lines for x, y in zip(*found.get_data(), strict=True)}
    assert rings == {(3, 3)}
    assert said(axes) == "(3;3)"
    assert colors_of(axes)[1][2] == GREY
    assert "1 ringed, named (block;expert). Of 8 experts the largest always exceeds that percentile" in words(figure)


@pytest.mark.parametrize(("hub", "expected"), [("org/known", True), ("org/other", False), (None, False)])
def test_published_super_experts_of_the_same_model_are_compared(mixture, hub, expected):
    published = pd.DataFrame(
        [{"model": "known", "super_experts_layer_expert": "(3;3) (1;0)", "source": "Someone 2025"}]
    )
    said_of_it = words(draw_model("experts", replace(mixture, hub=hub, published={"super_experts": published})))
    sentence = "Published for org/known (Someone 2025): (3;3) (1;0); 1 of 2 are ringed here."
    assert (sentence in said_of_it) == expected
    assert ("Published" in said_of_it) == expected


def test_tables_without_outputs_of_experts_say_so():
    table = with_routers(router(0, [0.5, 0.5]), without=["expert_max_abs", "super_experts"])
    figure = draw_model("experts", model(layers=table))
    assert "The table has no outputs of experts" in said(panel(figure, "largest |output"))
    assert "names no super experts" in words(figure)
    assert len(colors_of(panel(figure, "load"))) == BLOCKS


def test_outputs_of_any_magnitude_have_a_colour():
    table = with_routers(router(0, [0.5, 0.5], outputs=[1e-30, 1e30]))
    colors = colors_of(panel(draw_model("experts", model(layers=table)), "largest |output"))
    assert len({*colors[0], GREY}) == 3


def test_a_dense_model_gets_no_page_about_experts(tmp_path, mixture):
    with pytest.raises(ConfigError, match="Model has no experts to draw"):
        draw_model("experts", model())
    save_of_mixture("experts", model(), tmp_path / "dense", {})
    save_of_mixture("experts", mixture, tmp_path / "moe", {})
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert written == ["dense", "moe", "moe/experts.png", "moe/experts.svg"]
