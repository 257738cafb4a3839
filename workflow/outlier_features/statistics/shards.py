"""Statistics shards: one Arrow file per decoder block, and a manifest written last that names and seals them all."""

# Shapes: S sequence (window), T position, C channel, G value of a threshold grid, L decoder block, E expert.

import fnmatch
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from outlier_features import exact_sums
from outlier_features.artefacts import arrow, atomic, provenance, ragged, remedies
from outlier_features.errors import ConfigError, DamagedFile
from outlier_features.statistics.timings import FILE
from outlier_features.thresholds import level

COVERAGE, LOSSES = "coverage.arrow", "losses.arrow"
NONFINITE = ("nonfinite_logits", "nonfinite_losses")
"""Facts that count, by window, the positions whose logits or losses are not finite."""


def block_name(block: int) -> str:
    """Return the file name of a block's shard."""
    return f"block-{block:03d}.arrow"


def experts_name(block: int) -> str:
    """Return the file name of what was kept of a block's experts."""
    return f"experts-{block:03d}.arrow"


def write(path: Path, schema: pa.Schema, rows: Sequence[Mapping[str, Any]], origin: provenance.Provenance) -> None:
    """Write rows as one compressed Arrow file, atomically. Columns that a row lacks are null."""
    arrow.write(path, schema, rows, origin, compression="zstd")


def write_manifest(path: Path, directory: Path, facts: Mapping[str, Any], origin: provenance.Provenance) -> None:
    """Seal the shards of a directory: their names and digests, what they hold, and where they come from.

    Timings are no part of it: they differ from run to run.
    """
    shards = {shard.name: atomic.digest(shard) for shard in sorted(directory.glob("*.arrow")) if shard.name != FILE}
    atomic.write_json(path, {"provenance": origin, "facts": dict(facts), "shards": shards})


