"""Provenance: a file of another lineage is refused with the stage that writes it."""

from pathlib import Path

import pytest
from outlier_features.artefacts import provenance
from outlier_features.errors import StaleFile


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("results/checkpoints/summary/source.json", "fetch (train, for a model with a recipe)"),
        ("results/words/tokens/moe.arrow", "tokenize"),
        ("results/words/statistics/moe.2-of-4.json", "capture"),
        ("results/words/layers/moe.parquet", "reduce"),
        ("results/words/perplexity/moe.json", "reduce"),
        ("results/words/summary.parquet", "summarize"),
        ("results/words/inference.json", "infer"),
        ("results/plots/moe_vs_dense.png", "plot"),
    ],
)
def test_a_stale_file_names_the_stage_that_writes_it(path: str, stage: str) -> None:
    with pytest.raises(StaleFile, match=r"\(lineage old\) than the present ones \(new\); run snakemake, or") as raised:
        provenance.require({"lineage": {"summary": "old"}}, "summary", "new", Path(path))
    assert str(raised.value).endswith(f"or the stage {stage}.")
