"""Figures of an experiment, from a made-up sweep of twelve models: what stands where, and what is said to lack."""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawings import bars, is_within, legend, marks, names, overlapping, words
from matplotlib.colors import to_hex
from outlier_features.config.entries import Definition
from outlier_features.experiment.answer import curve
from outlier_features.experiment.inference import TRENDS, conclusions
from outlier_features.figures import catalogue
from outlier_features.figures.axes import SHELF, parameters
from outlier_features.figures.draw import draw_experiment, save
from outlier_features.figures.experiment.phase_shift import fits
from outlier_features.figures.experiment.residual_stream import COORDINATED, THRESHOLD, shares, toy
from outlier_features.figures.style import FAINT, GREY, INK, KINDS, SHARES
from outlier_features.figures.tables import Sweep, read_published
from outlier_features.metrics import criteria, evidence, outlier_features
from sweep_of_twelve import LOWER, PUBLISHED, SHIFT_POSITION, UPPER, twelve

FIGURES = tuple(name for name in catalogue.names("experiment"))
PUBLISHED_TABLES = read_published((Path(__file__).parents[2] / "resources" / "published").glob("*.csv"))
NOTHING_PUBLISHED = {name: table.head(0) for name, table in PUBLISHED_TABLES.items()}
NO_TRENDS = pd.DataFrame(columns=list(TRENDS)).astype(TRENDS)
DENSE, MOE = KINDS["dense"], KINDS["moe"]
ESTIMATED = ("mean_", "median_", "largest_")
FEW = ("Qwen3-4B", "Qwen3-14B", "Mixtral-8x7B", "GPT-OSS-120B")


@cache
def trends(shift):
    """Return what inference makes of the sweep, without draws of the sequences."""
    summary = twelve(shift)
    found = conclusions(summary[summary["definition"] == "arb8020"], {}, {}, {})
    return pd.DataFrame(found["trends"], columns=list(TRENDS)).astype(TRENDS)


@cache
def of_twelve(name):
    """Return a figure of the sweep with a shift, beside everything published."""
    return draw_experiment(name, Sweep(twelve(True), trends(True), PUBLISHED_TABLES))


def rows(definition, kind=None):
    """Return the rows of the sweep with a shift."""
    summary = twelve(True)
    return summary[(summary["definition"] == definition) & (summary["kind"] == (kind or summary["kind"]))]


def places(table, x, y):
    return [(float(a), float(b)) for a, b in zip(table[x], table[y], strict=True)]


def drawn(name, summary, published=NOTHING_PUBLISHED, tested=NO_TRENDS):
    return draw_experiment(name, Sweep(summary, tested, published))


def without(summary, prefixes):
    """Return a summary in which the columns that begin so are blank."""
    return summary.assign(**{name: np.nan for name in summary if name.startswith(prefixes)})


def few():
    summary = twelve(True)
    return summary[summary["label"].isin(FEW)]


def alike():
    """Return the sweep as if all models had one tokenizer."""
    return twelve(True).assign(windows_digest="the same")


def without_features():
    return without(few(), ESTIMATED).assign(outlier_count=0, distinct_channels=0)


def test_medians_stand_alone_as_none_was_published_and_have_no_intervals():
    figure = of_twelve("moe_vs_dense_median")
    axes = figure.axes[0]
    assert marks(axes, MOE.marker, filled=True) == places(rows("arb8020", "moe"), "total_params", "median_layer_pct")
    assert marks(axes, DENSE.marker, filled=False) == []
    assert bars(axes) == []
    assert "published means, no medians, so nothing of it is drawn here. No interval was found" in words(figure)


