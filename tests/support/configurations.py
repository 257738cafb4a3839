"""A configuration that is as small as one can be, changes of it, and requests to measure one model."""

from typing import Any

import pytest
from outlier_features.cli.measurement import Request
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError

RECIPE = {
    "corpus": "text",
    "architecture": {"model_type": "qwen3"},
    "vocabulary": 300,
    "steps": 1,
    "batch": 1,
    "length": 8,
    "learning_rate": 0.1,
}


def minimal() -> dict[str, Any]:
    return {
        "experiment": "small",
        "experiments": {"small": {"models": ["one"], "corpus": "text"}},
        "models": {"one": {"path": "somewhere"}},
        "corpora": {"text": {"path": "text.txt", "sequences": 2, "length": 8}},
        "definitions": {"strict": {"sites": ["attn_in"]}},
        "capture": {"sites": ["attn_in", "mlp_in"], "thresholds": [3, 6], "rms_thresholds": [3, 6, 9]},
    }


def changed(where: str, value: Any) -> dict[str, Any]:
    values = minimal()
    *path, key = where.split(".")
    entry = values
    for part in path:
        entry = entry[part]
    entry[key] = value
    return values


def complaint(values: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        Config.check(values)
    return str(raised.value)


def of(source: object, **changes: object) -> Request:
    return Request(source=str(source), **changes)  # type: ignore[arg-type]