class Statistics:
    """The statistics of one model on one corpus, of one capture or of several that shared the windows out."""

    def __init__(self, manifests: Sequence[Path], expected: str | None = None) -> None:
        """Open captures by their manifests; refuse one whose lineage is not `expected` or whose model differs."""
        self._parts = [Part(Path(path), expected) for path in manifests]
        self.facts: dict[str, Any] = dict(self._parts[0].facts)
        windows = sorted((entry for part in self._parts for entry in part.windows), key=lambda entry: entry[0])
        self.facts["windows"] = [window for window, _ in windows]
        if len(set(self.facts["windows"])) < len(windows):
            raise ConfigError(f"{', '.join(map(str, manifests))}: captures of the same windows; give each part once.")
        self.facts["positions_per_window"] = [positions for _, positions in windows]
        for name in NONFINITE:
            counts = {window: count for part in self._parts for window, count in part.facts.get(name, {}).items()}
            self.facts[name] = {window: counts[window] for window in sorted(counts, key=int)}
        self.provenance = self._parts[0].provenance

    @property
    def sequences(self) -> int:
        """Number of windows."""
        return len(self.facts["windows"])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each window (S,), in the order of windows."""
        return np.array(self.facts["positions_per_window"])

    @property
    def blocks(self) -> int:
        """Number of decoder blocks."""
        return int(self.facts["blocks"])

    def block(self, index: int) -> "BlockTable":
        """Read the rows of one block, in the order of windows."""
        return BlockTable(self._read(block_name(index)), self)

    def coverage(self, sites: Iterable[str]) -> "HitTable":
        """Return, per window, at how many positions each channel reaches a level in any tensor of `sites`."""
        table = self._read(COVERAGE)
        rows = table.filter(pa.compute.equal(table["sites"], "+".join(sorted(sites))))
        if rows.num_rows == 0:
            raise ConfigError(
                f"this capture did not count positions over {', '.join(sites)} together; "
                "capture again with a definition over these sites."
            )
        return HitTable(rows.combine_chunks(), int(self.facts["channels"]), self.facts["grids"])

    def experts(self, block: int) -> "dict[str, ExpertInputs]":
        """Return what each expert of a block read over all captures, by site; nothing where it is not kept.

        Parts add up to the bits of one pass.
        """
        name = experts_name(block)
        if not all(part.has(name) for part in self._parts):
            return {}
        tables = [part.read(name) for part in self._parts]
        return {
            site: functools.reduce(ExpertInputs.together, [ExpertInputs.of_table(table, site) for table in tables])
            for site in tables[0]["site"].unique().to_pylist()
        }

    def losses(self) -> np.ndarray:
        """Return the negative log-likelihood in nats of each token after the first: (S, T - 1).

        T is that of the longest window; where a shorter one has no token there is NaN.
        """
        return ragged.rectangle(self._read(LOSSES)["loss"], np.nan)

    def _read(self, name: str) -> pa.Table:
        table = pa.concat_tables([part.read(name) for part in self._parts])
        return table.sort_by("window") if len(self._parts) > 1 else table


@dataclass(frozen=True)
class BlockTable:
    """The rows of one block."""

    table: pa.Table
    statistics: Statistics

    @cached_property
    def sites(self) -> list[str]:
        """The sites that were observed in this block, `router` among them in a MoE block."""
        return list(dict.fromkeys(self.table["site"].to_pylist()))

    @cached_property
    def experts(self) -> "dict[str, ExpertInputs]":
        """What each expert of the block read, by site; nothing in a dense block, or where it is not kept."""
        return self.statistics.experts(self.table["block"][0].as_py())

    def site(self, name: str) -> "SiteTable":
        """Return the rows of one site, one a window."""
        rows = self.table.filter(pa.compute.equal(self.table["site"], name))
        return SiteTable(rows.combine_chunks(), self.statistics)


@dataclass(frozen=True)
class SiteTable:
    """The rows of one site of one block, as arrays."""

    rows: pa.Table
    statistics: Statistics

    def values(self, column: str) -> np.ndarray:
        """Return a column with one value a window (S,)."""
        return self.rows[column].to_numpy()

    def matrix(self, column: str) -> np.ndarray:
        """Return a column with a list of equal length a window: (S, C), (S, T) or (S, E); NaN where it has null."""
        return _matrix(self.rows, column)

    def of_class(self, column: str, token_class: str) -> np.ndarray:
        """Return what a column has for each row of a token class in every window: (S, N), flat if windows differ.

        `first` are the rows of position 0, `rest` all others, `all` both.
        """
        first = self.first.shape[1]
        wanted = {"all": slice(None), "first": slice(0, first), "rest": slice(first, None)}[token_class]
        if len(set(self.statistics.facts["positions_per_window"])) == 1:
            return self.matrix(column)[:, wanted]
        return np.concatenate([entry[wanted] for entry in self.lists(column)])

    def lists(self, column: str) -> list[np.ndarray]:
        """Return a column with a list of any length a window."""
        return [entry.values.to_numpy() for entry in self.rows[column]]

    @property
    def width(self) -> int:
        """Channels of this tensor."""
        return len(self.rows["max"][0])

    @property
    def first(self) -> np.ndarray:
        """The rows of position 0 (S, F, C): one, or one for each expert it was sent to."""
        return self.matrix("first").reshape(self.rows.num_rows, -1, self.width)

    @property
    def rest_max_abs(self) -> np.ndarray:
        """The largest |x| of each channel without position 0 (S, C); 0 in a window that has no other."""
        return np.maximum(np.maximum(self.matrix("max"), -self.matrix("min")), 0)

    @property
    def max_abs(self) -> np.ndarray:
        """The largest |x| of each channel (S, C)."""
        return np.maximum(np.abs(self.first).max(1), self.rest_max_abs)

    @property
    def hits(self) -> "HitTable | None":
        """The hits at this site, None where they were not counted."""
        if self.rows["hit_channel"].null_count:
            return None
        return HitTable(self.rows, self.width, self.statistics.facts["grids"])


@dataclass(frozen=True)
class HitTable:
    """How many values of each channel reach each value of a grid, one histogram a window."""

    rows: pa.Table
    channels: int
    grids: Mapping[str, Sequence[float]]

    def reaching(self, threshold: float, *, relative: bool = False, rounded: bool = False) -> np.ndarray:
        """Return how many values reach a threshold: counts (S, C). Raises ConfigError if it is not on the grid.

        `relative` thresholds count in RMS of the tensor; `rounded` compares after rounding to bfloat16.
        """
        values = tuple(self.grids["relative" if relative else "absolute"])
        reached = 1 + level(threshold, values, round_to_bfloat16=rounded and not relative)
        return self.levels(relative=relative)[:, :, reached:].sum(2)

    def levels(self, *, relative: bool = False) -> np.ndarray:
        """Return how many values reach exactly the first k values of the grid: counts (S, C, 1 + G)."""
        prefix, grid = ("rms_hit", "relative") if relative else ("hit", "absolute")
        count_SCG = np.zeros((self.rows.num_rows, self.channels, 1 + len(self.grids[grid])), np.int32)
        for row in range(self.rows.num_rows):
            channel, reached, count = (
                self.rows[f"{prefix}_{name}"][row].values.to_numpy() for name in ("channel", "level", "count")
            )
            count_SCG[row, channel, reached] = count
        return count_SCG


@dataclass(frozen=True)
class ExpertInputs:
    """What each expert of a block read at a site, over the rows that the router sent to it; 0 of what has no row."""

    tokens_E: np.ndarray
    sum_2_EC: np.ndarray
    sum_2_low_EC: np.ndarray
    """What rounding left of `sum_2_EC`."""
    max_abs_EC: np.ndarray
    saliency_E: np.ndarray
    """Sum of the router's weight times the norm of the output; NaN where weights are not known, or at another site."""
    saliency_low_E: np.ndarray

    @classmethod
    def of_table(cls, table: pa.Table, site: str) -> "ExpertInputs":
        """Return the rows of a site, one an expert, of one capture."""
        rows = table.filter(pa.compute.equal(table["site"], site)).sort_by("expert")
        tokens_E = rows["tokens"].to_numpy()
        channels = max((len(entry) for entry in rows["max_abs"] if entry.is_valid), default=0)
        tables = [np.zeros((len(tokens_E), channels)) for _ in range(3)]
        for table, name in zip(tables, ("sum_2", "sum_2_low", "max_abs"), strict=True):
            for expert in np.flatnonzero(tokens_E):
                table[expert] = rows[name][int(expert)].values.to_numpy()
        sums = [rows[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("saliency", "saliency_low")]
        unseen = [np.where(tokens_E > 0, values, 0.0) for values in sums]
        return cls(tokens_E, tables[0], tables[1], tables[2].astype(np.float32), *unseen)

    def together(self, other: "ExpertInputs") -> "ExpertInputs":
        """Return these and those of another part; experts of a part without any row have no channels."""
        parts = [part for part in (self, other) if part.tokens_E.any()]
        if len(parts) < 2:
            return parts[0] if parts else self
        sums = exact_sums.add(self.sum_2_EC, self.sum_2_low_EC, other.sum_2_EC, other.sum_2_low_EC)
        saliency = exact_sums.add(self.saliency_E, self.saliency_low_E, other.saliency_E, other.saliency_low_E)
        tokens_E = self.tokens_E + other.tokens_E
        return ExpertInputs(tokens_E, *sums, np.maximum(self.max_abs_EC, other.max_abs_EC), *saliency)


class Part:
    """The shards that one manifest seals: those of a capture, or of another pass."""

    def __init__(self, manifest: Path, expected: str | None, artefact: str = "statistics") -> None:
        """Open them; refuse those whose lineage as `artefact` is not `expected`."""
        self._manifest = manifest
        self._directory = manifest.with_suffix("")
        content = _load(manifest)
        self.provenance, self.facts, self._digests = content["provenance"], content["facts"], content["shards"]
        if expected is not None:
            provenance.require(self.provenance, artefact, expected, manifest)

    @property
    def windows(self) -> list[tuple[int, int]]:
        """Each window and its tokens; captures from before windows could differ say one number for all."""
        windows = self.facts["windows"]
        lengths = self.facts.get("positions_per_window", [self.facts.get("positions")] * len(windows))
        return list(zip(windows, lengths, strict=True))

    def has(self, name: str) -> bool:
        """Return whether the manifest names a shard."""
        return name in self._digests

    def names(self, pattern: str) -> list[str]:
        """Return the shards whose names match a pattern, in order."""
        return sorted(fnmatch.filter(self._digests, pattern))

    def read(self, name: str) -> pa.Table:
        """Return a shard. Raises DamagedFile where it is missing, cut or altered."""
        path = self._directory / name
        remedy = f"delete {self._manifest} and {self._directory}, then {remedies.again(self._manifest)}"
        if name not in self._digests or not path.is_file():
            raise DamagedFile(f"{path}: the shard is missing; {remedy}.")
        if atomic.digest(path) != self._digests[name]:
            raise DamagedFile(f"{path}: the shard is cut or altered (its sha256 is not the manifest's); {remedy}.")
        return arrow.read(path)[0]


def _load(manifest: Path) -> dict[str, Any]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("provenance", "facts", "shards")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise remedies.unusable(manifest, "manifest of statistics", error) from error


def _matrix(table: pa.Table, column: str) -> np.ndarray:
    values = table[column].combine_chunks()
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
