"""Tables: parquet files with their provenance."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from outlier_features import atomic, provenance
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
        raise DamagedFile(f"{path}: not a readable parquet file; delete it and run snakemake again.") from error
    origin = provenance.decode(arrow.schema.metadata)
    if artefact is not None and expected is not None:
        provenance.require(origin, artefact, expected, path)
    return arrow.to_pandas(), origin
