"""Entries: strict and frozen; values that do not go together are refused."""

from typing import Any

import pytest
from configurations import RECIPE, changed, complaint, minimal
from outlier_features.config.config import Config
from pydantic import ValidationError


def test_training_on_a_hub_corpus_is_refused_because_its_stream_is_what_is_measured_on() -> None:
    values = changed("models.one", {"train": RECIPE})
    values["corpora"]["text"] = {"hub": "org/name", "training": ["*.txt"], "sequences": 1, "length": 8}
    assert "training" in complaint(values)


@pytest.mark.parametrize(
    ("entry", "field"), [("config", "experiment"), ("model", "dtype"), ("corpus", "length"), ("capture", "sites")]
)
def test_entries_never_change(entry: str, field: str) -> None:
    config = Config.check(minimal())
    found: Any = {
        "config": config,
        "model": config.models["one"],
        "corpus": config.corpora["text"],
        "capture": config.capture,
    }[entry]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(found, field, getattr(found, field))
