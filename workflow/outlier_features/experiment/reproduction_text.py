"""Reproduction text: the comparison with the table of 2025, for a reader."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.experiment.reproduction import Pair, compared, joined, row_of
from outlier_features.experiment.table_of_2025 import (
    AS_PUBLISHED,
    COMPARED,
    CORPUS,
    DEFINITION,
    EXPERIMENT,
    FAULTS,
    WINDOWS,
    PublishedColumn,
)
from outlier_features.units import either


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
    thresholds = either(f"{value:g}" for value in rows["threshold"].dropna())
    cut = f"{either(f'{n:,}' for n in rows['sequences'])} sequences of {either(f'{n:,}' for n in rows['length'])}"
    windows = either(WINDOWS.get(name, name) for name in rows.get("windows", pd.Series()).dropna())
    return (
        f"Outlier features under the definition `{DEFINITION}` (|x| ≥ {thresholds}), measured on {cut} tokens of the "
        f"corpus `{corpus}`{windows and f' ({windows})'} with the forward pass in {either(rows['dtype'])}, beside "
        f"{published}."
    )


def _likeness(pairs: Sequence[Pair]) -> list[str]:
    """Say whether the models were measured as the source did, or in what not, and how to."""
    rows = pd.DataFrame([pair.ours for pair in pairs if pair.ours is not None])
    if rows.empty:
        return []
    differences = [
        f"{name.replace('_', ' ')} {either(map(str, rows[name].dropna()))} (there {theirs})"
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


def _cell(pair: Pair, asked: PublishedColumn) -> str:
    row = row_of(pair, asked)
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


def reproduce(summary: pd.DataFrame, published: Path, csv: Path, markdown: Path, corpus: str, lineage: Lineage) -> None:
    """Write the comparison of a summary with the published table: all of it as CSV, the gist as Markdown."""
    pairs = joined(summary, pd.read_csv(published))
    origin = provenance.record(lineage, published=atomic.digest(published))
    with atomic.file(csv) as unfinished:
        compared(pairs).to_csv(unfinished, index=False)
    with atomic.file(markdown) as unfinished:
        unfinished.write_text(document(pairs, summary, corpus, origin), encoding="utf-8")
