"""Reach and counts against size and quality: what stands where, beside what was published."""

import itertools

import pytest
from drawings import bars, marks, words
from figures_of_twelve import DENSE, MOE, PUBLISHED_TABLES, alike, drawn, few, of_twelve, places, rows
from sweep_of_twelve import PUBLISHED, twelve


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


def test_a_model_that_is_published_under_another_hub_name_has_a_row_of_its_own():
    figure = drawn("reach_lines", few().assign(hub=None), PUBLISHED_TABLES)
    assert [len(axes.get_yticklabels()) for axes in figure.axes] == [16, 16]
