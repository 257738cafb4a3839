"""Recorded run: the summary of an experiment as it was written, with its provenance, to be held against another one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from outlier_features.artefacts.provenance import Provenance
from outlier_features.artefacts.tables import read_table
from outlier_features.errors import ConfigError, DamagedFile

NAMES = ("model", "label", "kind", "definition")
"""Columns that a table must have to be a summary."""

Row = Mapping[str, Any]
"""A row of a summary, with None for what is blank."""
Models = Mapping[str, Mapping[str, Row]]
"""Rows by model and definition."""


@dataclass(frozen=True)
class Run:
    """The summary of a run and its provenance."""

    summary: pd.DataFrame
    origin: Provenance

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read the summary.parquet of a run. Raises ConfigError for what is none."""
        advice = "give the summary.parquet of a run"
        if not path.is_file():
            raise ConfigError(f"{path}: {'a directory' if path.is_dir() else 'no such file'}; {advice}.")
        try:
            run = cls(*read_table(path))
        except DamagedFile as error:
            raise ConfigError(f"{path}: not a readable parquet file; {advice}.") from error
        missing = [name for name in NAMES if name not in run.summary]
        if missing:
            raise ConfigError(f"{path}: no summary, for it has no column {', '.join(missing)}; {advice}.")
        return run

    def rows(self, whose: str) -> Models:
        """Return the rows of the summary by model and definition. Raises ConfigError, with `whose`, for a row twice."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.summary.to_dict("records"):
            model, definition = row["model"], row["definition"]
            if definition in found.setdefault(model, {}):
                raise ConfigError(f"{whose}: two rows of {model} under {definition}; this is not one summary.")
            found[model][definition] = {str(name): None if pd.isna(value) else value for name, value in row.items()}
        return found
