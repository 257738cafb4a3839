"""Strict JSON: null stands for what is no finite number, and where it was is said."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from outlier_features.artefacts import atomic, provenance, strict_json
from outlier_features.artefacts.tables import read_table, write_table

VALUES = {"a": [1.0, float("nan"), {"b": float("-inf")}], "c": (np.float64("inf"), 2, None, True, "NaN"), "d": 1.5}
PLAIN = {"a": [1.0, None, {"b": None}], "c": [None, 2, None, True, "NaN"], "d": 1.5}
WHERE = {"a[1]": "NaN", "a[2].b": "-Infinity", "c[0]": "Infinity"}


def strictly(text: str) -> object:
    return json.loads(text, parse_constant=pytest.fail)


def test_what_is_not_finite_is_null_and_named() -> None:
    assert strictly(strict_json.dumps(VALUES)) == PLAIN | {"not_finite": WHERE}
    assert strictly(strict_json.dumps([float("nan"), 1])) == [None, 1]
    assert strictly(strict_json.dumps({"d": 1.5})) == {"d": 1.5}


def test_files_and_metadata_hold_strict_json(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", VALUES)
    assert strictly((tmp_path / "a.json").read_text()) == PLAIN | {"not_finite": WHERE}
    write_table(tmp_path / "a.parquet", pd.DataFrame({"x": [1.0]}), VALUES)
    _, origin = read_table(tmp_path / "a.parquet")
    assert origin == PLAIN | {"not_finite": WHERE}
    strictly(provenance.encode(VALUES)[provenance.KEY].decode())


def test_no_other_module_writes_json() -> None:
    package = Path(strict_json.__file__).parent
    # digests, what is compared with a file, and steps of a tokenizer go through JSON and are not written
    internal = {"strict_json.py", "lineage.py", "perplexity.py", "safe_cuts.py", "unfinished.py"}
    sources = {path.name: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert {name for name, text in sources.items() if re.search(r"(?<!strict_)json\.dump", text)} <= internal
