"""Provenance: what every file of the results carries about its origin, and the check that readers make of it."""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import outlier_features
from outlier_features.artefacts import strict_json
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.remedies import again
from outlier_features.errors import StaleFile

KEY = b"outlier_features"
"""Under this key Arrow and parquet files keep their provenance as JSON."""

LIBRARIES = ("torch", "transformers", "numpy", "pyarrow")

Provenance = dict[str, Any]


def record(lineage: Lineage, **facts: Any) -> Provenance:
    """Return the provenance of a file: its lineage, the versions that made it, and what else is worth knowing."""
    return {"lineage": dict(lineage), "versions": versions(), **facts}


def versions() -> dict[str, str]:
    """Return the versions of this project, of Python and of the libraries numbers depend on."""
    found = {"outlier_features": outlier_features.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        found[library] = metadata.version(library)
    return found


def require(found: Mapping[str, Any], artefact: str, expected: str, path: Path, remedy: str | None = None) -> None:
    """Refuse a file whose lineage as `artefact` is not the expected one. Raises StaleFile with a `remedy`."""
    lineage = found.get("lineage", {}).get(artefact)
    if lineage != expected:
        raise StaleFile(
            f"{path}: made from other code, settings or inputs (lineage {lineage}) than the present ones "
            f"({expected}); {remedy or again(path)}."
        )


def encode(provenance: Provenance) -> dict[bytes, bytes]:
    """Return provenance as Arrow schema metadata."""
    return {KEY: strict_json.dumps(provenance).encode()}


def decode(schema_metadata: Mapping[bytes, bytes] | None) -> Provenance:
    """Return the provenance in Arrow schema metadata, empty where there is none."""
    value = (schema_metadata or {}).get(KEY)
    return json.loads(value) if value else {}
