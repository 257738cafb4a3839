"""The summary of models of unlike precision, of what is massive, and of what has no interval."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DEFINITIONS, capture_settings
from naive_features import naive_features
from outlier_features.capture.run import capture
from outlier_features.experiment.summary import Entry, _layer_columns, summarize
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity

LOW = DEFINITIONS["llm_int8"].model_copy(update={"threshold": 3.0, "min_positions": 0.0, "min_layers": 0.0})
"""Met by so many activations that some are below 3 and rounded to it."""


def entry(name: str, manifest: Path, tokens: Path, folder: Path) -> Entry:
    """Reduce the statistics of a model to the tables of its entry."""
    paths = {table: folder / f"{name}-{table}.parquet" for table in TABLES}
    reduce(
        [manifest],
        paths | {"answer": folder / f"{name}-answer.json"},
        DEFINITIONS | {"low": LOW},
        {"reduction": "test", "statistics": "test"},
    )
    quality = folder / f"{name}.json"
    write_perplexity([manifest], tokens, quality, {"perplexity": "test", "statistics": "test"})
    return Entry(name, name, "path", None, None, None, paths["outliers"], paths["layers"], quality)


@pytest.fixture(scope="module")
def entries(tmp_path_factory, checkpoints, manifests, tokens) -> list[Entry]:
    folder = tmp_path_factory.mktemp("summary")
    settings = capture_settings(torch.bfloat16)
    capture(checkpoints["moe"], tokens, folder / "coarse.json", settings, {"statistics": "test"})
    fine = entry("dense", manifests["dense"], tokens, folder)
    return [fine, entry("coarse", folder / "coarse.json", tokens, folder)]


def summary(entries: Sequence[Entry]) -> pd.DataFrame:
    return summarize(entries, "words", {"summary": "test"})[0].set_index(["model", "definition"])


def test_a_model_of_float32_beside_one_of_bfloat16_is_compared_at_its_rounding(entries, activations) -> None:
    shares = [
        100 * naive_features(activations["dense"], each, relative=False)["position_share"].mean()
        for each in (LOW, LOW.model_copy(update={"rounding": "bfloat16"}))
    ]
    assert shares[0] != shares[1]
    alone, beside = summary(entries[:1]), summary(entries)
    assert alone.loc[("dense", "low"), "mean_position_pct"] == pytest.approx(shares[0])
    assert beside.loc[("dense", "low"), "mean_position_pct"] == pytest.approx(shares[1])


def test_the_summary_says_at_which_rounding_each_row_is(entries) -> None:
    alone, beside = summary(entries[:1])["rounding"], summary(entries)["rounding"]
    assert alone["dense", "arb8020"] == "bfloat16"
    assert pd.isna(alone["dense", "llm_int8"])
    for model in ("dense", "coarse"):
        assert set(beside[model][list(DEFINITIONS)]) == {"bfloat16"}
        assert beside[model][[f"{name}_rms" for name in DEFINITIONS]].isna().all()


def test_counts_of_channels_medians_and_pooled_shares_have_no_interval_and_say_why(entries) -> None:
    rows = summary(entries).loc["dense"]
    without = ["distinct_channels", "stable_channels", "median_layer_pct", "median_position_pct"]
    pooled = [*without, "outlier_count", "mean_layer_pct", "mean_position_pct"]
    for definition, names in {"arb8020": without, "llm_int8": pooled}.items():
        row = rows.loc[definition]
        assert row[names].notna().all()
        assert row[[f"{name}_{end}" for name in names for end in ("low", "high")]].isna().all()
        assert all(name in row["interval_note"] for name in names)
    assert "a pooled share, a maximum over sequences" in rows.loc["llm_int8", "interval_note"]


def test_the_largest_massive_activation_is_one_that_is_massive() -> None:
    top = [{"value": value} for value in (-1500.0, 300.0)]
    residual = pd.DataFrame(
        {"kurtosis_neuron_rms": [2.0, 3.0], "massive_count": [2, 0], "massive_top": [np.array(top), np.array([])]}
    ).assign(max_abs=[1500.0, 9000.0])  # block 1: large, and less than 1,000 times its median
    found = _layer_columns(residual)
    assert (found["kurtosis_max"], found["massive_count"], found["massive_max_abs"]) == (3.0, 2, 1500.0)
    assert _layer_columns(residual.iloc[1:])["massive_max_abs"] is None
    assert not math.isnan(found["massive_max_abs"])
