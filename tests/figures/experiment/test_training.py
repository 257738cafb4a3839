"""Training runs: each metric over its steps, and in words what lacks."""

import itertools
import math

import pandas as pd
import pytest
from drawings import is_within, legend, overlapping, words
from figures_of_rows import NOTHING_PUBLISHED, of_experiment, row, values
from matplotlib.collections import LineCollection
from outlier_features.figures.draw import save

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
