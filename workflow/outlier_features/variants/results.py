"""Results: what a pass with variants wrote, in one part or in several that shared the windows out."""

# Shapes: S sequence (window), T position.

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from outlier_features.errors import ConfigError
from outlier_features.statistics.shards import LOSSES, Part
from outlier_features.text.windows import TokenWindows

KEYS = ["variant", "block", "site", "matrix", "expert", "parameters", "top_channel"]
"""What a row of sums is of; the rest adds up."""


class Results:
    """The rows of every part together; how many there were moves no number but in the last bits of sums."""

    def __init__(self, manifests: Sequence[Path], expected: str | None = None) -> None:
        """Open parts by their manifests; refuse one whose lineage is not `expected`."""
        self._parts = [Part(Path(path), expected, "variants") for path in manifests]
        self.runs: list[dict[str, Any]] = self._parts[0].facts["runs"]
        self.windows = sorted(window for part in self._parts for window in part.facts["windows"])
        if len(set(self.windows)) < len(self.windows):
            raise ConfigError(f"{', '.join(map(str, manifests))}: passes over the same windows; give each part once.")
        self.provenance = self._parts[0].provenance
        self.facts = self._parts[0].facts

    def sums(self) -> pd.DataFrame:
        """Return the sums of every variant, block, matrix and expert, over all parts."""
        table = self._table("sqnr-*.arrow")
        values = [name for name in table.columns if name not in KEYS]
        return table.groupby(KEYS, dropna=False, sort=False)[values].sum(min_count=1).reset_index()

    def effects(self) -> pd.DataFrame:
        """Return the effects of every run, block and window."""
        return self._table("effects-*.arrow")

    def losses(self, text: TokenWindows) -> tuple[dict[int, np.ndarray], np.ndarray]:
        """Return the summed loss of each window by run (S,), and how many tokens each predicts first (S,)."""
        table = self._table(LOSSES)
        position_T = np.arange(1, text.ids_ST.shape[1])
        scored = {w: position_T[: text.lengths[w] - 1] >= text.scored_from_S[w] for w in self.windows}
        sums: dict[int, dict[int, float]] = {}
        for run, window, loss in zip(table["run"], table["window"], table["loss"], strict=True):
            sums.setdefault(run, {})[window] = float(np.asarray(loss, np.float64)[scored[window]].sum())
        tokens_S = np.array([scored[window].sum() for window in self.windows])
        return {run: np.array([own[w] for w in self.windows]) for run, own in sums.items()}, tokens_S

    def _table(self, pattern: str) -> pd.DataFrame:
        tables = [part.read(name) for part in self._parts for name in part.names(pattern)]
        return pa.concat_tables(tables).to_pandas(integer_object_nulls=False)
