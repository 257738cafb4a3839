"""Figures, from tables written by hand: what is drawn where, which words are written, and that files are stable."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from drawings import bars, is_within, legend, marks, names, overlapping, words
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.text import Text
from outlier_features.errors import ConfigError
from outlier_features.figures.draw import draw_experiment, draw_model, save
from outlier_features.figures.labels import Name, spread, write_names
from outlier_features.figures.model.channel_map import MOST_NUMBERED
from outlier_features.figures.page import page
from outlier_features.figures.points import TOY, TOY_LABEL
from outlier_features.figures.style import INK, KINDS, MARKER_SIZE, MASSIVE, style
from outlier_features.figures.tables import Portrait, Sweep
from PIL import Image

PROJECT = Path(__file__).parents[2]
PUBLISHED = pd.read_csv(PROJECT / "resources" / "published" / "arb8020_2025.csv")
NOTHING_PUBLISHED = PUBLISHED.head(0)
DENSE, MOE = KINDS["dense"], KINDS["moe"]


def of_experiment(name, summary, published):
    """Return a figure of an experiment beside what was published in 2025."""
    return draw_experiment(name, Sweep(summary, pd.DataFrame(), {"arb8020_2025": published}))


def of_model(name, channels, layers, hidden_size, blocks):
    """Return a figure of a model from its tables of channels and layers."""
    none = pd.DataFrame()
    tables = {"channels": channels, "layers": layers, "outliers": none, "convergence": none, "positions": none}
    facts = {"sequences": 16, "hit_threshold": 6.0, "hub": None, "published": {}}
    return draw_model(name, Portrait("Model", hidden_size, blocks, **tables, **facts))


def row(label, kind="dense", total=1e9, active=None, layer=30.0, position=60.0, **columns):
    """Return one row of a summary; shares come with an interval of -2 to +3 percent."""
    values = {
        "model": label.lower(),
        "label": label,
        "kind": kind,
        "hub": None,
        "series": None,
        "step": None,
        "total_params": int(total),
        "active_params": int(active or total),
        "definition": "arb8020",
        "threshold": 6.0,
        "sequences": 16,
        "outlier_count": 12.0,
        "mean_layer_pct": layer,
        "mean_layer_pct_low": layer - 2,
        "mean_layer_pct_high": layer + 3,
        "mean_position_pct": position,
        "mean_position_pct_low": position - 2,
        "mean_position_pct_high": position + 3,
        "note": None,
    }
    return values | columns


def empty_row(label, **columns):
    """Return a row of a model without any outlier feature."""
    return row(label, layer=math.nan, position=math.nan, outlier_count=0.0, **columns)


def published_as_measured(*, is_same_hub):
    """Return a summary that measures all published models, a little beside the published values."""
    return pd.DataFrame(
        row(
            model.model,
            model.kind,
            1.02e9 * model.total_params_b,
            1.03e9 * model.active_params_b,
            model.mean_layer_pct + 2,
            model.mean_seq_pct - 2,
            hub=model.hub if is_same_hub else None,
        )
        for model in PUBLISHED.itertuples()
    )


@pytest.fixture(scope="module")
def two():
    """A dense model and a mixture of experts, nothing published."""
    rows = [row("Dense", total=2e9, layer=30, position=60), row("Sparse", "moe", 4e10, 3e9, layer=50, position=40)]
    return of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED)


@pytest.fixture(scope="module")
def empty():
    """Two models of the same active size without outlier features, one with."""
    rows = [
        empty_row("None dense", total=3e6),
        empty_row("None sparse", kind="moe", total=8e6, active=3e6),
        row("Some"),
    ]
    return of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED)


@pytest.fixture(scope="module")
def joined():
    """Twelve measured models, each of them published too."""
    return of_experiment("moe_vs_dense", published_as_measured(is_same_hub=True), PUBLISHED)


@pytest.fixture(scope="module")
def crowded():
    """Twelve measured models among twelve published ones that are not known to be the same."""
    return of_experiment("moe_vs_dense", published_as_measured(is_same_hub=False), PUBLISHED)


def test_each_panel_shows_its_share_against_its_parameters(two):
    of_dense = [marks(axes, DENSE.marker, filled=True) for axes in two.axes]
    of_moe = [marks(axes, MOE.marker, filled=True) for axes in two.axes]
    assert of_dense == [[(2e9, 30)], [(2e9, 30)], [(2e9, 60)], [(2e9, 60)]]
    assert of_moe == [[(4e10, 50)], [(3e9, 50)], [(4e10, 40)], [(3e9, 40)]]
    assert [axes.get_xlabel() for axes in two.axes] == ["total parameters", "active parameters"] * 2
    assert [axes.get_ylabel() for axes in two.axes] == ["layers affected (%)", "", "positions affected (%)", ""]


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


def test_dense_and_moe_differ_in_colour_and_in_shape():
    assert DENSE.color != MOE.color
    assert DENSE.marker != MOE.marker


def test_intervals_reach_from_low_to_high(two):
    assert bars(two.axes[0]) == [(DENSE.color, 28, 33), (MOE.color, 48, 53)]
    assert bars(two.axes[2]) == [(DENSE.color, 58, 63), (MOE.color, 38, 43)]


def test_unknown_interval_is_left_out_and_said():
    unknown = dict.fromkeys(("mean_layer_pct_low", "mean_layer_pct_high"), math.nan)
    figure = of_experiment("moe_vs_dense", pd.DataFrame([row("A", **unknown), row("B", "moe")]), NOTHING_PUBLISHED)
    assert "A 95 % interval of some value is missing for A." in words(figure)
    assert bars(figure.axes[0]) == [(MOE.color, 28, 33)]


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


def of_sources(source, published=NOTHING_PUBLISHED, **columns):
    """Return the first panel of a figure with a model from the hub and one from another source."""
    other = row("Other", layer=90.0, source=source, total=3e6, **columns)
    summary = pd.DataFrame([row("Real", source="hub", total=2e9), other])
    return of_experiment("moe_vs_dense", summary, published)


@pytest.mark.parametrize(("source", "is_toy"), [("train", True), ("path", False), ("package", False), ("hub", False)])
def test_a_model_that_is_trained_here_is_grey_and_small_beside_others(source, is_toy):
    figure = of_sources(source)
    (other,) = (line for line in figure.axes[0].lines if (3e6, 90) in zip(*line.get_data(), strict=True))
    assert (other.get_markersize() < MARKER_SIZE) == is_toy
    assert (other.get_markerfacecolor() == TOY) == is_toy
    assert (TOY_LABEL in legend(figure)) == is_toy
    assert [color for color, low, _ in bars(figure.axes[0]) if low == 88] == ([] if is_toy else [DENSE.color])
    sizes = {text.get_text(): text.get_size() for text in names(figure.axes[0])}
    assert (sizes["Other"] < sizes["Real"]) == is_toy


def test_models_that_are_all_trained_here_are_no_toys_unless_published_ones_stand_beside():
    summary = pd.DataFrame([row("A", source="train"), row("B", "moe", source="train")])
    assert TOY_LABEL not in legend(of_experiment("moe_vs_dense", summary, NOTHING_PUBLISHED))
    assert TOY_LABEL in legend(of_experiment("moe_vs_dense", summary, PUBLISHED))


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


def test_published_points_are_hollow_and_at_their_values(crowded):
    moe = PUBLISHED[PUBLISHED["kind"] == "moe"]
    expected = [
        zip(1e9 * moe[f"{size}_params_b"], moe[share], strict=True)
        for share in ("mean_layer_pct", "mean_seq_pct")
        for size in ("total", "active")
    ]
    assert [marks(axes, MOE.marker, filled=False) for axes in crowded.axes] == [list(places) for places in expected]
    assert "hollow: published (arb8020, 2025)" in legend(crowded)
    assert "sums over sequences" in words(crowded)


def test_every_name_is_written_and_published_ones_are_smaller(crowded):
    for axes in crowded.axes:
        sizes = {
            label: sorted(t.get_fontsize() for t in names(axes) if t.get_text() == label) for label in PUBLISHED.model
        }
        assert len(names(axes)) == 24
        assert all(small < large for small, large in sizes.values())


def test_published_value_of_a_measured_model_is_joined_to_it_and_not_named_again(joined):
    axes = joined.axes[0]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 12
    assert sorted(text.get_text() for text in names(axes)) == sorted(PUBLISHED["model"])
    assert "published and measured: the same model" in legend(joined)


@pytest.mark.parametrize("case", ["empty", "joined", "crowded"])
def test_names_cover_neither_each_other_nor_a_mark_and_stay_in_the_panel(case, request):
    figure = request.getfixturevalue(case)
    radius = MARKER_SIZE / 2 * figure.dpi / 72
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_marker() in (DENSE.marker, MOE.marker)]
        places = [axes.transData.transform(place) for line in lines for place in line.get_xydata()]
        assert overlapping(names(axes)) == []
        for text in names(axes):
            box = text.get_window_extent()
            assert is_within(box, axes.get_window_extent())
            assert not any(box.padded(radius).contains(*place) for place in places), text.get_text()


@pytest.mark.parametrize(("floor", "stays_above"), [(0.0, True), (-math.inf, False)])
def test_names_stay_above_their_floor(floor, stays_above):
    sheet = page("Title", [], [], width=6, body=4, legend_rows=0)
    axes = sheet.axes(1, 0, 4, 3)
    axes.set(xlim=(0, 1), ylim=(-100, 100))
    write_names(axes, [Name(f"name {i}", 0.5, 1.0, floor=floor) for i in range(8)], [(0.5, 1.0)])
    ground = axes.transData.transform((0, 0))[1]
    assert all(text.get_window_extent().y0 >= ground for text in names(axes)) == stays_above
    assert overlapping(names(axes)) == []


@pytest.mark.parametrize("case", ["two", "empty", "joined", "crowded"])
def test_words_and_legend_stay_on_the_page(case, request):
    figure = request.getfixturevalue(case)
    for artist in (*figure.texts, *figure.legends):
        assert is_within(artist.get_window_extent(), figure.bbox)


def test_scale_free_twin_reads_its_own_rows_and_shows_nothing_published():
    rows = [row("A", layer=30), row("A", layer=10, definition="arb8020_rms")]
    figure = of_experiment("moe_vs_dense_rms", pd.DataFrame(rows), PUBLISHED)
    assert marks(figure.axes[0], DENSE.marker, filled=True) == [(1e9, 10)]
    assert marks(figure.axes[0], DENSE.marker, filled=False) == []
    assert "Definition arb8020_rms: |x| ≥ 6 times the RMS of the tensor, 16 sequences." in words(figure)
    assert "hollow: published (arb8020, 2025)" not in legend(figure)


def test_what_cannot_be_shown_is_said():
    rows = [
        row("Fine"),
        row("Odd", layer=math.nan, position=math.nan, outlier_count=math.nan, note="its inputs differ in width"),
        row("Elsewhere", definition="llm_int8"),
    ]
    said = words(of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED))
    assert "No mixture of experts was measured." in said
    assert "Not shown: Odd (its inputs differ in width)." in said
    assert "Not shown, for want of a row under arb8020: Elsewhere." in said


@pytest.mark.parametrize("rows", [[row("A", definition="llm_int8")], []])
def test_missing_definition_gives_a_figure_that_says_so(rows):
    summary = pd.DataFrame(rows, columns=list(row("A")))
    figure = of_experiment("moe_vs_dense", summary, NOTHING_PUBLISHED)
    present = ", ".join(summary["definition"]) or "no rows"
    assert f"No model was measured under arb8020; the summary has {present}." in words(figure)
    assert [[text.get_text() for text in names(axes)] for axes in figure.axes] == [["no model to show"]] * 4


STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 3000, 10000, 33000, 71000, 143000)


def step_rows(series, step, features, twin_features=0, **columns):
    """Return the rows of a step under both definitions: 20 % of the layers and 40 % of the positions, or none."""
    rows = []
    for definition, count in (("llm_int8", features), ("llm_int8_rms", twin_features)):
        values = {
            "definition": definition,
            "hub": f"org/{series}",
            "series": series,
            "step": step,
            "outlier_count": float(count),
            "distinct_channels": float(count),
            "distinct_channels_low": count - 0.5,
            "distinct_channels_high": count + 0.5,
            "perplexity": 5000 / (1 + step) ** 0.4,
            "perplexity_low": 4900 / (1 + step) ** 0.4,
            "perplexity_high": 5100 / (1 + step) ** 0.4,
            "kurtosis_max": 2.0 + step / 1000,
            "massive_count": 5.0 if features > 1 else 0.0,
            "massive_max_abs": 100.0 * features if features > 1 else math.nan,
        }
        shares = (20.0, 40.0) if count else (math.nan, math.nan)
        rows.append(row(f"{series} step {step}", layer=shares[0], position=shares[1], **(values | columns)))
    return rows


def training(*rows):
    summary = pd.DataFrame([each for group in rows for each in group], columns=list(step_rows("x", 0, 1)[0]))
    return of_experiment("training", summary.astype({"step": "Int64"}), NOTHING_PUBLISHED)


@pytest.fixture(scope="module")
def run():
    """A training run of 17 steps whose outlier features come at step 512, and under the twin at 256."""
    return training(*(step_rows("pythia", s, 3 * (s >= 512), 5 * (s >= 256)) for s in STEPS))


@pytest.fixture(scope="module")
def runs():
    """Two training runs of other steps; the second starts at 1000."""
    of_one = (step_rows("pythia", s, 3 * (s >= 512), 5 * (s >= 256)) for s in STEPS)
    return training(*of_one, *(step_rows("olmo", s, 2 * (s > 1000), 0) for s in (1000, 20000, 700000)))


def panel(figure, words):
    """Return the panel whose label begins with `words`."""
    (found,) = [axes for axes in figure.axes if axes.get_ylabel().startswith(words)]
    return found


def values(axes, style):
    """Return {step: value} of each line of a style, without the blank ones."""
    lines = [line for line in axes.lines if line.get_linestyle() == style]
    return [{x: y for x, y in zip(*line.get_data(), strict=True) if not math.isnan(y)} for line in lines]


def test_each_metric_of_a_run_is_drawn_over_its_steps_and_its_twin_dashed(run):
    features = panel(run, "outlier features")
    assert values(features, "-") == [{s: 3.0 * (s >= 512) for s in STEPS}]
    assert values(features, "--") == [{s: 5.0 * (s >= 256) for s in STEPS}]
    assert values(panel(run, "layers"), "-") == [{s: 20.0 for s in STEPS if s >= 512}]
    assert values(panel(run, "positions"), "--") == [{s: 40.0 for s in STEPS if s >= 256}]
    assert values(panel(run, "kurtosis"), "-") == [{s: 2.0 + s / 1000 for s in STEPS}]
    assert values(panel(run, "largest"), "-") == [{s: 300.0 for s in STEPS if s >= 512}]
    assert values(panel(run, "perplexity"), "-") == [{s: 5000 / (1 + s) ** 0.4 for s in STEPS}]
    assert {"pythia", "filled, solid line: llm_int8", "hollow, dashed line: llm_int8_rms"} <= set(legend(run))
    assert "llm_int8: |x| ≥ 6; llm_int8_rms: |x| ≥ 6 times the RMS of the tensor; 16 sequences." in words(run)


def test_steps_without_outlier_feature_stand_on_a_named_shelf_below_all_values(run):
    for axes in (panel(run, "layers"), panel(run, "positions")):
        plain, twin = values(axes, "None")
        assert (set(plain), set(twin)) == ({s for s in STEPS if s < 512}, {s for s in STEPS if s < 256})
        ground = axes.get_xaxis_transform().inverted().transform(axes.transData.transform((1, 0)))[1]
        assert 0 < twin[0] < plain[0] < ground
        assert [text.get_text() for text in axes.texts] == ["no outlier\nfeature"]
        assert min(axes.get_yticks()) == 0
    assert [text.get_text() for text in panel(run, "largest").texts] == ["no massive\nactivation"]
    assert len(panel(run, "outlier features").texts) == 0


def test_step_0_has_a_place_left_of_a_logarithmic_axis_with_readable_ticks(run):
    for axes in run.axes:
        ticks = [tick.get_text() for tick in axes.get_xticklabels()]
        assert ticks == ["0", "1", "10", "100", "1k", "10k", "100k"]
        places = [axes.transData.transform((step, axes.get_ylim()[1]))[0] for step in STEPS]
        assert axes.get_window_extent().x0 < places[0]
        assert min(later - earlier for earlier, later in itertools.pairwise(places)) > 20
    assert "Step 0 is the model before training" in words(run)


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [((0,), ["0"]), ((1000,), ["1k"]), ((300, 1000, 5000), ["500", "1k", "2k", "5k"]), ((0, 3000), ["0", "3k"])],
)
def test_few_steps_have_ticks_too(steps, ticks):
    figure = training(*(step_rows("run", step, 3, 3) for step in steps))
    assert [tick.get_text() for tick in panel(figure, "perplexity").get_xticklabels()] == ticks


def test_intervals_of_a_run_are_bars_from_low_to_high(run):
    absolute, twin = (found for found in panel(run, "layers").collections if isinstance(found, LineCollection))
    assert [segment[:, 1].tolist() for segment in absolute.get_segments()] == [[18, 23]] * sum(s >= 512 for s in STEPS)
    assert len(twin.get_segments()) == sum(s >= 256 for s in STEPS)
    assert "95 % interval" in legend(run)
    assert "kurtosis and massive activations have none" in words(run)


def test_several_runs_differ_in_colour_and_shape_and_hide_each_other_on_no_shelf(runs):
    lines = {line.get_color(): line.get_marker() for line in panel(runs, "perplexity").lines}
    assert list(lines.values()) == ["o", "s"]
    assert {"pythia", "olmo"} <= set(legend(runs))
    lanes = [next(iter(found.values())) for found in values(panel(runs, "layers"), "None") if found]
    assert len(lanes) == len(set(lanes)) == 4


@pytest.mark.parametrize("case", ["run", "runs"])
def test_words_of_a_run_stay_on_the_page_and_clear_of_each_other(case, request):
    figure = request.getfixturevalue(case)
    figure.canvas.draw()
    for axes in figure.axes:
        written = [axes.yaxis.label, axes.xaxis.label, *axes.texts, *axes.get_xticklabels()]
        inside = [tick for tick in axes.get_yticklabels() if tick.get_text()]
        assert overlapping([*written, *inside]) == []
        assert all(is_within(text.get_window_extent(), figure.bbox) for text in [*written, *inside])
    for artist in (*figure.texts, *figure.legends):
        assert is_within(artist.get_window_extent(), figure.bbox)


def test_what_a_step_lacks_interrupts_the_line_and_is_said():
    lacking = step_rows("run", 10, 3, 3, kurtosis_max=math.nan)
    figure = training(step_rows("run", 1, 3, 3), lacking, step_rows("run", 100, 3, 3)[:1])
    assert "run has no value at step 10 of: kurtosis of the residual stream." in words(figure)
    lost = ", ".join(
        f"{name} (llm_int8_rms)" for name in ("distinct channels", "layers affected", "positions affected")
    )
    assert f"run has no value at step 100 of: {lost}." in words(figure)
    (line,) = panel(figure, "kurtosis").lines[:1]
    assert [math.isnan(y) for y in line.get_ydata()] == [False, True, False]


def test_a_panel_without_any_value_says_why():
    figure = training(step_rows("run", 1, 0, kurtosis_max=math.nan), step_rows("run", 2, 0, kurtosis_max=math.nan))
    assert [text.get_text() for text in panel(figure, "kurtosis").texts] == [
        "kurtosis of the residual stream: not measured at any step"
    ]
    assert "no outlier feature at any step" in [text.get_text() for text in panel(figure, "layers").texts]
    assert "no massive activation at any step" in [text.get_text() for text in panel(figure, "largest").texts]


def test_an_experiment_without_series_gives_a_figure_that_says_so():
    figure = of_experiment("training", pd.DataFrame([row("A")]), NOTHING_PUBLISHED)
    assert "No model of the experiment is a step of a training run." in words(figure)
    assert all("not measured" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_a_run_gives_the_same_bytes_each_time(tmp_path):
    for folder in ("one", "other"):
        save(training(*(step_rows("run", s, 3, 5) for s in (0, 10, 1000))), tmp_path / folder / "run.png", {})
    assert (tmp_path / "one" / "run.png").read_bytes() == (tmp_path / "other" / "run.png").read_bytes()


def test_only_the_last_step_of_a_series_stands_among_models_and_it_is_said():
    steps = [row(f"Run step {s}", series="run", step=s, layer=layer) for s, layer in ((10, 20), (900, 70), (30, 40))]
    single = row("Other step 5", series="other", step=5, layer=55)
    summary = pd.DataFrame([row("A", layer=30), *steps, single]).astype({"step": "Int64"})
    figure = of_experiment("moe_vs_dense", summary, NOTHING_PUBLISHED)
    assert sorted(text.get_text() for text in names(figure.axes[0])) == ["A", "Other step 5", "Run step 900"]
    assert sorted(y for _, y in marks(figure.axes[0], DENSE.marker, filled=True)) == [30, 55, 70]
    assert "Of the training run run only the last of 3 steps is shown (900)." in words(figure)
    assert "training run other" not in words(figure)


def hit(channel, block=0, site="attn_in", max_abs=10.0, is_outlier=False, definition="llm_int8"):
    return {
        "definition": definition,
        "block": block,
        "site": site,
        "channel": channel,
        "hit_count": 5,
        "max_abs": max_abs,
        "max_value": -max_abs,
        "is_outlier": is_outlier,
    }


def channel_map(hits, layers=(), hidden_size=64, blocks=4):
    channels = pd.DataFrame(hits, columns=list(hit(0)))
    table = pd.DataFrame(layers, columns=["block", "site", "token_class", "max_abs", "rms"])
    return of_model("channel_map", channels, table, hidden_size, blocks)


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


@pytest.mark.parametrize("places", [[50.0], [0.0, 0.0, 0.0], [10.0, 40.0, 41.0, 90.0], [99.0, 100.0], [5.0] * 20])
def test_spread_keeps_neighbours_apart_within_the_limits_and_moves_nothing_without_need(places):
    gap = min(10.0, 100 / max(1, len(places) - 1))
    moved = spread(places, 10.0, 0.0, 100.0)
    assert min([later - earlier for earlier, later in itertools.pairwise(moved)], default=gap) >= gap - 1e-9
    assert min(moved) >= 0
    assert max(moved) <= 100 + 1e-9
    assert spread(moved, gap, 0.0, 100.0) == pytest.approx(moved)


def test_spread_moves_a_cluster_to_both_sides():
    assert spread([10.0, 50.0, 50.0], 10.0, 0.0, 100.0) == [10.0, 45.0, 55.0]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_tables_give_the_same_bytes(tmp_path, suffix):
    for folder in ("one", "other"):
        figure = channel_map([hit(3, is_outlier=True), hit(9, site="mlp_in")])
        save(figure, tmp_path / folder / f"map.{suffix}", {"lineage": "abc"})
    assert (tmp_path / "one" / f"map.{suffix}").read_bytes() == (tmp_path / "other" / f"map.{suffix}").read_bytes()


def test_names_are_placed_the_same_each_time(joined):
    again = of_experiment("moe_vs_dense", published_as_measured(is_same_hub=True), PUBLISHED)
    placed = [
        [(t.get_text(), t.get_position()) for axes in figure.axes for t in axes.texts] for figure in (joined, again)
    ]
    assert placed[0] == placed[1]


def test_saved_files_carry_their_provenance(tmp_path):
    provenance = {"model": "Modèle", "lineage": {"plot": "abc"}}
    figure = channel_map([hit(3)])
    for suffix in ("png", "svg"):
        save(figure, tmp_path / f"map.{suffix}", provenance)
    assert json.loads(Image.open(tmp_path / "map.png").text["Description"]) == provenance
    svg = (tmp_path / "map.svg").read_text()
    description = svg.partition("<dc:description>")[2].partition("</dc:description>")[0]
    assert json.loads(description.replace("&quot;", '"')) == provenance
    assert "<dc:date>" not in svg


def test_png_has_the_dots_an_inch_that_names_are_placed_at(tmp_path, two):
    save(two, tmp_path / "figure.png", {})
    assert Image.open(tmp_path / "figure.png").size == tuple(int(144 * side) for side in two.get_size_inches())


def test_failed_save_keeps_the_old_file_and_leaves_nothing_else(tmp_path, two, monkeypatch):
    path = tmp_path / "figure.svg"
    path.write_bytes(b"old")

    def fail(unfinished, **_):
        unfinished.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(two, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(two, path, {})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"figure.svg": b"old"}


def test_files_of_a_figure_are_small_and_the_letters_of_an_svg_are_text(tmp_path, joined):
    for suffix in ("png", "svg"):
        save(joined, tmp_path / f"figure.{suffix}", {})
    assert Image.open(tmp_path / "figure.png").mode == "P"
    assert (tmp_path / "figure.png").stat().st_size < 300_000
    assert (tmp_path / "figure.svg").stat().st_size < 150_000
    assert ">Qwen3-0.6B</text>" in (tmp_path / "figure.svg").read_text()


def test_other_suffix_is_refused(tmp_path, two):
    with pytest.raises(ConfigError, match=r"figure\.pdf: a figure is written as \.png or \.svg"):
        save(two, tmp_path / "figure.pdf", {})


def test_unknown_figure_names_the_known_ones_of_its_scope():
    summary = pd.DataFrame([row("A")])
    with pytest.raises(
        ConfigError, match="unknown figure 'channel_map' for one experiment; known: residual_stream, moe_v"
    ):
        of_experiment("channel_map", summary, PUBLISHED)
    with pytest.raises(ConfigError, match="unknown figure 'moe_vs_dense' for one model; known: channel_map"):
        of_model("moe_vs_dense", pd.DataFrame(), pd.DataFrame(), 8, 2)


def test_drawing_changes_no_setting_of_matplotlib():
    before = dict(matplotlib.rcParams)
    channel_map([hit(3)])
    with style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_figures_import_neither_torch_nor_the_configuration():
    code = (
        "import sys, outlier_features.figures.draw as d; print({'torch', 'yaml', 'pydantic'} & set(sys.modules) or [])"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
