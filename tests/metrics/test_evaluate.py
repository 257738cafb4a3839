"""Reduction: the tables of parts are those of one pass."""

import json
from pathlib import Path

import pandas as pd
import pytest
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.config.parts import parts, windows
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity
from small_models import WINDOWS, capture_settings

DEFINITIONS = {"llm_int8": Definition(sites=("attn_in", "mlp_in"))}


def results(manifests: list[Path], tokens: Path, folder: Path) -> tuple[list[pd.DataFrame], dict]:
    files = {name: folder / f"{name}.parquet" for name in TABLES} | {"answer": folder / "answer.json"}
    reduce(manifests, files, DEFINITIONS, {"reduction": "test"})
    write_perplexity(manifests, tokens, folder / "perplexity.json", {"perplexity": "test"})
    said = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("answer", "perplexity")}
    return [pd.read_parquet(files[name]) for name in TABLES], said


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("scatter", [2, WINDOWS])
def test_every_table_of_parts_is_that_of_one_pass(kind, scatter, checkpoints, tokens, manifests, tmp_path) -> None:
    captured = []
    for part in parts(scatter):
        captured.append(tmp_path / f"{kind}.{part}.json")
        capture(
            checkpoints[kind],
            tokens,
            captured[-1],
            capture_settings(),
            {"statistics": "test"},
            windows=windows(part, WINDOWS),
        )
    (found, quality), (expected, whole) = (results(each, tokens, tmp_path) for each in (captured, [manifests[kind]]))
    for table, one_pass in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(table, one_pass, check_exact=True)
    assert quality == whole
