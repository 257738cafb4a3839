"""Timings: where the time of a capture went, block by block. They are no result: nothing is stale because of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from outlier_features import units
from outlier_features.artefacts import arrow, provenance, remedies
from outlier_features.errors import DamagedFile

FILE = "timings.arrow"
"""The name of the file, in the folder of the shards whose making it tells of."""

SCHEMA = pa.schema(
    [
        ("block", pa.int32()),
        ("read_seconds", pa.float64()),
        ("waited_seconds", pa.float64()),
        ("computed_seconds", pa.float64()),
        ("observed_seconds", pa.float64()),
        ("saved_seconds", pa.float64()),
        ("read_bytes", pa.int64()),
        ("started", pa.float64()),
        ("resumed", pa.bool_()),
    ]
)
"""One row per decoder block. `read_seconds`, `read_bytes`: reading and converting its weights, in the background (0
bytes where they were still on the device). What the pass itself did, one after the other: `waited_seconds` for those
weights, `computed_seconds` for the forward of all windows, of which `observed_seconds` for statistics, `saved_seconds`
for the shard and the state to resume from. `started`: seconds since the pass began when the weights were there.
`resumed`: an earlier run had finished the block, and the times are that run's."""

GIB = 2**30


class Timings:
    """The times of a pass, taken down block by block."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begin with the rows of an earlier run, if any; they count as resumed."""
        self._rows = {int(row["block"]): {**_row(row), "resumed": True} for row in rows}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per block, with every column of the schema, in the order of blocks; plain numbers, fit for JSON."""
        return [dict(self._rows[block]) for block in sorted(self._rows)]

    def record(self, block: int, **values: Any) -> dict[str, Any]:
        """Take down columns of a block, at once or one after the other (the last word counts), and return its row.

        What was never taken down is 0. Raises TypeError for a name that is no column.
        """
        self._rows[block] = _row({**self._rows.get(block, {}), **values, "block": block})
        return dict(self._rows[block])

    def write(self, path: Path, origin: provenance.Provenance) -> None:
        """Write all rows, whole or not at all, with their provenance."""
        arrow.write(path, SCHEMA, self.rows, origin)


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(values.keys() - set(SCHEMA.names))
    if unknown:
        raise TypeError(f"no column of timings: {', '.join(unknown)}; there are {', '.join(SCHEMA.names)}")
    kinds = {field.name: _kind(field.type) for field in SCHEMA}
    return {name: kind(values.get(name, 0)) for name, kind in kinds.items()}


def _kind(column: pa.DataType) -> type:
    return bool if pa.types.is_boolean(column) else int if pa.types.is_integer(column) else float


def path_of(manifest: Path) -> Path:
    """Return where the timings of a capture lie, which is named by its manifest."""
    return Path(manifest).with_suffix("") / FILE


def read(path: Path, expected: str | None = None) -> pd.DataFrame:
    """Read timings, one row per block; `attrs` hold their provenance.

    Raises DamagedFile where there are none, and StaleFile where they tell of other statistics than `expected`.
    """
    manifest = path.parent.with_name(f"{path.parent.name}.json")
    remedy = f"delete {manifest}, then {remedies.again(manifest)}, which writes them again"
    table, origin = arrow.read(path, "statistics", expected, remedy)
    if table.schema.names != SCHEMA.names:
        raise DamagedFile(f"{path}: has other columns than timings have; {remedy}.")
    rows = table.to_pandas().sort_values("block", ignore_index=True)
    rows.attrs = {"provenance": origin}
    return rows


def progress_line(row: Mapping[str, Any], blocks: int, left_seconds: float | None) -> str:
    """Return what a pass prints of a finished block: where it stands, where the time went, how long it will take.

    `left_seconds` is None where that is not known; after the last block nothing is left.
    """
    seconds, size = row["read_seconds"], row["read_bytes"]
    rate = f" ({size / GIB / seconds:.2f} GiB/s)" if size and seconds else ""
    done = [f"waited {row['waited_seconds']:.1f} s", f"computed {row['computed_seconds']:.1f} s"]
    parts = [f"read {seconds:.1f} s{rate}" if size else "nothing to read", *done]
    if row["block"] + 1 < blocks and left_seconds is not None:
        parts.append(f"{units.spoken(left_seconds) if left_seconds >= 60 else 'less than a minute'} left")
    return f"block {row['block'] + 1}/{blocks}: {', '.join(parts)}"
