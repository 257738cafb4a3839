"""The map of channels: hits by channel, block and site, outlier features ringed."""

import itertools

import pandas as pd
from drawings import legend, words
from figures_of_rows import channel_map, hit, of_model
from matplotlib.collections import PathCollection
from matplotlib.text import Text
from outlier_features.figures.draw import save
from outlier_features.figures.model.channel_map import MOST_NUMBERED
from outlier_features.figures.style import INK, MASSIVE


def drawn(axes):
    """Return {(channel, block with the offset of the site): (largest |x|, is ringed)} of a panel."""
    return {
        (x, y): (float(value), bool(len(cloud.get_edgecolors())))
        for cloud in axes.collections
        if isinstance(cloud, PathCollection)
        for (x, y), value in zip(cloud.get_offsets().tolist(), cloud.get_array(), strict=True)
    }


def numbers(axes):
    return [text.get_text() for text in axes.texts]


def test_map_places_hits_by_channel_block_and_site_and_rings_outlier_features():
    figure = channel_map(
        [
            hit(7, block=2, site="attn_in", max_abs=20.0, is_outlier=True),
            hit(7, block=2, site="mlp_in", max_abs=30.0, is_outlier=True),
            hit(40, block=0, site="mlp_in", max_abs=6.5),
            hit(41, block=3, site="attn_in", max_abs=8.0, definition="llm_int8_rms"),
        ]
    )
    absolute, _, relative, _ = figure.axes  # each with its scale of colours
    assert drawn(absolute) == {(7, 1.75): (20, True), (7, 2.25): (30, True), (40, 0.25): (6.5, False)}
    assert drawn(relative) == {(41, 2.75): (8, False)}
    assert numbers(absolute) == ["7"]
    assert numbers(relative) == []
    assert absolute.get_title(loc="left").endswith("1 outlier feature; 2 channels hit")
    assert relative.get_title(loc="left").endswith("no outlier features; 1 channel hit")


def test_map_has_a_logarithmic_scale_of_colours_for_each_panel_that_ends_at_round_numbers():
    layers = [(0, "attn_in", "all", 7.0, 3.5), (0, "attn_in", "first", 7.0, 1.0)]
    figure = channel_map([hit(1, max_abs=30.0), hit(2, max_abs=700.0, definition="llm_int8_rms")], layers)
    absolute, bar, relative, other_bar = figure.axes
    norms = [
        [(cloud.norm.vmin, cloud.norm.vmax) for cloud in axes.collections if isinstance(cloud, PathCollection)]
        for axes in (absolute, relative)
    ]
    assert [set(each) for each in norms] == [{(20, 50)}, {(200, 500)}]
    assert drawn(relative) == {(2, -0.0): (200.0, False)}  # 700 over the RMS of all positions
    assert [label.get_text() for label in bar.get_yticklabels() if label.get_text() in ("20", "50")] == ["20", "50"]
    assert (bar.get_ylabel(), other_bar.get_ylabel()) == ("largest |x|", "largest |x| / RMS")


def test_map_of_a_tensor_whose_rms_is_not_known_shows_magnitudes_as_they_are():
    figure = channel_map([hit(2, max_abs=700.0, definition="llm_int8_rms")])
    _, relative, bar = figure.axes
    assert drawn(relative) == {(2, 0.0): (700.0, False)}
    assert bar.get_ylabel() == "largest |x|"


def test_map_marks_channels_with_massive_activations_of_the_residual_stream():
    def top(channel, value):
        return {"window": 0, "position": 0, "channel": channel, "token": 3, "value": value}

    table = pd.DataFrame(
        [
            {"block": 0, "site": "residual", "token_class": "all", "massive_top": [top(40, -900.0), top(9, 300.0)]},
            {"block": 1, "site": "residual", "token_class": "all", "massive_top": [top(40, 1200.0)]},
            {"block": 1, "site": "mlp_in", "token_class": "all", "massive_top": None},
        ]
    ).assign(max_abs=1.0, rms=1.0)
    hits = pd.DataFrame([hit(7, is_outlier=True), hit(40)])
    figure = of_model("channel_map", hits, table, 64, 4)
    assert {text.get_text(): text.get_color() for text in figure.axes[0].texts} == {
        "7": INK,
        "9": MASSIVE,
        "40": MASSIVE,
    }
    assert "in channel 40 (up to 1,200), 9 (up to 300)." in words(figure)
    assert "red: the channel carries massive activations in the residual stream" in legend(figure)


def test_map_says_where_block_0_is_and_shows_all_channels_and_blocks():
    axes = channel_map([hit(1)], hidden_size=64, blocks=4).axes[0]
    assert axes.get_ylabel() == "block (0 at the bottom)"
    assert axes.get_ylim() == (-0.5, 3.5)
    assert axes.get_xlim()[0] < 0
    assert axes.get_xlim()[1] > 63


def test_map_numbers_the_largest_outlier_features_and_counts_the_rest():
    hits = [hit(channel, max_abs=10.0 + channel, is_outlier=True) for channel in range(MOST_NUMBERED + 5)]
    axes = channel_map(hits).axes[0]
    assert numbers(axes) == [str(channel) for channel in range(5, MOST_NUMBERED + 5)]
    assert f"25 outlier features ({MOST_NUMBERED} largest numbered, 5 more)" in axes.get_title(loc="left")


def test_map_keeps_numbers_of_neighbouring_channels_apart():
    figure = channel_map([hit(12000 + i, is_outlier=True) for i in range(MOST_NUMBERED)], hidden_size=16384)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]  # without the leader
    assert len(boxes) == MOST_NUMBERED
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_map_without_hits_says_so_and_how_close_it_came():
    layers = [
        (0, "attn_in", "all", 4.5, 1.5),
        (0, "mlp_in", "all", 4.0, 1.0),
        (0, "mlp_in", "first", 5.5, 0.1),
        (0, "residual", "all", 900.0, 1.0),
    ]
    absolute, relative = channel_map([], layers).axes
    assert numbers(absolute) == ["No activation reaches the threshold.\nThe largest |x| is 4.5."]
    assert numbers(relative) == [
        "No activation reaches the threshold.\nThe largest |x| is 4 times the RMS of its tensor."
    ]


def test_map_of_many_marks_is_one_image_inside_an_svg(tmp_path):
    hits = [hit(channel, block, site) for channel in range(700) for block in range(4) for site in ("attn_in", "mlp_in")]
    figure = channel_map(hits, hidden_size=700)
    save(figure, tmp_path / "map.svg", {})
    assert (tmp_path / "map.svg").read_text().count("<use") < len(hits) / 5
