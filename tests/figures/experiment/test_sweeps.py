"""Figures of sweeps: bad input, words that stay on the page, equal bytes, and hundreds of models."""

import pandas as pd
import pytest
from drawings import is_within, names, overlapping, words
from figures_of_twelve import FIGURES, PUBLISHED_TABLES, drawn, few, of_twelve, trends, without, without_features
from outlier_features.figures.draw import save
from sweep_of_twelve import twelve


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
