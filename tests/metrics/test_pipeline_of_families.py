"""Every family runs from its published files to its tables: fetched, tokenized, captured, reduced, evaluated."""

import json
from pathlib import Path

import pandas as pd
import pytest
from families import FAMILIES, MOE, save_family
from outlier_features.capture.run import capture
from outlier_features.config.entries import Corpus, Definition, Model
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity
from outlier_features.site_names import MATRIX_INPUTS, SITES
from outlier_features.sources.fetch import fetch
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import read_windows
from small_models import capture_settings

TEXT = "the outlier features of a language model live in a few channels and are large " * 20
EVERYWHERE = {"attn_in", "out_proj_in", "mlp_in", "down_in", "residual"}
ATTENTION = {"keys", "values", "attention"}
SHARED = ("qwen3-next", "glm4-moe", "deepseek-v3")
"""Families with a shared expert."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_from_its_files_to_its_tables(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    original = save_family(FAMILIES[name], tmp_path / "original")
    checkpoint, tokens = tmp_path / "checkpoint", tmp_path / "tokens.arrow"
    manifest = tmp_path / "statistics.json"
    tables = {name: tmp_path / f"{name}.parquet" for name in TABLES} | {"answer": tmp_path / "answer.json"}
    corpus = Corpus(path=str(tmp_path / "text.txt"), sequences=3, length=32)

    fetch(Model(path=str(original)), checkpoint, {"checkpoint": "a"})
    tokenize(checkpoint, corpus, tokens, {"tokens": "a"})
    capture(checkpoint, tokens, manifest, capture_settings(sites=tuple(SITES)), {"statistics": "a"})
    definitions = {"llm_int8": Definition(sites=("attn_in", "mlp_in"))}
    reduce([manifest], tables, definitions, {"reduction": "a"})
    write_perplexity([manifest], tokens, tmp_path / "perplexity.json", {"perplexity": "a"})

    layers = pd.read_parquet(tables["layers"])
    facts = json.loads(manifest.read_text())["facts"]
    assert facts["kind"] == ("moe" if name in MOE else "dense")
    expected = EVERYWHERE | (ATTENTION if name != "gptj" else set()) | ({"router"} if name in MOE else set())
    assert set(layers["site"]) == expected | ({"shared_down_in"} if name in SHARED else set())
    assert set(layers["block"]) == set(range(facts["blocks"]))
    assert (layers[layers["site"].isin(list(SITES))]["max_abs"] > 0).all()
    damage = pd.read_parquet(tables["damage"])
    tensors = layers.loc[layers["site"].isin(MATRIX_INPUTS), ["block", "site"]].drop_duplicates()
    assert len(damage) == 11 * len(tensors)
    assert damage["predicted_sqnr_db"].notna().all()
    assert damage["router_flip_share"].notna().sum() == 11 * (layers["site"] == "router").sum()
    assert pd.read_parquet(tables["outliers"])["channel"].isin(range(facts["channels"])).all()
    quality = json.loads((tmp_path / "perplexity.json").read_text())
    assert quality["tokens"] == 3 * 31
    assert 1 < quality["perplexity"] < 1e9
    assert read_windows(tokens).ids_ST.shape == (3, 32)
