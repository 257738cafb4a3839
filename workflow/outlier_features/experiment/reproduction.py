"""Reproduction: what this project measures, beside the table that arb8020 published in 2025.

Takes the summary and the published table; no model and no configuration is read here. A blank cell of the published
table was not published: it stays blank and is never 0.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from outlier_features.experiment.table_of_2025 import (
    COMPARED,
    CONVENTIONS,
    COUNTED_OTHERWISE,
    DEFINITION,
    REMARKS,
    PublishedColumn,
)

COLUMNS = {
    "model": "object",
    "hub": "object",
    "quantity": "object",
    "published": "float64",
    "measured": "float64",
    "measured_low": "float64",
    "measured_high": "float64",
    "difference_pct": "float64",
    "inside_interval": "boolean",
    "remark": "object",
}
"""Columns of the comparison, one row per model and quantity.

`difference_pct` is what is measured less what is published, in percent of the latter; `inside_interval` whether the
published value lies within the 95 % interval of the measured one. Both are blank where a side is.
"""


@dataclass(frozen=True)
class Pair:
    """A row of the summary and the published row of the same hub model; one of them may be missing."""

    ours: Mapping[str, Any] | None
    theirs: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The name of the model: as measured, else as published."""
        return str(self.ours["label"] if self.ours is not None else (self.theirs or {})["model"])

    @property
    def hub(self) -> str | None:
        """The name of the model on the hub, if it has one."""
        hub = (self.ours or self.theirs or {})["hub"]
        return None if pd.isna(hub) else str(hub)

    @property
    def is_joined(self) -> bool:
        """Whether the model is measured and published."""
        return self.ours is not None and self.theirs is not None


def joined(summary: pd.DataFrame, published: pd.DataFrame) -> list[Pair]:
    """Return every published model, with each measured model of its hub name, then the measured ones without.

    Steps of a series are left out: they carry the hub name of a finished model.
    """
    rows = _records(summary[(summary["definition"] == DEFINITION) & summary["step"].isna()])
    pairs: list[Pair] = []
    for theirs in _records(published):
        ours = [row for row in rows if row["hub"] == theirs["hub"]]
        pairs += [Pair(row, theirs) for row in ours] or [Pair(None, theirs)]
    return pairs + [Pair(row, None) for row in rows if row["hub"] not in set(published["hub"])]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False, name=None)]


def compared(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Return one row per model and quantity, with COLUMNS."""
    rows = [row_of(pair, asked) for pair in pairs for asked in COMPARED]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def row_of(pair: Pair, asked: PublishedColumn) -> dict[str, Any]:
    """Return one row of the comparison, by COLUMNS."""
    column = _column(pair, asked)
    published = _number((pair.theirs or {}).get(asked.name))
    measured, low, high = (_measured(pair, f"{column}{end}", asked.unit) for end in ("", "_low", "_high"))
    has_interval = None not in (published, low, high)
    return {
        "model": pair.name,
        "hub": pair.hub,
        "quantity": asked.name,
        "published": published,
        "measured": measured,
        "measured_low": low,
        "measured_high": high,
        "difference_pct": None if measured is None or not published else 100 * (measured - published) / published,
        "inside_interval": low <= published <= high if has_interval else None,  # type: ignore[operator]
        "remark": "; ".join(_remarks(pair, asked, published, measured)),
    }


def _column(pair: Pair, asked: PublishedColumn) -> str:
    """Return the column of the summary that counts as the publisher of the model does."""
    counts_otherwise = asked.measured == "active_params" and pair.hub in COUNTED_OTHERWISE
    return COUNTED_OTHERWISE[pair.hub] if counts_otherwise and pair.hub else asked.measured


def _number(cell: Any) -> float | None:
    """Return the number a cell begins with (`512+1 shared` is 512), or None for a blank one."""
    found = None if cell is None or pd.isna(cell) else re.match(r"-?\d+(\.\d+)?", str(cell))
    return float(found[0]) if found else None


def _measured(pair: Pair, column: str, unit: float) -> float | None:
    cell = (pair.ours or {}).get(column)
    return None if cell is None or pd.isna(cell) else float(cell) / unit


def _remarks(pair: Pair, asked: PublishedColumn, published: float | None, measured: float | None) -> list[str]:
    """Return what a reader of one cell has to know, most of all why a side is blank."""
    cell = (pair.theirs or {}).get(asked.name)
    remarks = [asked.remark]
    if asked.measured == "active_params":
        column = _column(pair, asked)
        remarks.append(f"{column}: {CONVENTIONS[column]}")
    if pair.ours is None:
        remarks.append("not measured")
    elif measured is None:
        remarks.append(_absence(pair.ours, asked))
    if pair.theirs is None:
        remarks.append("not in the published table")
    elif published is None:
        remarks.append("not published")
    elif published == 0:
        remarks.append("no percentage of a published 0")
    if isinstance(cell, str) and not cell.replace(".", "").isdecimal():
        remarks.append(f"published as {cell}")
    return [remark for remark in (*remarks, REMARKS.get((pair.hub or "", asked.name), "")) if remark]


def _absence(ours: Mapping[str, Any], asked: PublishedColumn) -> str:
    """Return why a measured model has no value."""
    if isinstance(ours.get("note"), str) and ours["note"]:
        return str(ours["note"])
    quantity = asked.quantity
    explains = quantity.unit != "%" or ours.get("outlier_count") == 0
    return quantity.blank if explains else "the summary has no value"
