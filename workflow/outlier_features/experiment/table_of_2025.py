"""Table of 2025: what arb8020 published, how it was measured, what its columns count, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from outlier_features.experiment.quantities import QUANTITIES, Quantity

DEFINITION = "arb8020"
EXPERIMENT, CORPUS = "sweep_of_2025", "fineweb-edu-2025"
"""What config.yaml calls the sweep as the source ran it, and its text."""
AS_PUBLISHED: Mapping[str, Any] = {
    "corpus": CORPUS,
    "windows": "arb8020",
    "sequences": 16,
    "length": 2048,
    "threshold": 6.0,
    "min_layers": 0.25,
    "min_positions": 0.06,
    "scope": "sequence",
    "sites": "attn_in+mlp_in",
    "rounding": "bfloat16",
}
"""How the source measured, in columns of the summary; the precision is that of each model."""


@dataclass(frozen=True)
class PublishedColumn:
    """One column of the published table, and what is measured of the same."""

    name: str
    """The column of the published table."""
    measured: str
    """The column of the summary."""
    is_shown: bool = True
    """Whether the document shows it; what it does not show is in the CSV only."""
    unit: float = 1.0
    """How many of what is measured make one of what is published."""
    remark: str = ""
    """What it counts, where that could be taken otherwise."""

    @property
    def quantity(self) -> Quantity:
        """What is measured, in words."""
        return QUANTITIES[self.measured]

    @property
    def heading(self) -> str:
        """What the document calls it."""
        return self.quantity.titled + (" (B)" if self.unit == BILLION else "")


BILLION = 1e9
COMPARED = (
    PublishedColumn("outliers", "outlier_count", remark="sum over sequences of counts per sequence"),
    PublishedColumn("mean_layer_pct", "mean_layer_pct"),
    PublishedColumn("mean_seq_pct", "mean_position_pct"),
    PublishedColumn("perplexity", "perplexity"),
    PublishedColumn(
        "total_params_b", "total_params", unit=BILLION, remark="total_params: with embedding table and head"
    ),
    PublishedColumn("active_params_b", "active_params", unit=BILLION),
    PublishedColumn("experts", "experts", is_shown=False, remark="routed experts of a block"),
    PublishedColumn("top_k", "top_k", is_shown=False),
)
CONVENTIONS = {
    "active_params": "with embedding table and head",
    "active_params_without_embedding": "without the embedding table, with the head",
    "active_params_without_embedding_and_head": "without embedding table and head",
}
"""The ways to count active parameters, as columns of the summary."""
COUNTED_OTHERWISE = {
    "openai/gpt-oss-20b": "active_params_without_embedding",
    "openai/gpt-oss-120b": "active_params_without_embedding",
    "zai-org/GLM-4.5-Air": "active_params_without_embedding_and_head",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "active_params_without_embedding_and_head",
}
"""What the publishers of these models count as active; all others count everything a token passes through."""
REMARKS = {
    ("allenai/OLMoE-1B-7B-0125", "mean_layer_pct"): "the source gives 28.0 as well",
    ("allenai/OLMoE-1B-7B-0125", "mean_seq_pct"): "the source gives 14.3 as well",
    ("openai/gpt-oss-20b", "experts"): "the source infers it; the published configuration has 32",
    ("openai/gpt-oss-20b", "top_k"): "the source infers it",
}
"""What else is known of single cells of the published table."""
FAULTS = {
    "All models, outlier features": "The count adds up 16 sequences, each counted on its own, so one channel can count "
    "16 times and the sum can exceed the hidden size: Qwen3-0.6B has 1,024 channels and 9,212 “outliers”. It cannot be "
    "held against the at most 7 distinct channels of LLM.int8().",
    "All models, layers": "Each norm output is a layer of its own, so a block has two.",
    "All models, positions": "A position counts when any layer is hit there: the share is that of a union over layers.",
    "All models, text": "It is the default configuration of FineWeb-Edu, not its sample-10BT.",
    "All models, windows": "Consecutive windows overlap by half, so the 16 sequences are not independent samples.",
    "Dense Qwen3 models, perplexity": "The mean loss of each window is weighted by its number of tokens, not of "
    "predictions. No perplexity of a mixture of experts is published.",
    "OLMoE-1B-7B": "The source gives it twice with different shares of layers and positions, 29.5 and 13.6 (compared "
    "here) and 28.0 and 14.3; the precision of the analysis is bfloat16 in one place and float32 in another.",
    "GPT-OSS-20B": "Experts and top-k are marked as inferred from the 120B model; the number of experts is left blank "
    "here. The published configuration has 32 experts. Its routing is “standard top-k” in the tables of the source and "
    "softmax-weighted in a footnote.",
}
"""What is known to be wrong or easily misread in the published table, by what it concerns."""
WINDOWS = {"packed": "packed windows", "arb8020": "the overlapping windows of 2025"}
"""How the document calls the ways to cut a text."""


def in_our_columns(published: pd.DataFrame) -> pd.DataFrame:
    """Return the published quantities in the columns and units of a summary."""
    return pd.DataFrame(
        {column.measured: column.unit * published[column.name] for column in COMPARED if column.is_shown}
    )


def as_summary(published: pd.DataFrame) -> pd.DataFrame:
    """Return the published table in the columns of a summary, as far as it has them; nothing of it has an interval."""
    ours = in_our_columns(published)
    unknown = dict.fromkeys(("distinct_channels", "hidden_size", "bits_per_byte"), float("nan"))
    return ours.assign(
        model=published["model"],
        label=published["model"],
        kind=published["kind"],
        series=None,
        step=None,
        sparsity=ours["active_params"] / ours["total_params"],
        definition=DEFINITION,
        **unknown,
    )
