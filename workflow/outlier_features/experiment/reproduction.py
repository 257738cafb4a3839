"""Reproduction: what this project measures, beside the table that arb8020 published in 2025.

Takes the summary and the published table; no model and no configuration is read here. A blank cell of the published
table was not published: it stays blank and is never 0.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.experiment.quantities import QUANTITIES, Quantity

DEFINITION = "arb8020"

EXPERIMENT, CORPUS = "sweep_of_2025", "fineweb-edu-2025"
"""What config.yaml calls the sweep as the source ran it, and its text."""
AS_PUBLISHED: Mapping[str, Any] = {
    "corpus": CORPUS,
    "windows": "arb8020",
    "sequences": 16,
    "length": 2048,
    "threshold": 6.0,
    "min_layers": 0.25,
    "min_positions": 0.06,
    "scope": "sequence",
    "sites": "attn_in+mlp_in",
    "rounding": "bfloat16",
}
"""How the source measured, in columns of the summary; the precision is that of each model."""

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
class Published:
    """One column of the published table, and what is measured of the same."""

    name: str
    """The column of the published table."""
    measured: str
    """The column of the summary."""
    is_shown: bool = True
    """Whether the document shows it; what it does not show is in the CSV only."""
    unit: float = 1.0
    """How many of what is measured make one of what is published."""
    remark: str = ""
    """What it counts, where that could be taken otherwise."""

    @property
    def quantity(self) -> Quantity:
        """What is measured, in words."""
        return QUANTITIES[self.measured]

    @property
    def heading(self) -> str:
        """What the document calls it."""
        return self.quantity.titled + (" (B)" if self.unit == BILLION else "")


BILLION = 1e9
COMPARED = (
    Published("outliers", "outlier_count", remark="sum over sequences of counts per sequence"),
    Published("mean_layer_pct", "mean_layer_pct"),
    Published("mean_seq_pct", "mean_position_pct"),
    Published("perplexity", "perplexity"),
    Published("total_params_b", "total_params", unit=BILLION, remark="total_params: with embedding table and head"),
    Published("active_params_b", "active_params", unit=BILLION),
    Published("experts", "experts", is_shown=False, remark="routed experts of a block"),
    Published("top_k", "top_k", is_shown=False),
)

CONVENTIONS = {
    "active_params": "with embedding table and head",
    "active_params_without_embedding": "without the embedding table, with the head",
    "active_params_without_embedding_and_head": "without embedding table and head",
}
"""The ways to count active parameters, as columns of the summary."""
COUNTED_OTHERWISE = {
    "openai/gpt-oss-20b": "active_params_without_embedding",
    "openai/gpt-oss-120b": "active_params_without_embedding",
    "zai-org/GLM-4.5-Air": "active_params_without_embedding_and_head",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "active_params_without_embedding_and_head",
}
"""What the publishers of these models count as active; all others count everything a token passes through."""

REMARKS = {
    ("allenai/OLMoE-1B-7B-0125", "mean_layer_pct"): "the source gives 28.0 as well",
    ("allenai/OLMoE-1B-7B-0125", "mean_seq_pct"): "the source gives 14.3 as well",
    ("openai/gpt-oss-20b", "experts"): "the source infers it; the published configuration has 32",
    ("openai/gpt-oss-20b", "top_k"): "the source infers it",
}
"""What else is known of single cells of the published table."""

FAULTS = {
    "All models, outlier features": "The count adds up 16 sequences, each counted on its own, so one channel can count "
    "16 times and the sum can exceed the hidden size: Qwen3-0.6B has 1,024 channels and 9,212 “outliers”. It cannot be "
    "held against the at most 7 distinct channels of LLM.int8().",
    "All models, layers": "Each norm output is a layer of its own, so a block has two.",
    "All models, positions": "A position counts when any layer is hit there: the share is that of a union over layers.",
    "All models, text": "It is the default configuration of FineWeb-Edu, not its sample-10BT.",
    "All models, windows": "Consecutive windows overlap by half, so the 16 sequences are not independent samples.",
    "Dense Qwen3 models, perplexity": "The mean loss of each window is weighted by its number of tokens, not of "
    "predictions. No perplexity of a mixture of experts is published.",
    "OLMoE-1B-7B": "The source gives it twice with different shares of layers and positions, 29.5 and 13.6 (compared "
    "here) and 28.0 and 14.3; the precision of the analysis is bfloat16 in one place and float32 in another.",
    "GPT-OSS-20B": "Experts and top-k are marked as inferred from the 120B model; the number of experts is left blank "
    "here. The published configuration has 32 experts. Its routing is “standard top-k” in the tables of the source and "
    "softmax-weighted in a footnote.",
}
"""What is known to be wrong or easily misread in the published table, by what it concerns."""

WINDOWS = {"packed": "packed windows", "arb8020": "the overlapping windows of 2025"}
"""How the document calls the ways to cut a text."""


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


def reproduce(summary: pd.DataFrame, published: Path, csv: Path, markdown: Path, corpus: str, lineage: Lineage) -> None:
    """Write the comparison of a summary with the published table: all of it as CSV, the gist as Markdown."""
    pairs = joined(summary, pd.read_csv(published))
    origin = provenance.record(lineage, published=atomic.digest(published))
    with atomic.file(csv) as unfinished:
        compared(pairs).to_csv(unfinished, index=False)
    with atomic.file(markdown) as unfinished:
        unfinished.write_text(document(pairs, summary, corpus, origin), encoding="utf-8")


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
    rows = [_row(pair, asked) for pair in pairs for asked in COMPARED]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(pair: Pair, asked: Published) -> dict[str, Any]:
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


def _column(pair: Pair, asked: Published) -> str:
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


def _remarks(pair: Pair, asked: Published, published: float | None, measured: float | None) -> list[str]:
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


def _absence(ours: Mapping[str, Any], asked: Published) -> str:
    """Return why a measured model has no value."""
    if isinstance(ours.get("note"), str) and ours["note"]:
        return str(ours["note"])
    quantity = asked.quantity
    explains = quantity.unit != "%" or ours.get("outlier_count") == 0
    return quantity.blank if explains else "the summary has no value"


def document(pairs: Sequence[Pair], summary: pd.DataFrame, corpus: str, origin: provenance.Provenance) -> str:
    """Return the comparison as Markdown for a reader."""
    parts = [
        "# Measured beside published: the sweep of 2025",
        _subject(pairs, corpus),
        *_likeness(pairs),
        *_table([pair for pair in pairs if pair.is_joined]),
        *_leftovers(pairs, summary),
        "## Known faults of the published table",
        "\n".join(f"- **{concerned}.** {fault}" for concerned, fault in FAULTS.items()),
        "---",
        _imprint(origin),
    ]
    return "\n\n".join(parts) + "\n"


def _subject(pairs: Sequence[Pair], corpus: str) -> str:
    """Return in a sentence what is compared with what."""
    published = "the table that arb8020 published in 2025 (FineWeb-Edu, 16 sequences of 2,048 tokens)"
    rows = pd.DataFrame([pair.ours for pair in pairs if pair.ours is not None])
    if rows.empty:
        return f"To be compared with {published}, but no model was measured under the definition `{DEFINITION}`."
    thresholds = _either(f"{value:g}" for value in rows["threshold"].dropna())
    cut = f"{_either(f'{n:,}' for n in rows['sequences'])} sequences of {_either(f'{n:,}' for n in rows['length'])}"
    windows = _either(WINDOWS.get(name, name) for name in rows.get("windows", pd.Series()).dropna())
    return (
        f"Outlier features under the definition `{DEFINITION}` (|x| ≥ {thresholds}), measured on {cut} tokens of the "
        f"corpus `{corpus}`{windows and f' ({windows})'} with the forward pass in {_either(rows['dtype'])}, beside "
        f"{published}."
    )


def _likeness(pairs: Sequence[Pair]) -> list[str]:
    """Say whether the models were measured as the source did, or in what not, and how to."""
    rows = pd.DataFrame([pair.ours for pair in pairs if pair.ours is not None])
    if rows.empty:
        return []
    differences = [
        f"{name.replace('_', ' ')} {_either(map(str, rows[name].dropna()))} (there {theirs})"
        for name, theirs in AS_PUBLISHED.items()
        if name in rows and any(value != theirs for value in rows[name].dropna())
    ]
    differences += [
        f"{pair.name} in {pair.ours['dtype']} (there {_precision(pair.theirs)})"
        for pair in pairs
        if pair.ours is not None and pair.theirs is not None and pair.ours["dtype"] != _precision(pair.theirs)
    ]
    if not differences:
        return ["Measured as the source did: its text, its windows, its definition, and each model in its precision."]
    return [
        f"Not measured as the source did: {'; '.join(differences)}. The sweep as the source ran it is the experiment "
        f"`{EXPERIMENT}` of config.yaml: the default configuration of FineWeb-Edu (corpus `{CORPUS}`), "
        "`windows: arb8020`, OLMoE in float32."
    ]


def _precision(theirs: Mapping[str, Any]) -> str:
    """Return in what precision the source ran a model; weights in MXFP4 are multiplied in bfloat16."""
    found = theirs.get("analysis_dtype")
    return "bfloat16" if found is None or pd.isna(found) or found == "mxfp4" else str(found)


def _either(values: Iterable[str]) -> str:
    """Return the different values in words, sorted."""
    return " or ".join(sorted(set(values)))


def _table(pairs: Sequence[Pair]) -> list[str]:
    """Return the table of the models that are measured and published, with how to read it, or why there is none."""
    if not pairs:
        return ["No measured model is in the published table, so there is nothing to compare."]
    shown = [asked for asked in COMPARED if asked.is_shown]
    lines = [
        f"| model | {' | '.join(asked.heading for asked in shown)} |",
        f"|---|{'---:|' * len(shown)}",
        *(f"| {pair.name} | {' | '.join(_cell(pair, asked) for asked in shown)} |" for pair in pairs),
    ]
    reading = (
        "Each cell: measured / published (difference in percent of the published value). ✓: the published value lies "
        "within the 95 % interval of the measured one. -: not published or, before the stroke, without a value. "
        "Published values are as rounded as their source prints them. Outlier features are sums over sequences. Active "
        "parameters are counted as the publisher of each model counts them; which way, the intervals, experts and "
        "top-k are in `reproduction.csv`."
    )
    return ["\n".join(lines), reading]


def _cell(pair: Pair, asked: Published) -> str:
    row = _row(pair, asked)
    measured = "-" if row["measured"] is None else f"{row['measured']:,.{asked.quantity.decimals(row['measured'])}f}"
    published = "-" if row["published"] is None else f"{row['published']:,.10g}"
    remarks = [f"{row['difference_pct']:+.1f} %"] if row["difference_pct"] is not None else []
    remarks += ["✓"] if row["inside_interval"] else []
    return f"{measured} / {published}" + (f" ({' '.join(remarks)})" if remarks else "")


def _leftovers(pairs: Sequence[Pair], summary: pd.DataFrame) -> list[str]:
    """Return the names of all models that are on one side only, and of the series that were left out."""
    groups = {
        "Published, not measured": [pair.name for pair in pairs if pair.ours is None],
        "Measured, not in the published table": [pair.name for pair in pairs if pair.theirs is None],
        "Left out, steps of a training run": list(summary[summary["step"].notna()]["series"].unique()),
    }
    return [f"**{words}:** {', '.join(names)}." for words, names in groups.items() if len(names)]


def _imprint(origin: provenance.Provenance) -> str:
    """Return the provenance in a line."""
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    lineage = ", ".join(f"{name} {digest}" for name, digest in origin["lineage"].items())
    return f"Made by {versions}. Lineage: {lineage}. Published table: sha256 {origin['published'][:16]}."
