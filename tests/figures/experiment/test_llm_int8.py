"""The figures of the paper with its models hollow beside those of the sweep."""

from drawings import bars, legend, marks, words
from figures_of_twelve import DENSE, MOE, of_twelve, places, rows
from outlier_features.figures.style import FAINT


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