ASKED = {"threshold": 6.0, "min_layers": 0.25, "min_positions": 0.06, "scope": "sequence", "sequences": 16}
ASKED |= {"sites": "attn_in+mlp_in", "rounding": "bfloat16"}


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("threshold", 5.0, "threshold 6.0 there and 5.0 here"),
        ("min_layers", 0.5, "min layers 0.25 there and 0.5 here"),
        ("scope", "pooled", "scope sequence there and pooled here"),
        ("sites", "attn_in", "sites attn_in+mlp_in there and attn_in here"),
    ],
)
def test_published_points_are_left_out_where_something_else_was_asked(column, value, said):
    own = twelve(True)
    for name, asked in (ASKED | {column: value}).items():
        own[name] = own[name].where(own["definition"] != "arb8020", asked) if name in own else asked
    figure = drawn("moe_vs_dense", own, PUBLISHED_TABLES)
    assert all(marks(axes, DENSE.marker, filled=False) == [] for axes in figure.axes)
    assert f"Published points are left out under arb8020, being of something else: {said}." in words(figure)


def test_published_counts_are_left_out_beside_sums_over_another_number_of_sequences():
    own = alike().assign(**{**ASKED, "sequences": 8})
    shares, counts = drawn("moe_vs_dense", own, PUBLISHED_TABLES), drawn("count_vs_perplexity", own, PUBLISHED_TABLES)
    assert marks(shares.axes[0], DENSE.marker, filled=False)
    assert marks(counts.axes[0], DENSE.marker, filled=False) == []
    assert "sequences 16 there and 8 here" in words(counts)


def test_reach_stands_at_its_perplexity_or_its_bits_per_byte_with_both_intervals():
    own, shares = rows("arb8020", "dense"), ("mean_layer_pct", "mean_position_pct")
    bits = of_twelve("reach_vs_perplexity").axes[1::2]
    perplexity = drawn("reach_vs_perplexity", alike()).axes
    panels = [*itertools.product(["bits_per_byte"], shares), *itertools.product(["perplexity"], shares)]
    for axes, (x, y) in zip([*bits, *perplexity], panels, strict=True):
        assert marks(axes, DENSE.marker, filled=True) == places(own, x, y)
        level = [tuple(line.get_xdata()) for line in axes.lines if line.get_color() == DENSE.color]
        assert set(places(own, f"{x}_low", f"{x}_high")) <= set(level)
        assert set(places(own, f"{y}_low", f"{y}_high")) <= {(low, high) for _, low, high in bars(axes)}


def test_only_dense_models_have_a_published_perplexity_and_none_has_bits_per_byte():
    perplexity, bits = of_twelve("reach_vs_perplexity").axes[:2]
    dense = PUBLISHED[PUBLISHED["kind"] == "dense"]
    assert marks(perplexity, DENSE.marker, filled=False) == places(dense, "perplexity", "mean_layer_pct")
    assert marks(perplexity, MOE.marker, filled=False) == []
    assert marks(bits, DENSE.marker, filled=False) == []
    said = words(of_twelve("reach_vs_perplexity"))
    assert "A perplexity was published of the dense models only" in said
    assert "The models of LLM.int8() are left out" in said


@pytest.mark.parametrize(
    "name", ["reach_vs_perplexity", "count_vs_perplexity", "llm_int8_figure_3b", "llm_int8_figure_4b"]
)
def test_no_panel_holds_perplexities_of_models_with_different_tokenizers(name):
    for axes in of_twelve(name).axes:
        is_bits = axes.get_xlabel().startswith("bits per byte")
        assert len(marks(axes, MOE.marker, filled=True)) == (7 if is_bits else 0)
        assert bool(marks(axes, DENSE.marker, filled=True)) == is_bits
    assert "read different tokens: their perplexities are not comparable" in words(of_twelve(name))
    for axes in drawn(name, alike(), PUBLISHED_TABLES).axes:
        assert axes.get_xlabel().startswith("perplexity")
        assert len(marks(axes, MOE.marker, filled=True)) == 7
    one = alike()[lambda table: table["label"] == "Qwen3-4B"].drop(columns="windows_digest")
    assert all(axes.get_xlabel().startswith("perplexity") for axes in drawn(name, one).axes)


