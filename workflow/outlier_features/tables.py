"""Tables: parquet files with their provenance, and the summary of an experiment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from outlier_features import atomic, provenance
from outlier_features.config import Model
from outlier_features.errors import DamagedFile, OutlierFeaturesError
from outlier_features.lineage import Lineage

FACTS = (
    "kind",
    "total_params",
    "active_params",
    "active_params_without_embedding",
    "active_params_without_embedding_and_head",
    "experts",
    "top_k",
    "sparsity",
    "blocks",
    "dtype",
)
"""What the summary takes from the capture's facts as it is."""


@dataclass(frozen=True)
class Entry:
    """One model of a summary: its names, and the files that were made for it."""

    model: str
    label: str
    hub: str | None
    series: str | None
    step: int | None
    """The training run the model is a step of, and which."""
    outliers: Path
    layers: Path
    perplexity: Path


def entry(models: Mapping[str, Model], name: str, outliers: Path, layers: Path, perplexity: Path) -> Entry:
    """Return the entry of the model `name` of the configuration."""
    model = models[name]
    return Entry(name, model.named(name), model.hub, model.series, model.step, outliers, layers, perplexity)


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


def summarize(entries: Sequence[Entry], lineage: Lineage) -> tuple[pd.DataFrame, provenance.Provenance]:
    """Join what is known of each model into one row per model and definition."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        rows += _rows(entry, lineage)
    summary = pd.DataFrame(rows)
    integers = ["step", "total_params", "active_params", "experts", "top_k", "blocks", "hidden_size", "sequences"]
    for name in [*integers, "outlier_count", "distinct_channels", "stable_channels", "massive_count"]:
        summary[name] = summary[name].astype("Int64")
    return summary, provenance.record(lineage)


def write_summary(summary: pd.DataFrame, origin: provenance.Provenance, parquet: Path, csv: Path, text: Path) -> None:
    """Write the summary three times: as parquet, as CSV and as JSON."""
    write_table(parquet, summary, origin)
    with atomic.file(csv) as unfinished:
        summary.to_csv(unfinished, index=False)
    records = json.loads(summary.to_json(orient="records"))
    atomic.write_json(text, {"models": records, "provenance": origin})


def _rows(entry: Entry, lineage: Lineage) -> list[dict[str, Any]]:
    _, origin = read_table(entry.outliers, "reduction", lineage.get(f"reduction {entry.model}"))
    layers, _ = read_table(entry.layers, "reduction", lineage.get(f"reduction {entry.model}"))
    quality = _read_perplexity(entry.perplexity, lineage.get(f"perplexity {entry.model}"))
    facts = origin["facts"]
    common: dict[str, Any] = {name: getattr(entry, name) for name in ("model", "label", "hub", "series", "step")}
    common |= {name: facts[name] for name in FACTS}
    common |= {"hidden_size": facts["channels"], "sequences": len(facts["windows"]), "length": quality["window"]}
    after = _quality_columns(quality) | _layer_columns(layers) | {"lineage": origin["lineage"]["reduction"]}
    return [common | {"definition": name} | found | after for name, found in origin["estimates"].items()]


def _quality_columns(quality: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {"windows": quality.get("windows", "packed"), "loss": quality["loss"]}
    for name in ("perplexity", "bits_per_byte"):
        low, high = quality["interval"][name]
        columns |= {name: quality[name], f"{name}_low": low, f"{name}_high": high}
    return columns


def _layer_columns(layers: pd.DataFrame) -> dict[str, Any]:
    """Return the largest kurtosis of the residual stream over blocks, and its massive activations."""
    residual = layers[(layers["site"] == "residual") & (layers["token_class"] == "all")]
    if residual.empty:
        return {"kurtosis_max": None, "massive_count": None, "massive_max_abs": None}
    massive = residual["massive_count"].sum()
    return {
        "kurtosis_max": residual["kurtosis_neuron_rms"].max(),
        "massive_count": massive,
        "massive_max_abs": residual["max_abs"].max() if massive else None,
    }


def _read_perplexity(path: Path, expected: str | None) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if expected is not None:
            provenance.require(found["provenance"], "perplexity", expected, path)
        return found
    except OutlierFeaturesError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise DamagedFile(f"{path}: not a readable perplexity file; delete it and run snakemake again.") from error
