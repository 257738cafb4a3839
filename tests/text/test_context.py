"""Context: a window may be as long as what a model can read at once, and no longer."""

# Shapes: S sequence (window), T position.

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpora import CONTEXT, windows
from outlier_features.errors import ConfigError


def test_a_window_may_be_as_long_as_the_context_but_not_longer(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    found = windows(checkpoint, tmp_path / "out", path=str(text), sequences=1, length=CONTEXT)
    assert found.ids_ST.shape == (1, CONTEXT)
    with pytest.raises(ConfigError, match=rf"{CONTEXT + 1} tokens is longer than the context .*\({CONTEXT} tokens\)"):
        windows(checkpoint, tmp_path / "out", path=str(text), sequences=1, length=CONTEXT + 1)


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 4 * CONTEXT),
        ({"rope_type": "dynamic", "factor": 2.0}, 2 * CONTEXT),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT // 2}, 2 * CONTEXT),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}, CONTEXT),
        ({"rope_type": "default"}, CONTEXT),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else str(value),
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_scaled_rotary_positions_count_as_context(
    key: str, scaling: dict[str, Any], longest: int, checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    described = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps(described | {key: {"rope_theta": 1e4} | scaling}))
    long = tmp_path / "long.jsonl"
    long.write_text(text.read_text() * 9)
    assert windows(tmp_path / "model", tmp_path / "out", path=str(long), sequences=1, length=longest).lengths == [
        longest
    ]
    with pytest.raises(ConfigError, match=rf"{longest + 1} tokens is longer than the context .*\({longest} tokens\)"):
        windows(tmp_path / "model", tmp_path / "out", path=str(long), sequences=1, length=longest + 1)
