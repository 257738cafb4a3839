"""Figures of one model, from tables written by hand: which marks stand where, and what is said where there are none."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from outlier_features.errors import ConfigError
from outlier_features.figures.draw import draw_model, save, save_of_mixture
from outlier_features.figures.model.positions import FIRST
from outlier_features.figures.model.stability import MOST_NUMBERED
from outlier_features.figures.style import GREY, INK, MASSIVE, SHADE, SITES, definition_looks
from outlier_features.figures.tables import Portrait

FIGURES = ("kurtosis", "magnitude", "positions", "stability", "experts")
KURTOSES = ("kurtosis_neuron_rms", "kurtosis_flattened", "kurtosis_token_excess", "kurtosis_channel_mean")
IN_WORDS = ("over the RMS of channels", "over all values", "within a token", "over the means of channels")
"""What the panels of KURTOSES are called."""
CLASSES = ("all", "first", "rest")
BLOCKS, CHANNELS, SEQUENCES = 4, 64, 8


def layer(block, site, token_class, **columns):
    """Return a row of the table of layers; values tell where they are from."""
    value = 1.0 + block + 10 * list(SITES).index(site) + {"all": 0, "first": 0.2, "rest": 0.4}[token_class]
    is_residual = site == "residual"
    row = {
        "block": block,
        "site": site,
        "token_class": token_class,
        "channels": CHANNELS,
        "rms": value / 10,
        "max_abs": value,
        **dict.fromkeys(KURTOSES, value),
        "mmr": value if is_residual else math.nan,
        "massive_count": 0 if is_residual else None,
        "massive_top": [] if is_residual else None,
    }
    return row | columns


def layers(blocks=BLOCKS, sites=tuple(SITES)):
    rows = [layer(b, site, token_class) for b in range(blocks) for site in sites for token_class in CLASSES]
    return pd.DataFrame(rows).astype({"massive_count": "Int64", "channels": "Int32"})


def router(block, load, top_k=1, outputs=None, super_experts=()):
    """Return a row of the table of layers about the experts of a block."""
    used = [share for share in load if share > 0]
    return {
        "block": block,
        "site": "router",
        "token_class": "all",
        "experts": len(load),
        "top_k": top_k,
        "expert_load": list(load),
        "routing_entropy": -sum(share * math.log2(share) for share in used),
        "unused_experts": sum(share == 0 for share in load),
        "expert_max_abs": [1.0 + e for e in range(len(load))] if outputs is None else outputs,
        "super_experts": list(super_experts),
    }


def with_routers(*rows, without=()):
    table = pd.DataFrame(rows).drop(columns=list(without))
    return pd.concat([layers(), table], ignore_index=True)


def position_rows(length, sites=tuple(SITES), hit_share=0.5, outlier_share=0.25, windows=SEQUENCES):
    """Return the table of positions: the maximum at position p is 10 + p, the mean 5, and 100 and 50 at position 0."""
    places = np.arange(length)
    columns = {
        "position": places,
        "windows": windows,
        "hit_share": np.where(places == 0, 2 * hit_share, hit_share),
        "outlier_share": np.where(places == 0, outlier_share / 2, outlier_share),
        "max_abs": np.where(places == 0, 100.0, 10.0 + places),
        "mean_max_abs": np.where(places == 0, 50.0, 5.0),
    }
    return pd.concat([pd.DataFrame({"site": site, **columns}) for site in sites], ignore_index=True)


def outlier_rows(**counts):
    """Return the pooled rows of the table of outliers: by definition, the sequences that each channel qualifies in."""
    rows = [
        {"definition": name, "sequence": pd.NA, "channel": channel, "sequence_count": count}
        for name, of_channel in counts.items()
        for channel, count in of_channel.items()
    ]
    return pd.DataFrame(rows, columns=["definition", "sequence", "channel", "sequence_count"])


def convergence_rows(sequences=SEQUENCES, **first):
    """Return the table of convergence: from a similarity with one window, or null, straight to 1 with all."""
    rows = [
        {"definition": name, "windows": n, "jaccard": value, "jaccard_low": value - 0.1, "jaccard_high": value + 0.1}
        for name, start in first.items()
        for n, value in enumerate(np.linspace(start, start if math.isnan(start) else 1.0, sequences), start=1)
    ]
    return pd.DataFrame(rows, columns=["definition", "windows", "jaccard", "jaccard_low", "jaccard_high"])


def model(**changes):
    """Return a dense model with everything in its tables."""
    whole = Portrait(
        label="Model",
        hidden_size=CHANNELS,
        blocks=BLOCKS,
        channels=pd.DataFrame(),
        layers=layers(),
        outliers=outlier_rows(llm_int8={7: 8, 3: 4, 9: 1}, llm_int8_rms={7: 8}),
        convergence=convergence_rows(arb8020=0.5, llm_int8=0.25, llm_int8_rms=0.75),
        positions=position_rows(64),
        sequences=SEQUENCES,
        hit_threshold=6.0,
        hub=None,
        published={},
    )
    return replace(whole, **changes)


@cache
def drawn(case, name):
    """Return a figure of a model, drawn once."""
    return draw_model(name, case())


def panel(figure, title):
    """Return the panel whose title begins with `title`."""
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(title)]
    return found


def line(axes, color, style="-"):
    """Return the places of the one line of a colour and style, without reference lines."""
    lines = [found for found in axes.lines if found.get_color() == color and found.get_linestyle() == style]
    (found,) = [each for each in lines if len(each.get_xdata()) > 2]
    return dict(zip(found.get_xdata(), found.get_ydata(), strict=True))


def said(axes):
    return " ".join(" ".join(text.get_text().split()) for text in axes.texts)


def words(figure):
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def legend(figure):
    return [text.get_text() for of_figure in figure.legends for text in of_figure.get_texts()]


def is_within(box, frame):
    return frame.x0 <= box.x0 <= box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1


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


def colors_of(axes):
    """Return the colours of the image of a panel, block by expert."""
    (image,) = [child for child in axes.get_children() if isinstance(child, AxesImage)]
    return [[to_hex(color) for color in row] for row in image.get_array()]


@pytest.fixture(scope="module")
def mixture():
    """A model whose blocks 1 and 3 have experts; expert 2 of block 1 sees no token, expert 3 of block 3 is super."""
    table = with_routers(
        router(1, [0.5, 0.25, 0.0, 0.25], outputs=[1.0, 2.0, None, 3.0]),
        router(3, [0.25] * 4, outputs=[1.0, 2.0, 3.0, 400.0], super_experts=[3]),
    )
    return model(layers=table)


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


def nothing():
    return model(
        layers=layers(1, ("attn_in",)),
        blocks=1,
        outliers=outlier_rows(),
        convergence=convergence_rows(1, llm_int8=math.nan),
        positions=position_rows(1, ("attn_in",), 0.0, 0.0),
        sequences=1,
    )


def old():
    kept = layers().drop(columns=[*KURTOSES[1:], "mmr", "massive_count", "massive_top", "channels"])
    table = pd.concat([kept, pd.DataFrame([router(0, [1.0])])[["block", "site", "token_class", "experts", "top_k"]]])
    table["expert_load"], table["routing_entropy"], table["unused_experts"] = None, math.nan, None
    none = pd.DataFrame()
    return model(layers=table.reset_index(drop=True), outliers=none, convergence=none, positions=none)


def unknown():
    """A model whose every number is NaN or infinite."""
    table = layers()
    numbers = ["rms", "max_abs", *KURTOSES, "mmr"]
    table[numbers] = math.nan
    table.loc[table["site"] == "residual", numbers] = math.inf
    places = position_rows(16)
    places[["max_abs", "mean_max_abs"]] = math.nan
    experts = router(0, [0.5, 0.5], outputs=[None, math.inf]) | {"routing_entropy": math.nan}
    return model(layers=pd.concat([table, pd.DataFrame([experts])], ignore_index=True), positions=places)


def big():
    """100 blocks, 48 of them with 128 experts, 8,192 positions and 3,000 outlier channels."""
    rng = np.random.default_rng(0)
    rows = []
    for block in range(48):
        load = rng.dirichlet(np.full(128, 0.2))
        outputs = rng.lognormal(1, 1, 128).tolist()
        rows.append(router(block, load, 8, outputs, [int(np.argmax(outputs))]))
    counts = {channel: int(rng.integers(0, SEQUENCES + 1)) for channel in range(3000)}
    return model(
        blocks=100,
        hidden_size=16384,
        layers=pd.concat([layers(100), pd.DataFrame(rows)], ignore_index=True),
        outliers=outlier_rows(llm_int8=counts, llm_int8_rms=counts),
        positions=position_rows(8192),
        label="A model whose name is so long that it does not fit into one line of a title of a page of this width",
    )


ODD = [
    (case, name) for case in (nothing, old, unknown, big) for name in FIGURES if (case, name) != (nothing, "experts")
]
each_odd = pytest.mark.parametrize(
    ("case", "name"), ODD, ids=lambda value: value if isinstance(value, str) else value.__name__
)


@each_odd
def test_no_axis_is_empty_without_words(case, name):
    for axes in drawn(case, name).axes:
        has_line = any(np.isfinite(np.asarray(found.get_ydata(), float)).any() for found in axes.lines)
        assert has_line or axes.collections or axes.images or said(axes), axes.get_title(loc="left")


@each_odd
def test_words_stay_in_their_panel_and_on_the_page(case, name):
    figure = drawn(case, name)
    for artist in (*figure.texts, *figure.legends):
        assert is_within(artist.get_window_extent(), figure.bbox)
    for axes in figure.axes:
        assert is_within(axes.get_tightbbox(), figure.bbox)
        if not axes.get_yticks().size:
            assert all(is_within(text.get_window_extent(), axes.get_window_extent()) for text in axes.texts)


@pytest.mark.parametrize(
    ("case", "name", "sentence"),
    [
        (nothing, "magnitude", "Not captured: input of the output projection (out_proj_in), input of the MLP (mlp_in)"),
        (nothing, "positions", "No hidden state is hit."),
        (nothing, "stability", "Without any outlier channel, so without a line: llm_int8."),
        (old, "magnitude", "no column massive_count"),
    ],
)
def test_what_is_missing_is_said_below(case, name, sentence):
    assert sentence in words(drawn(case, name))


@pytest.mark.parametrize(
    ("case", "name", "title", "sentence"),
    [
        (nothing, "magnitude", "MMR: all", "Not captured: residual"),
        (nothing, "stability", "absolute threshold (llm_int8)", "No channel qualifies in all sequences together."),
        (
            nothing,
            "stability",
            "agreement of windows, abs",
            "One window was captured: there is nothing to compare it with.",
        ),
        (old, "kurtosis", "over all values: all", "The table has no column kurtosis_flattened."),
        (old, "positions", "", "The table of positions has no rows."),
        (old, "stability", "agreement of windows, abs", "No definition finds an outlier channel."),
        (unknown, "kurtosis", "over the RMS of channels: all", "kurtosis_neuron_rms has no value at any block."),
        (unknown, "experts", "routing", "no value at any block"),
        (unknown, "experts", "largest |output", "No output of an expert was kept."),
    ],
)
def test_a_panel_without_marks_says_why(case, name, title, sentence):
    assert said(panel(drawn(case, name), title)) == sentence


def test_blocks_without_a_value_interrupt_the_line_and_are_counted():
    table = layers()
    table.loc[(table["site"] == "mlp_in") & (table["block"] == 1), "kurtosis_flattened"] = math.nan
    figure = draw_model("kurtosis", model(layers=table))
    values = line(panel(figure, "over all values: all"), SITES["mlp_in"].color)
    assert [math.isnan(value) for value in values.values()] == [False, True, False, False]
    assert "over all values of mlp_in (all positions) at 1 of 4" in words(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_the_largest_models_give_small_files(tmp_path, name):
    save(drawn(big, name), tmp_path / "figure.svg", {})
    assert (tmp_path / "figure.svg").stat().st_size < 1e6


@pytest.mark.parametrize("name", FIGURES)
def test_same_tables_give_the_same_bytes(tmp_path, mixture, name):
    for folder in ("one", "other"):
        save(draw_model(name, mixture), tmp_path / folder / "figure.svg", {})
    assert (tmp_path / "one" / "figure.svg").read_bytes() == (tmp_path / "other" / "figure.svg").read_bytes()


def test_a_twin_looks_like_the_definition_it_belongs_to():
    looks = definition_looks(["arb8020", "llm_int8_rms", "llm_int8"])
    assert looks["llm_int8_rms"].color == looks["llm_int8"].color != looks["arb8020"].color
    assert looks["llm_int8_rms"].label == "llm_int8_rms"