def test_counts_are_drawn_in_both_ways_and_published_ones_beside_their_own_kind():
    summed, distinct = drawn("count_vs_perplexity", alike(), PUBLISHED_TABLES).axes
    assert marks(summed, MOE.marker, filled=True) == places(rows("arb8020", "moe"), "perplexity", "outlier_count")
    own = places(rows("llm_int8", "moe"), "perplexity", "distinct_channels")
    assert marks(distinct, MOE.marker, filled=True) == own
    dense = PUBLISHED[PUBLISHED["kind"] == "dense"]
    assert marks(summed, DENSE.marker, filled=False) == places(dense, "perplexity", "outliers")
    assert marks(distinct, DENSE.marker, filled=False) == []


def test_a_single_count_gets_an_axis_of_a_decade():
    one = few().assign(distinct_channels=1, distinct_channels_low=1.0, distinct_channels_high=1.0)
    low, high = drawn("llm_int8_figure_4b", one).axes[0].get_ylim()
    assert low < 1 < high
    assert high >= 10 * low


def test_the_figures_of_the_paper_have_its_models_hollow_and_joined_by_family():
    axes = of_twelve("llm_int8_figure_3a").axes[0]
    assert (117e6, 25) in marks(axes, DENSE.marker, filled=False)
    assert (6.7e9, 100) in marks(axes, DENSE.marker, filled=False)
    assert len(marks(axes, DENSE.marker, filled=False)) == 10
    assert marks(axes, MOE.marker, filled=True) == places(rows("llm_int8", "moe"), "total_params", "mean_layer_pct")
    assert len([line for line in axes.lines if line.get_color() == FAINT]) == 3 + 4  # GPT2 and FSEQ
    layers, _, positions, _ = of_twelve("llm_int8_figure_3b").axes
    assert (13.3, 100) in marks(layers, DENSE.marker, filled=False)
    assert (33.5, 6) in marks(positions, DENSE.marker, filled=False)
    counts, _ = of_twelve("llm_int8_figure_4b").axes
    assert (12.5, 7) in marks(counts, DENSE.marker, filled=False)
    for name in ("3a", "3b", "4a", "4b"):
        figure = of_twelve(f"llm_int8_figure_{name}")
        assert "hollow: published (Dettmers et al. 2022, Table 4)" in legend(figure)
        assert "Measured here: distinct channels over all sequences together" in words(figure)
    assert "The published perplexity is on C4" in words(of_twelve("llm_int8_figure_4b"))


def test_magnitudes_have_quartiles_for_bars_and_signed_ones_of_both_signs_are_left_out():
    axes = of_twelve("llm_int8_figure_4a").axes[0]
    own = rows("llm_int8", "dense")
    assert marks(axes, DENSE.marker, filled=True) == places(own, "total_params", "largest_quartile_2")
    published = dict(marks(axes, DENSE.marker, filled=False))
    assert published[117e6] == 7
    assert published[125e6] == 23
    assert 762e6 not in published
    known = {(low, high) for _, low, high in bars(axes)}
    assert {(6, 8), (11, 40), (45, 63)} <= known
    assert set(places(own, "largest_quartile_1", "largest_quartile_3")) <= known
    assert "first to third quartile of |x|" in legend(of_twelve("llm_int8_figure_4a"))
    assert "GPT2 762M is left out" in words(of_twelve("llm_int8_figure_4a"))


def test_lines_go_through_the_models_of_one_kind_in_the_order_of_their_size():
    for axes, size in zip(of_twelve("reach_lines").axes, ("active_params", "total_params"), strict=True):
        own = rows("arb8020").sort_values(size)
        called = [tick.get_text() for tick in axes.get_yticklabels()]
        assert called == [f"{label}  ({parameters(count)})" for label, count in own[["label", size]].to_numpy()]
        for share, column in (("layers", "mean_layer_pct"), ("positions", "mean_position_pct")):
            lines = [line for line in axes.lines if line.get_color() == SHARES[share].color]
            found = [line for line in lines if line.get_linestyle() == SHARES[share].style and line.get_alpha() is None]
            expected = [list(own[own["kind"] == kind][column]) for kind in ("dense", "moe")]
            assert [list(line.get_xdata()) for line in found] == expected
            numbers = dict(zip(own["label"], range(12), strict=True))
            expected = [[numbers[label] for label in own[own["kind"] == kind]["label"]] for kind in ("dense", "moe")]
            assert [list(line.get_ydata()) for line in found] == expected
        published = PUBLISHED.set_index("model")["mean_layer_pct"]
        is_moe = [row for row, kind in enumerate(own["kind"]) if kind == "moe"]
        hollow = marks(axes, MOE.marker, filled=False)
        assert {(published[own["label"].iloc[row]], row) for row in is_moe} <= set(hollow)
        assert axes.get_xlim() == (0, 100)
        assert axes.yaxis_inverted()


