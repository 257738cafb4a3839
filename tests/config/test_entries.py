"""Entries: strict and frozen; values that do not go together are refused."""

from typing import Any

import pytest
from configurations import RECIPE, changed, complaint, minimal
from outlier_features.config import entries
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


DEFAULTS: dict[type[entries.Strict], dict[str, Any]] = {
    entries.Recipe: {"seed": 0},
    entries.Model: {"dtype": "bfloat16", "keep_weights": True},
    entries.Corpus: {"split": "train", "column": "text", "bos": "auto", "windows": "packed"},
    entries.Definition: {"threshold": 6.0, "min_layers": 0.25, "min_positions": 0.06, "scope": "pooled"},
    entries.Capture: {"statistics": "all", "nonfinite": "error", "scatter": 1},
}
"""Defaults that say something. A lineage leaves out what equals its default, and these modules out of the code, so
another default would change numbers and move no lineage. Add those of new keys; to change one, rename its key."""


@pytest.mark.parametrize("entry", DEFAULTS, ids=lambda entry: entry.__name__)
def test_a_default_never_changes_for_no_lineage_would_tell(entry: type[entries.Strict]) -> None:
    defaults = {name: field.get_default() for name, field in entry.model_fields.items() if not field.is_required()}
    assert {name: value for name, value in defaults.items() if value not in (None, ())} == DEFAULTS[entry]
