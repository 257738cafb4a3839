"""Capture: the same bytes each time, and a pass that fails leaves the older result whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from outlier_features.errors import ConfigError, NonFiniteActivations
from outlier_features.metrics import criteria, evidence, outlier_features
from outlier_features.statistics.shards import Statistics
from small_models import capture_settings, poisoned

CRITERIA = criteria.criteria({"llm_int8": Definition(sites=("attn_in", "mlp_in"))})


def test_two_captures_write_the_same_bytes(checkpoints, tokens, manifests, tmp_path) -> None:
    capture(checkpoints["dense"], tokens, tmp_path / "dense.json", capture_settings(), {"statistics": "test"})
    digests = [json.loads(path.read_text())["shards"] for path in (tmp_path / "dense.json", manifests["dense"])]
    assert digests[0] == digests[1]


@pytest.fixture
def copy(manifests: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(manifests["dense"].with_suffix(""), tmp_path / "dense")
    return Path(shutil.copy(manifests["dense"], tmp_path / "dense.json"))


def test_a_pass_that_fails_leaves_the_older_result_whole(tmp_path: Path, tokens: Path, copy: Path) -> None:
    with pytest.raises(NonFiniteActivations):
        capture(poisoned(tmp_path / "m", float("nan")), tokens, copy, capture_settings(), {"statistics": "test"})
    assert len(outlier_features.features(evidence.gather(Statistics([copy], "test"), CRITERIA)[0]))


def test_tokens_of_another_tokenizer_are_refused(checkpoints, tmp_path) -> None:
    from small_models import write_windows

    tokens = write_windows(tmp_path / "tokens.arrow", np.full((1, 8), 999))
    with pytest.raises(ConfigError, match=r"holds token 999.*160 rows"):
        capture(checkpoints["dense"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
