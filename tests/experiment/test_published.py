"""Published models as points: in the units of the summary, and silent where something else was asked."""

import pandas as pd
import pytest
from outlier_features import shipped
from outlier_features.experiment import published, table_of_2025

TABLES = {name: pd.read_csv(shipped.published(name)) for name in ("arb8020_2025", "llm_int8_outliers")}


def test_the_sweep_of_2025_comes_in_the_units_of_a_summary() -> None:
    models = published.arb8020(TABLES, "").models.set_index("label")
    olmoe = models.loc["OLMoE-1B-7B"]
    assert (olmoe["total_params"], olmoe["active_params"]) == (7e9, pytest.approx(1.3e9))
    assert (olmoe["mean_layer_pct"], olmoe["mean_position_pct"], olmoe["outlier_count"]) == (29.5, 13.6, 49)
    assert models["kind"].value_counts().to_dict() == {"moe": 7, "dense": 5}


def test_quartiles_of_one_sign_become_magnitudes_and_those_of_both_signs_none() -> None:
    table = TABLES["llm_int8_outliers"]
    models = published.llm_int8({"llm_int8_outliers": table}, "").models
    gpt2 = models.set_index("label").loc["GPT2 117M"]
    assert gpt2["total_params"] == gpt2["active_params"] == 117e6
    assert [gpt2[f"largest_quartile_{n}"] for n in (1, 2, 3)] == [6, 7, 8]  # published as -8, -7, -6
    is_of_both_signs = (table["quartile_1"] < 0) & (table["quartile_3"] > 0)
    assert models["largest_quartile_2"].isna().tolist() == is_of_both_signs.tolist()


def test_a_table_that_is_not_there_has_no_models() -> None:
    assert published.arb8020({}, "") is published.NOTHING
    assert published.llm_int8({}, "") is published.NOTHING
    assert published.NOTHING.models.empty


def test_what_was_asked_otherwise_is_named_and_a_count_also_by_its_sequences() -> None:
    source = published.arb8020(TABLES, "")
    asked = {"threshold": 6.0, "min_layers": 0.25, "scope": "sequence", "sequences": 64}
    assert source.unlike(pd.DataFrame([asked])) == []
    assert source.unlike(pd.DataFrame([asked]), "outlier_count") == ["sequences 16 there and 64 here"]
    other = pd.DataFrame([asked, asked | {"min_layers": 0.5, "scope": "pooled"}])
    assert source.unlike(other) == [
        "min layers 0.25 there and 0.25 or 0.5 here",
        "scope sequence there and sequence or pooled here",
    ]


def test_as_a_summary_the_published_table_has_no_intervals_and_no_bits() -> None:
    summary = table_of_2025.as_summary(TABLES["arb8020_2025"]).set_index("model")
    assert summary.loc["OLMoE-1B-7B", "sparsity"] == pytest.approx(1.3 / 7)
    assert summary["bits_per_byte"].isna().all()
    assert set(summary["definition"]) == {"arb8020"}
    assert not [name for name in summary if name.endswith(("_low", "_high"))]
