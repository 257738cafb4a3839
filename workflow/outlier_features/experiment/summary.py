"""Summary: one row per model and definition of an experiment, joined from the tables of its models.

Of a table only what enters the summary is read, one model after the other: memory grows with the rows of the summary,
not with what the tables hold.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import dataset

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_columns, read_json, write_table
from outlier_features.config.entries import Model
from outlier_features.thresholds import TWIN

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
    "architecture",
)
"""What the summary takes from the capture's facts as it is."""
COARSE = "bfloat16"
"""The coarsest precision; the grids of a capture hold every threshold as it is rounded to this one."""
LAYER_COLUMNS = ("kurtosis_neuron_rms", "massive_count", "massive_top")
RESIDUAL = (dataset.field("site") == "residual") & (dataset.field("token_class") == "all")
"""What of the table of layers enters the summary."""


@dataclass(frozen=True)
class Entry:
    """One model of a summary: its names, and the files that were made for it."""

    model: str
    label: str
    source: str
    """The key of its entry that says where it comes from: hub, path, package, or train for one that is trained here."""
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
    tables = (outliers, layers, perplexity)
    return Entry(name, model.named(name), model.source, model.hub, model.series, model.step, *tables)


def summarize(entries: Sequence[Entry], corpus: str, lineage: Lineage) -> tuple[pd.DataFrame, provenance.Provenance]:
    """Join what is known of each model, measured on the corpus of that name, into one row per model and definition.

    Where a model runs in bfloat16, the activations of every model count as rounded to it (`rounding`): |x| >= 6 is then
    |x| >= 5.984375 for all. A scale-free twin rounds nothing.
    """
    reductions = {entry.model: lineage.get(f"reduction {entry.model}") for entry in entries}
    origins = {
        entry.model: read_columns(entry.outliers, [], "reduction", reductions[entry.model])[1] for entry in entries
    }
    is_rounded = any(origin["facts"]["dtype"] == COARSE for origin in origins.values())
    rows: list[dict[str, Any]] = []
    for entry in entries:
        rows += _rows(entry, origins[entry.model], corpus, lineage, is_rounded=is_rounded)
    summary = pd.DataFrame(rows)
    sizes = ["step", "total_params", "active_params", "experts", "top_k", "blocks", "hidden_size", "sequences"]
    counts = ["outlier_count", "distinct_channels", "stable_channels", "one_sided_count", "massive_count"]
    for name in sizes + counts:
        summary[name] = summary[name].astype("Int64")
    return summary, provenance.record(lineage)


def write_summary(summary: pd.DataFrame, origin: provenance.Provenance, parquet: Path, csv: Path, text: Path) -> None:
    """Write the summary three times: as parquet, as CSV and as JSON."""
    write_table(parquet, summary, origin)
    with atomic.file(csv) as unfinished:
        summary.to_csv(unfinished, index=False)
    records = json.loads(summary.to_json(orient="records"))
    atomic.write_json(text, {"models": records, "provenance": origin})


def _rows(
    entry: Entry, origin: provenance.Provenance, corpus: str, lineage: Lineage, *, is_rounded: bool
) -> list[dict[str, Any]]:
    expected = lineage.get(f"reduction {entry.model}")
    layers, _ = read_columns(entry.layers, LAYER_COLUMNS, "reduction", expected, RESIDUAL)
    quality = read_json(entry.perplexity, "perplexity", lineage.get(f"perplexity {entry.model}"))
    facts = origin["facts"]
    common: dict[str, Any] = {
        name: getattr(entry, name) for name in ("model", "label", "source", "hub", "series", "step")
    }
    common |= {name: facts[name] for name in FACTS}
    common |= {"hidden_size": facts["channels"], "corpus": corpus}
    common |= {"sequences": len(facts["windows"]), "length": quality["window"]}
    after = _quality_columns(quality) | _layer_columns(layers) | {"lineage": origin["lineage"]["reduction"]}
    return [
        common | {"definition": name} | _with_gaps(found) | after | {"interval_note": _interval_note(found, quality)}
        for name, found in _estimates(origin, is_rounded=is_rounded).items()
    ]


def _estimates(origin: provenance.Provenance, *, is_rounded: bool) -> dict[str, dict[str, Any]]:
    """Return the estimates of each definition, those of rounded activations where asked for."""
    found: dict[str, dict[str, Any]] = origin["estimates"]
    if origin["facts"]["dtype"] == COARSE:  # they come rounded
        return {name: each if name.endswith(TWIN) else each | {"rounding": COARSE} for name, each in found.items()}
    return found | (origin["rounded_estimates"] if is_rounded else {})


def _interval_note(*parts: Mapping[str, Any]) -> str | None:
    """Return which columns of a row have no interval, and why."""
    return " ".join(part["interval_note"] for part in parts if part.get("interval_note")) or None


def _quality_columns(quality: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {"windows": quality.get("windows", "packed"), "windows_digest": quality["windows_digest"]}
    columns |= {"loss": quality["loss"]}
    for name in ("perplexity", "bits_per_byte"):
        low, high = (np.nan if end is None else end for end in quality["interval"][name])
        columns |= {name: quality[name], f"{name}_low": low, f"{name}_high": high}
    return _with_gaps(columns)


def _with_gaps(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers that were read from JSON, NaN for those that are null there."""
    return {name: math.nan if value is None and name != "note" else value for name, value in columns.items()}


def _layer_columns(residual: pd.DataFrame) -> dict[str, Any]:
    """Return the largest kurtosis of the residual stream over blocks, its massive activations and the largest of them.

    A block without one has a larger activation than the massive ones of another where its median is larger too.
    """
    if residual.empty:
        return {"kurtosis_max": None, "massive_count": None, "massive_max_abs": None}
    massive = residual["massive_count"].sum()
    return {
        "kurtosis_max": residual["kurtosis_neuron_rms"].max(),
        "massive_count": massive,
        "massive_max_abs": max(
            (abs(entry["value"]) for entries in residual["massive_top"].dropna() for entry in entries), default=None
        ),
    }