def test_a_model_that_is_published_under_another_hub_name_has_a_row_of_its_own():
    figure = drawn("reach_lines", few().assign(hub=None), PUBLISHED_TABLES)
    assert [len(axes.get_yticklabels()) for axes in figure.axes] == [16, 16]


def phase_shift_panel(figure, row, column):
    return figure.axes[3 * row + column]


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


def test_the_toy_follows_the_rule_of_the_library():
    x_LTC = toy()
    is_hit_LTC = np.abs(x_LTC) >= THRESHOLD
    hits_NSC = is_hit_LTC.sum(axis=1)[:, None]
    definition = Definition(sites=["mlp_in"], scope="pooled")
    found = evidence.Evidence(
        criterion=criteria.Criterion("toy", definition, relative=False),
        length_S=np.array([x_LTC.shape[1]]),
        grid=(THRESHOLD,),
        tensors=[(layer, "mlp_in") for layer in range(len(x_LTC))],
        hits_NSC=hits_NSC,
        covered_SC=is_hit_LTC.any(axis=0).sum(axis=0)[None],
        levels_SCG=np.stack([(~is_hit_LTC).sum(axis=(0, 1)), is_hit_LTC.sum(axis=(0, 1))], axis=-1)[None],
        high_NSC=x_LTC.max(axis=1)[:, None],
        low_NSC=x_LTC.min(axis=1)[:, None],
        scale_NS=np.ones((len(x_LTC), 1)),
    )
    found, expected = shares(x_LTC), outlier_features.features(found)
    assert list(expected["channel"]) == list(found.index[found["is_outlier"]]) == [COORDINATED]
    own = found.loc[COORDINATED]
    assert (own["layer_pct"], own["position_pct"]) == pytest.approx(
        (100 * expected["layer_share"].item(), 100 * expected["position_share"].item())
    )


def test_the_toy_shows_every_hit_and_says_of_every_channel_what_the_rule_says():
    figure, x_LTC = of_twelve("residual_stream"), toy()
    for axes, x_TC in zip(figure.axes, x_LTC, strict=False):
        colors = np.asarray(axes.images[0].get_array())
        is_colored = np.ptp(colors, axis=-1) > 0.05
        assert (is_colored == (np.abs(x_TC) >= THRESHOLD)).all()
        (frame,) = axes.patches
        assert frame.get_x() == COORDINATED - 0.5
    said = [text.get_text() for axes in figure.axes[len(x_LTC) :] for text in axes.texts]
    assert {"at least 25 %", "at least 6 %", "7 of 8 = 87.5 %", "outlier feature: coordinated"} <= set(said)
    assert sum(text.startswith("none: too few") for text in said) == 7
    assert {"none: too few layers", "none: too few positions"} <= set(said)


def is_explained(axes):
    """Tell whether a panel has a mark or a picture, or else words."""
    is_marked = any(line.get_marker() in ("o", "D") and len(line.get_xdata()) for line in axes.lines)
    return is_marked or bool(axes.images or axes.texts)


