"""The published comparison, from tables written by hand: every difference is known."""

import math
from pathlib import Path

import pandas as pd
import pytest
from outlier_features.experiment import table_of_2025
from outlier_features.experiment.reproduction import COLUMNS, compared, joined
from outlier_features.experiment.reproduction_text import reproduce
from outlier_features.experiment.table_of_2025 import COMPARED, COUNTED_OTHERWISE, REMARKS

PROJECT = Path(__file__).parents[2]
SHIPPED = PROJECT / "resources/published/arb8020_2025.csv"
LINEAGE = {"reproduction": "abc", "summary": "def"}


def published(name="Ours", hub="org/ours", **columns):
    """Return a row of the published table, in which 100 outlier features reach half of all."""
    values = {
        "model": name,
        "hub": hub,
        "kind": "dense",
        "total_params_b": 2.0,
        "active_params_b": 1.0,
        "experts": None,
        "top_k": math.nan,
        "outliers": 100,
        "mean_layer_pct": 50.0,
        "mean_seq_pct": 50.0,
        "perplexity": 20.0,
    }
    return values | columns


def measured(label="ours", hub="org/ours", **columns):
    """Return a row of a summary: a tenth more outlier features, a fifth fewer layers, the same positions."""
    values = {
        "model": label,
        "label": label,
        "hub": hub,
        "series": None,
        "step": None,
        "definition": "arb8020",
        "threshold": 6.0,
        "sequences": 16,
        "length": 2048,
        "windows": "packed",
        "dtype": "bfloat16",
        "note": None,
        "total_params": 2_020_000_000,
        "active_params": 1_500_000_000,
        "active_params_without_embedding": 1_250_000_000,
        "active_params_without_embedding_and_head": 1_000_000_000,
        "experts": None,
        "top_k": None,
        "outlier_count": 110,
        "outlier_count_low": 90.0,
        "outlier_count_high": 120.0,
        "mean_layer_pct": 40.0,
        "mean_layer_pct_low": 38.0,
        "mean_layer_pct_high": 42.0,
        "mean_position_pct": 50.0,
        "mean_position_pct_low": 50.0,
        "mean_position_pct_high": 50.0,
        "perplexity": 25.0,
        "perplexity_low": 24.0,
        "perplexity_high": 26.0,
    }
    return values | columns


def summary(*rows):
    integers = dict.fromkeys(("step", "experts", "top_k", "outlier_count"), "Int64")
    return pd.DataFrame(list(rows) or [measured()]).head(len(rows)).astype(integers)


def comparison(ours, theirs):
    """Return {(model, quantity): row} of the comparison of two lists of rows."""
    table = compared(joined(summary(*ours), pd.DataFrame(theirs)))
    assert list(table.columns) == list(COLUMNS)
    assert len(table) % len(COMPARED) == 0
    return {(row["model"], row["quantity"]): row for _, row in table.iterrows()}


def written(folder, ours, table=SHIPPED, corpus="words"):
    outputs = folder / "reproduction.csv", folder / "reproduction.md"
    reproduce(summary(*ours), table, *outputs, corpus, LINEAGE)
    return pd.read_csv(outputs[0]), outputs[1].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("quantity", "value", "low", "high", "difference", "is_inside"),
    [
        ("outliers", 110, 90, 120, 10, True),
        ("mean_layer_pct", 40, 38, 42, -20, False),
        ("mean_seq_pct", 50, 50, 50, 0, True),
        ("perplexity", 25, 24, 26, 25, False),
        ("total_params_b", 2.02, None, None, 1, None),
        ("active_params_b", 1.5, None, None, 50, None),
    ],
)
def test_differences_are_in_percent_of_what_was_published(quantity, value, low, high, difference, is_inside):
    row = comparison([measured()], [published()])["ours", quantity]
    found = [None if pd.isna(row[name]) else row[name] for name in ("measured", "measured_low", "measured_high")]
    assert found == [value, low, high]
    assert row["difference_pct"] == pytest.approx(difference)
    assert (row["inside_interval"] is pd.NA) if is_inside is None else (row["inside_interval"] == is_inside)


