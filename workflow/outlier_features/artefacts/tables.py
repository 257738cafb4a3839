"""Tables: parquet files with their provenance, and JSON files with theirs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import dataset

from outlier_features.artefacts import atomic, provenance, remedies
from outlier_features.errors import DamagedFile


def write_table(path: Path, table: pd.DataFrame, origin: provenance.Provenance) -> None:
    """Write a table as parquet, with its provenance, atomically."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **provenance.encode(origin)})
    with atomic.file(path) as unfinished:
        pq.write_table(arrow, unfinished, compression="zstd")


def read_table(
    path: Path, artefact: str | None = None, expected: str | None = None
) -> tuple[pd.DataFrame, provenance.Provenance]:
    """Read a table and its provenance; refuse one whose lineage as `artefact` is not `expected`."""
    try:
        arrow = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise remedies.unusable(path, "parquet file", error) from error
    origin = provenance.decode(arrow.schema.metadata)
    if artefact is not None and expected is not None:
        provenance.require(origin, artefact, expected, path)
    return arrow.to_pandas(), origin


def read_columns(
    path: Path, columns: Sequence[str], artefact: str, expected: str | None, rows: dataset.Expression | None = None
) -> tuple[pd.DataFrame, provenance.Provenance]:
    """Read some columns of a table, and of its rows those for which `rows` holds, as `read_table` does."""
    try:
        found = dataset.dataset(path, format="parquet")
        origin = provenance.decode(found.schema.metadata)
        if expected is not None:
            provenance.require(origin, artefact, expected, path)
        return found.to_table(list(columns), filter=rows, use_threads=False).to_pandas(), origin
    except (OSError, pa.ArrowException) as error:
        raise remedies.unusable(path, "parquet file", error) from error


def read_json(path: Path, artefact: str, expected: str | None) -> dict[str, Any]:
    """Read a JSON file that carries its provenance; refuse one whose lineage as `artefact` is not `expected`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise remedies.unusable(path, "JSON file", error) from error
    if not isinstance(found, dict):
        raise DamagedFile(f"{path}: holds no object; delete it, then {remedies.again(path)}.")
    if expected is not None:
        provenance.require(found.get("provenance", {}), artefact, expected, path)
    return found
