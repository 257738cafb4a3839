"""Arrow: rows as Arrow IPC files that carry their provenance in the schema."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from outlier_features.artefacts import atomic, provenance, remedies


def write(
    path: Path,
    schema: pa.Schema,
    rows: Sequence[Mapping[str, Any]],
    origin: provenance.Provenance,
    *,
    compression: str | None = None,
) -> None:
    """Write rows as one Arrow file, atomically. Columns that a row lacks are null."""
    columns = [pa.array([row.get(name) for row in rows], schema.field(name).type) for name in schema.names]
    table = pa.Table.from_arrays(columns, schema=schema.with_metadata(provenance.encode(origin)))
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        atomic.file(path) as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=options) as writer,
    ):
        writer.write_table(table)


def read(
    path: Path, artefact: str | None = None, expected: str | None = None, remedy: str | None = None
) -> tuple[pa.Table, provenance.Provenance]:
    """Read an Arrow file and its provenance; refuse one whose lineage as `artefact` is not `expected`.

    Raises DamagedFile for a file that is missing or not readable, and StaleFile, each with the `remedy`.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            table = reader.read_all()
    except (OSError, pa.ArrowException) as error:
        raise remedies.unusable(path, "Arrow file", error, remedy) from error
    origin = provenance.decode(table.schema.metadata)
    if artefact is not None and expected is not None:
        provenance.require(origin, artefact, expected, path, remedy)
    return table, origin