def test_a_blank_cell_stays_blank_and_says_that_it_was_not_published():
    row = comparison([measured()], [published(perplexity=math.nan)])["ours", "perplexity"]
    assert row[["published", "difference_pct", "inside_interval"]].isna().all()
    assert row["measured"] == 25
    assert row["remark"] == "not published"


def test_a_published_zero_is_a_value_without_a_percentage():
    row = comparison([measured(outlier_count_low=0.0)], [published(outliers=0)])["ours", "outliers"]
    assert row["published"] == 0
    assert math.isnan(row["difference_pct"])
    assert row["inside_interval"]
    assert row["remark"].endswith("no percentage of a published 0")


def test_a_model_without_outlier_features_has_a_count_of_0_and_no_shares():
    none = dict.fromkeys(f"mean_{share}_pct{end}" for share in ("layer", "position") for end in ("", "_low", "_high"))
    found = comparison(
        [measured(outlier_count=0, outlier_count_low=0.0, outlier_count_high=0.0, **none)], [published()]
    )
    assert found["ours", "outliers"]["difference_pct"] == -100
    share = found["ours", "mean_seq_pct"]
    assert share[["measured", "difference_pct", "inside_interval"]].isna().all()
    assert share["remark"] == "no outlier feature was found, so there is no mean share"


def test_a_measurement_that_was_not_possible_says_why():
    found = comparison([measured(outlier_count=None, note="the inputs differ in width")], [published()])
    assert "the inputs differ in width" in found["ours", "outliers"]["remark"]


@pytest.mark.parametrize(
    ("hub", "value", "words"),
    [
        ("org/ours", 1.5, "active_params: with embedding table and head"),
        ("openai/gpt-oss-120b", 1.25, "active_params_without_embedding: without the embedding table, with the head"),
        ("zai-org/GLM-4.5-Air", 1.0, "active_params_without_embedding_and_head: without embedding table and head"),
    ],
)
def test_active_parameters_are_counted_as_the_publisher_does_and_it_is_said(hub, value, words):
    row = comparison([measured(hub=hub)], [published(hub=hub)])["ours", "active_params_b"]
    assert (row["measured"], row["remark"]) == (value, words)
    assert "total_params" in comparison([measured()], [published()])["ours", "total_params_b"]["remark"]


def test_experts_published_in_words_are_compared_as_the_number_they_begin_with():
    row = comparison([measured(experts=512)], [published(experts="512+1 shared", top_k=10.0)])["ours", "experts"]
    assert (row["published"], row["measured"], row["difference_pct"]) == (512, 512, 0)
    assert "published as 512+1 shared" in row["remark"]


def test_what_is_on_one_side_only_keeps_its_rows():
    found = comparison([measured("mine", hub=None)], [published("Theirs")])
    assert {model for model, _ in found} == {"Theirs", "mine"}
    assert found["Theirs", "perplexity"]["published"] == 20
    assert found["Theirs", "perplexity"]["remark"] == "not measured"
    assert found["mine", "perplexity"]["measured"] == 25
    assert found["mine", "perplexity"]["remark"] == "not in the published table"
    assert pd.isna(found["mine", "perplexity"]["hub"])


def test_models_join_by_hub_name_in_the_order_of_the_table_and_twice_if_measured_twice():
    ours = [measured("b"), measured("a", hub="org/a"), measured("b in float32", dtype="float32")]
    theirs = pd.DataFrame([published("A", "org/a"), published("B")])
    assert [(pair.name, pair.is_joined) for pair in joined(summary(*ours), theirs)] == [
        ("a", True),
        ("b", True),
        ("b in float32", True),
    ]


def test_steps_of_a_series_and_other_definitions_are_left_out():
    step = measured("ours step 9", series="ours", step=9)
    (pair,) = joined(summary(step, measured(definition="llm_int8")), pd.DataFrame([published()]))
    assert pair.ours is None


