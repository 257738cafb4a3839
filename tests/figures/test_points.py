"""Models as points: measured and published ones, where they stand and how they differ."""

import pandas as pd
import pytest
from drawings import bars, legend, marks, names, words
from figures_of_rows import DENSE, MOE, NOTHING_PUBLISHED, PUBLISHED, of_experiment, row
from outlier_features.figures.points import TOY, TOY_LABEL
from outlier_features.figures.style import MARKER_SIZE


def test_each_panel_shows_its_share_against_its_parameters(two):
    of_dense = [marks(axes, DENSE.marker, filled=True) for axes in two.axes]
    of_moe = [marks(axes, MOE.marker, filled=True) for axes in two.axes]
    assert of_dense == [[(2e9, 30)], [(2e9, 30)], [(2e9, 60)], [(2e9, 60)]]
    assert of_moe == [[(4e10, 50)], [(3e9, 50)], [(4e10, 40)], [(3e9, 40)]]
    assert [axes.get_xlabel() for axes in two.axes] == ["total parameters", "active parameters"] * 2
    assert [axes.get_ylabel() for axes in two.axes] == ["layers affected (%)", "", "positions affected (%)", ""]


def test_intervals_reach_from_low_to_high(two):
    assert bars(two.axes[0]) == [(DENSE.color, 28, 33), (MOE.color, 48, 53)]
    assert bars(two.axes[2]) == [(DENSE.color, 58, 63), (MOE.color, 38, 43)]


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


def test_published_value_of_a_measured_model_is_joined_to_it_and_not_named_again(joined):
    axes = joined.axes[0]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 12
    assert sorted(text.get_text() for text in names(axes)) == sorted(PUBLISHED["model"])
    assert "published and measured: the same model" in legend(joined)


def test_scale_free_twin_reads_its_own_rows_and_shows_nothing_published():
    rows = [row("A", layer=30), row("A", layer=10, definition="arb8020_rms")]
    figure = of_experiment("moe_vs_dense_rms", pd.DataFrame(rows), PUBLISHED)
    assert marks(figure.axes[0], DENSE.marker, filled=True) == [(1e9, 10)]
    assert marks(figure.axes[0], DENSE.marker, filled=False) == []
    assert "Definition arb8020_rms: |x| ≥ 6 times the RMS of the tensor, 16 sequences." in words(figure)
    assert "hollow: published (arb8020, 2025)" not in legend(figure)
