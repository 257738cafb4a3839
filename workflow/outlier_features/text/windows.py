"""Windows: the token ids of one corpus for one tokenizer, in a file with a schema."""

# Shapes: S sequence (window), T position.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from outlier_features.artefacts import arrow, provenance, ragged
from outlier_features.errors import SourceError

NO_TOKEN = -1
"""Stands after the end of a window that is shorter than the longest."""

SCHEMA = pa.schema(
    [
        ("window", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("token_bytes", pa.list_(pa.int32())),
        ("scored_from", pa.int32()),
    ]
)
"""One row a window. `token_bytes` are the UTF-8 bytes each token adds to the text; tokens from `scored_from` on are
predicted in this window and in no earlier one."""


@dataclass(frozen=True)
class TokenWindows:
    """Windows of one corpus for one tokenizer: packed ones are equally long, those of 2025 nearly so."""

    ids_ST: np.ndarray
    """Token ids; NO_TOKEN after the end of a window shorter than the longest, so that no model takes it for a token."""
    bytes_ST: np.ndarray
    scored_from_S: np.ndarray
    provenance: provenance.Provenance

    @property
    def cut(self) -> dict[str, Any]:
        """How the text was cut: window, stride, bos; and windows, where they are not packed."""
        return self.provenance["cut"]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each window (S,)."""
        return (self.ids_ST != NO_TOKEN).sum(1)

    def ids(self, window: int) -> np.ndarray:
        """Return the token ids of one window, as many as it has (T,)."""
        return self.ids_ST[window, : self.lengths[window]]


def write_windows(path: Path, rows: Sequence[Mapping[str, Any]], origin: provenance.Provenance) -> None:
    """Write windows, one row each with the columns of SCHEMA, whole or not at all; `origin` says how they are cut."""
    arrow.write(path, SCHEMA, rows, origin)


def read_windows(path: Path, expected: str | None = None, artefact: str = "tokens") -> TokenWindows:
    """Read windows; refuse a damaged file or one whose lineage as `artefact` is not `expected`."""
    table, origin = arrow.read(path, artefact, expected)
    return TokenWindows(
        ids_ST=ragged.rectangle(table["token_ids"], NO_TOKEN),
        bytes_ST=ragged.rectangle(table["token_bytes"], 0),
        scored_from_S=table["scored_from"].to_numpy(),
        provenance=origin,
    )


def too_short(filled: int, length: int, sequences: int) -> SourceError:
    """Return the error of a text that fills fewer windows than are asked for."""
    fills = f"fills {filled} window{'s' * (filled != 1)}" if filled else "does not fill one window"
    lower = "sequences or length" if filled else "length"
    return SourceError(
        f"the corpus is too short: it {fills} of {length} tokens where {sequences} are asked for; lower {lower}, or "
        "give more text."
    )
