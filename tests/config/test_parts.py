"""Scatter: parts cover every window once, and what they measure is what one pass measures, to the bit."""

import json
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from conftest import WINDOWS, capture_settings
from outlier_features.artefacts import paths
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.config.parts import parts, windows
from outlier_features.errors import ConfigError
from outlier_features.metrics.evaluate import TABLES, reduce
from outlier_features.metrics.perplexity import write_perplexity

DEFINITIONS = {"llm_int8": Definition(sites=("attn_in", "mlp_in"))}


@pytest.mark.parametrize("total", [1, 2, 5, 16])
def test_parts_cover_every_window_once_and_in_order(total: int) -> None:
    for scatter in range(1, total + 1):
        shares = [windows(part, total) for part in parts(scatter)]
        assert list(chain(*shares)) == list(range(total))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= 1


@pytest.mark.parametrize("part", ["1-of-6", "0-of-4", "5-of-4"])
def test_a_part_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(ConfigError, match=f"part {part} of 5 windows: .*1 to 5"):
        windows(part, 5)


def test_parts_are_named_as_snakemake_names_scatter_items_and_the_whole_has_no_name() -> None:
    assert parts(1) == [None]
    assert parts(3) == ["1-of-3", "2-of-3", "3-of-3"]
    assert [path.name for path in paths.manifests("text", "m-0.6b", 2)] == ["m-0.6b.1-of-2.json", "m-0.6b.2-of-2.json"]
    assert paths.manifests("text", "m-0.6b", 1) == [paths.manifest("text", "m-0.6b")]


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
