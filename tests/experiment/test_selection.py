"""Rows of a summary by definition, kind and family, and their order."""

import math

import pandas as pd
import pytest
from outlier_features.errors import ConfigError
from outlier_features.experiment.selection import Selection

ARCHITECTURES = {
    "llama": ("LlamaForCausalLM", "dense"),
    "qwen": ("Qwen3ForCausalLM", "dense"),
    "qwen-moe": ("Qwen3MoeForCausalLM", "moe"),
    "mixtral": ("MixtralForCausalLM", "moe"),
}


def summary(definitions=("arb8020",), **columns):
    rows = [
        {"model": model, "definition": definition, "architecture": architecture, "kind": kind, "perplexity": 20.0}
        for model, (architecture, kind) in ARCHITECTURES.items()
        for definition in definitions
    ]
    return pd.DataFrame(rows).assign(**columns)


def models(selection, table=None):
    return list(selection.of(summary() if table is None else table)["model"])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["llama", "qwen", "qwen-moe", "mixtral"]),
        (Selection(kind="moe"), ["qwen-moe", "mixtral"]),
        (Selection(kind="dense"), ["llama", "qwen"]),
        (Selection(family="qwen3"), ["qwen", "qwen-moe"]),
        (Selection(family="Qwen3MoE"), ["qwen-moe"]),
        (Selection(family="qwen3", kind="dense"), ["qwen"]),
        (Selection(family="llama", kind="moe"), []),
        (Selection(family="moe"), None),
    ],
)
def test_kind_and_family_keep_their_models(selection, expected):
    if expected is None:
        with pytest.raises(ConfigError, match="present: LlamaForCausalLM, MixtralForCausalLM, Qwen3ForCausalLM"):
            models(selection)
    else:
        assert models(selection) == expected


def test_a_definition_keeps_its_rows():
    found = Selection("llm_int8").of(summary(["arb8020", "llm_int8"]))
    assert set(found["definition"]) == {"llm_int8"}
    assert len(found) == len(ARCHITECTURES)


@pytest.mark.parametrize(
    ("descending", "expected"),
    [(False, ["mixtral", "llama", "qwen", "qwen-moe"]), (True, ["llama", "qwen", "mixtral", "qwen-moe"])],
)
def test_rows_without_a_value_are_last_and_equal_ones_in_their_order_in_both_directions(descending, expected):
    table = summary(perplexity=[9.0, 9.0, math.nan, 3.0])
    assert models(Selection(sort="perplexity", descending=descending), table) == expected


def test_integers_with_blanks_are_sorted_as_numbers():
    table = summary(experts=pd.array([None, 100, 20, 3], dtype="Int64"))
    assert models(Selection(sort="experts"), table) == ["mixtral", "qwen-moe", "qwen", "llama"]


def test_a_summary_without_architectures_is_refused_only_where_a_family_is_asked_for():
    old = summary().drop(columns="architecture")
    assert models(Selection(kind="moe"), old) == ["qwen-moe", "mixtral"]
    with pytest.raises(ConfigError, match="the summary: made before summaries had the column architecture"):
        models(Selection(family="qwen3"), old)
    with pytest.raises(ConfigError, match=r"other\.parquet: made before"):
        Selection(family="qwen3").matching(old, "other.parquet")


def test_matching_asks_for_nothing_that_has_to_be_there():
    assert Selection("llm_int8", family="gpt").matching(summary()).empty


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection("arb"), "unknown definition 'arb'; allowed: arb8020"),
        (Selection(kind="sparse"), "unknown kind 'sparse'; allowed: dense, moe"),
        (Selection(sort="size"), "unknown column to sort by 'size'; allowed: model, definition, architecture"),
        (Selection(descending=True), "a descending order needs a column to sort by"),
    ],
)
def test_what_is_not_there_is_refused_with_the_allowed_values(selection, message):
    with pytest.raises(ConfigError, match=message):
        selection.of(summary())


def test_what_a_row_has_to_be_can_be_said():
    assert Selection("arb8020", "moe", "qwen3").words == "definition arb8020, kind moe, family qwen3"
    assert Selection(sort="model").words == ""
