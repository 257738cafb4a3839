"""Figures of odd models: no axis is empty without words, words stay on the page, and files stay small."""

import math

import numpy as np
import pandas as pd
import pytest
from outlier_features.figures.draw import draw_model, save
from portraits_of_models import (
    FIGURES,
    KURTOSES,
    SEQUENCES,
    convergence_rows,
    damage_rows,
    drawn,
    is_within,
    layers,
    model,
    outlier_rows,
    panel,
    position_rows,
    router,
    said,
    words,
)


def nothing():
    return model(
        layers=layers(1, ("attn_in",)),
        blocks=1,
        outliers=outlier_rows(),
        convergence=convergence_rows(1, llm_int8=math.nan),
        positions=position_rows(1, ("attn_in",), 0.0, 0.0),
        damage=damage_rows(1, ("attn_in",)),
        sequences=1,
    )


def old():
    kept = layers().drop(columns=[*KURTOSES[1:], "mmr", "massive_count", "massive_top", "channels"])
    table = pd.concat([kept, pd.DataFrame([router(0, [1.0])])[["block", "site", "token_class", "experts", "top_k"]]])
    table["expert_load"], table["routing_entropy"], table["unused_experts"] = None, math.nan, None
    none = pd.DataFrame()
    return model(layers=table.reset_index(drop=True), outliers=none, convergence=none, positions=none, damage=none)


def unknown():
    """A model whose every number is NaN or infinite."""
    table = layers()
    numbers = ["rms", "max_abs", *KURTOSES, "mmr"]
    table[numbers] = math.nan
    table.loc[table["site"] == "residual", numbers] = math.inf
    places = position_rows(16)
    places[["max_abs", "mean_max_abs"]] = math.nan
    lost = damage_rows().assign(predicted_sqnr_db=[math.nan, math.inf] * 24)
    experts = router(0, [0.5, 0.5], outputs=[None, math.inf]) | {"routing_entropy": math.nan}
    return model(layers=pd.concat([table, pd.DataFrame([experts])], ignore_index=True), positions=places, damage=lost)


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
        damage=damage_rows(100),
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
        (nothing, "damage", "Not captured: out_proj_in, mlp_in, down_in."),
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
        (
            old,
            "damage",
            "",
            "The capture did not keep how the values of matrix inputs are spread, so nothing was predicted.",
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


@pytest.mark.parametrize("name", FIGURES)
def test_the_largest_models_give_small_files(tmp_path, name):
    save(drawn(big, name), tmp_path / "figure.svg", {})
    assert (tmp_path / "figure.svg").stat().st_size < 1e6


@pytest.mark.parametrize("name", FIGURES)
def test_same_tables_give_the_same_bytes(tmp_path, mixture, name):
    for folder in ("one", "other"):
        save(draw_model(name, mixture), tmp_path / folder / "figure.svg", {})
    assert (tmp_path / "one" / "figure.svg").read_bytes() == (tmp_path / "other" / "figure.svg").read_bytes()