def test_the_document_is_a_table_of_measured_published_and_difference(tmp_path):
    table = tmp_path / "published.csv"
    pd.DataFrame([published(perplexity=None), published("Absent", "org/absent", outliers=9212)]).to_csv(table)
    series = measured("run step 9", series="run", step=9)
    _, text = written(tmp_path, [measured(), measured("mine", hub=None), series], table)
    assert text.startswith("# ")
    assert "measured on 16 sequences of 2,048 tokens of the corpus `words` (packed windows)" in text
    assert "forward pass in bfloat16" in text
    row = "| ours | 110 / 100 (+10.0 % ✓) | 40.0 / 50 (-20.0 %) | 50.0 / 50 (+0.0 % ✓) | 25.0 / - | 2.02 / 2 (+1.0 %)"
    assert row in text
    assert "**Published, not measured:** Absent." in text
    assert "**Measured, not in the published table:** mine." in text
    assert "**Left out, steps of a training run:** run." in text


@pytest.mark.parametrize("fact", ["exceed the hidden size", "9,212", "28.0 and 14.3", "inferred", "32 experts", "half"])
def test_the_document_states_each_known_fault_once(tmp_path, fact):
    _, text = written(tmp_path, [measured(hub="Qwen/Qwen3-0.6B")])
    assert text.partition("## Known faults of the published table")[2].count(fact) == 1


def test_the_document_ends_with_its_provenance(tmp_path):
    _, text = written(tmp_path, [measured()])
    assert "Lineage: reproduction abc, summary def. Published table: sha256 " in text.splitlines()[-1]


def test_nothing_to_join_gives_files_that_say_so(tmp_path):
    table, text = written(tmp_path, [measured("toy", hub=None)], corpus="sotu")
    assert "No measured model is in the published table, so there is nothing to compare." in text
    assert "**Measured, not in the published table:** toy." in text
    assert "Qwen3-14B" in text
    assert len(table) == (12 + 1) * len(COMPARED)
    assert table["difference_pct"].isna().all()


def test_a_summary_without_the_definition_gives_files_that_say_so(tmp_path):
    table, text = written(tmp_path, [measured(definition="llm_int8")])
    assert "no model was measured under the definition `arb8020`" in text
    assert table["measured"].isna().all()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for folder in ("one", "other"):
        written(tmp_path / folder, [measured(hub="Qwen/Qwen3-0.6B")])
    for name in ("reproduction.csv", "reproduction.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_what_is_known_of_single_models_is_about_models_of_the_shipped_table():
    hubs = set(pd.read_csv(SHIPPED)["hub"])
    assert set(COUNTED_OTHERWISE) <= hubs
    assert {hub for hub, _ in REMARKS} <= hubs
    assert {quantity.name for quantity in COMPARED} <= set(pd.read_csv(SHIPPED).columns)
    assert {quantity for _, quantity in REMARKS} <= {quantity.name for quantity in COMPARED}


AS_PUBLISHED = {**table_of_2025.AS_PUBLISHED, "dtype": "bfloat16", "hub": "Qwen/Qwen3-8B"}


def test_the_sweep_as_its_source_ran_it_is_said_to_be_that(tmp_path):
    olmoe = measured("olmoe", **{**AS_PUBLISHED, "hub": "allenai/OLMoE-1B-7B-0125", "dtype": "float32"})
    _, text = written(tmp_path, [measured(**AS_PUBLISHED), olmoe])
    assert "Measured as the source did" in text
    assert "Not measured" not in text


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"windows": "packed"}, "windows packed (there arb8020)"),
        ({"corpus": "fineweb-edu"}, "corpus fineweb-edu (there fineweb-edu-2025)"),
        ({"threshold": 5.0, "min_layers": 0.5}, "threshold 5.0 (there 6.0); min layers 0.5 (there 0.25)"),
        ({"hub": "allenai/OLMoE-1B-7B-0125"}, "ours in bfloat16 (there float32)"),
        ({"hub": "openai/gpt-oss-20b", "dtype": "float32"}, "ours in float32 (there bfloat16)"),
    ],
)
def test_what_is_not_as_the_source_did_is_said_with_the_experiment_that_is(tmp_path, columns, said):
    _, text = written(tmp_path, [measured(**{**AS_PUBLISHED, **columns})])
    assert f"Not measured as the source did: {said}. " in text
    assert "the experiment `sweep_of_2025` of config.yaml: the default configuration of FineWeb-Edu" in text