CASES = {
    "one model, no mixture": (
        lambda: few()[lambda table: table["label"] == "Qwen3-4B"],
        "No mixture of experts was measured.",
    ),
    "no dense model": (lambda: few()[lambda table: table["kind"] == "moe"], "No dense model was measured."),
    "no outlier feature": (without_features, ""),
    "no perplexity": (lambda: without(few(), ("perplexity", "bits_per_byte")), ""),
    "no rows": (lambda: few().head(0), "the summary has no rows."),
    "another definition": (
        lambda: few()[lambda table: table["definition"] == "llm_int8_rms"].assign(definition="other"),
        "the summary has other.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_every_figure_and_says_what_lacks(case):
    make, sentence = CASES[case]
    summary = make()
    for name in FIGURES:
        figure = drawn(name, summary)
        assert all(is_explained(axes) for axes in figure.axes), name
        assert sentence in words(figure) or name == "residual_stream", name
        for artist in (*figure.texts, *figure.legends):
            assert is_within(artist.get_window_extent(), figure.bbox), (name, artist)


@pytest.mark.parametrize("name", ["reach_vs_perplexity", "count_vs_perplexity", "llm_int8_figure_3b"])
def test_without_perplexity_panels_say_it_and_published_models_still_stand(name):
    unknown = without(few(), ("perplexity", "bits_per_byte")).assign(windows_digest="the same")
    figure = drawn(name, unknown)
    assert {text.get_text().splitlines()[0] for axes in figure.axes for text in axes.texts} == {"no model to show:"}
    assert "No value of any model measured here is known for: perplexity." in words(figure)
    beside = drawn(name, unknown, PUBLISHED_TABLES)
    assert marks(beside.axes[0], DENSE.marker, filled=False)


def test_models_without_perplexity_are_named():
    summary = few().assign(windows_digest="the same")
    summary.loc[summary["kind"] == "moe", "perplexity"] = np.nan
    said = words(drawn("count_vs_perplexity", summary))
    assert "Not shown in a panel of perplexity, which is not known of them: Mixtral-8x7B, GPT-OSS-120B." in said


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


def test_models_without_outlier_feature_interrupt_the_lines_and_stand_aside():
    for axes in drawn("reach_lines", without_features()).axes:
        low, high = axes.get_xlim()
        assert low == -high * SHELF
        assert {x for x, _ in marks(axes, DENSE.marker, filled=True) if not np.isnan(x)} == {low / 2}
        assert "no\noutlier\nfeature" in [tick.get_text() for tick in axes.get_xticklabels()]


@pytest.mark.parametrize("name", FIGURES)
def test_words_of_twelve_models_stay_on_the_page_and_names_clear_of_each_other(name):
    figure = of_twelve(name)
    figure.canvas.draw()
    labels = [tick for axes in figure.axes for tick in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    written = [text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label)]
    for artist in (*figure.texts, *figure.legends, *labels, *written):
        assert is_within(artist.get_window_extent(), figure.bbox), artist
    for axes in figure.axes:
        assert overlapping(names(axes)) == []


@pytest.mark.parametrize("name", ["llm_int8_figure_4b", "reach_lines", "phase_shift", "residual_stream"])
def test_the_same_tables_give_the_same_bytes(name, tmp_path):
    for folder in ("one", "other"):
        save(drawn(name, few(), PUBLISHED_TABLES, trends(True)), tmp_path / folder / "figure.svg", {})
    assert len({path.read_bytes() for path in tmp_path.glob("*/figure.svg")}) == 1


@pytest.mark.parametrize("name", [pytest.param("moe_vs_dense", marks=pytest.mark.slow), "reach_lines"])
def test_hundreds_of_models_fit_into_a_figure_that_says_what_it_leaves_out(name, tmp_path):
    parts = [twelve(True).assign(total_params=lambda t, i=i: t["total_params"] * 1.001**i) for i in range(25)]
    for i, part in enumerate(parts):
        part["model"] = part["label"] = part["label"] + f" {i}"
    figure = drawn(name, pd.concat(parts, ignore_index=True))
    said = words(figure)
    assert ("Of 300 models the 80 largest are shown." in said) or ("Of 300 points the first 48 are named." in said)
    save(figure, tmp_path / "figure.png", {})
