"""Qualities: perplexities only of models that read the same tokens, and words where there are none."""

import numpy as np
import pytest
from drawings import marks, words
from figures_of_twelve import DENSE, MOE, PUBLISHED_TABLES, alike, drawn, few, of_twelve, without


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
