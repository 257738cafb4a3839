"""Exports: what a measured model gives to those who quantise and to those who write papers.

docs/exports.md shows how each file is loaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_table
from outlier_features.config.entries import Definition
from outlier_features.errors import ArchitectureError
from outlier_features.experiment.summary import Entry, summarize
from outlier_features.exports import expert_scores, paper_tables, ranges
from outlier_features.exports.imatrix import Imatrix
from outlier_features.exports.matrix_inputs import MatrixInputs
from outlier_features.exports.outlier_channels import OutlierChannels
from outlier_features.exports.tensor_files import HEADROOM, TensorFiles
from outlier_features.metrics import criteria
from outlier_features.statistics.shards import Statistics

SCHEMA, CALIBRATION_SCHEMA = "outlier_channels/1", "calibration/1"
"""Names and versions of the forms of outlier_channels.json and calibration.json."""
IMATRIX = "imatrix.gguf"
"""Written where gguf has names for the architecture; calibration.json says whether, and why not."""


def export(
    entry: Entry,
    manifests: Sequence[Path],
    definitions: Mapping[str, Definition],
    corpus: str,
    folder: Path,
    lineage: Lineage,
) -> None:
    """Write the export of one model to `folder`, outlier_channels.json last; no model is loaded.

    `entry` names its tables, `manifests` are those of all its captures. One block is in memory at a time. Raises
    StaleFile where the statistics do not say which matrices read each tensor.
    """
    statistics = Statistics(manifests, lineage.get("statistics"))
    features, reduced = read_table(entry.outliers, "reduction", lineage.get(f"reduction {entry.model}"))
    inputs, files = MatrixInputs(statistics, manifests[0]), TensorFiles()
    experts: list[dict[str, Any]] = []
    reach: list[dict[str, Any]] = []
    is_apart = False
    imatrix, reason = _imatrix(statistics)
    channels = {
        each.name: OutlierChannels(each, features, reduced["estimates"][each.name]["note"])
        for each in criteria.criteria(definitions)
    }
    for block in range(statistics.blocks):
        table = statistics.block(block)
        read = list(inputs.of_block(block, table))
        files.add(read)
        files.add_cache(inputs.attention_module(block), table)
        if (scores := expert_scores.of_block(block, table)) is not None:
            experts.append(scores)
            is_apart = is_apart or bool(table.experts)
        if imatrix is not None:
            imatrix.add(read, len(scores["tokens"]) if scores else None)
        readers = {site: inputs.of(block, site) for site in table.sites}
        reach += ranges.of_block(block, table, readers)
        for found in channels.values():
            found.add(block, table, readers)
    rows, _ = summarize([entry], corpus, lineage)
    paper = paper_tables.of_model(rows, definitions, corpus)
    origin = provenance.record(lineage, statistics=statistics.provenance)
    about = _about(entry, statistics, corpus)
    counted = about | {"tokens": int(statistics.lengths.sum())}
    files.write(folder, counted, origin, is_moe=statistics.facts["kind"] == "moe")
    if imatrix is not None:
        reason = _missing(statistics, imatrix, is_apart=is_apart or not experts)
    has_imatrix = imatrix is not None and not imatrix.is_empty
    if imatrix is not None and has_imatrix:
        imatrix.write(folder / IMATRIX, about)
    else:
        (folder / IMATRIX).unlink(missing_ok=True)
        print(f"{entry.model}: {reason}")
    calibration = {"headroom": HEADROOM, "ranges": reach, "experts": experts}
    words = {"imatrix": has_imatrix, "imatrix_note": reason}
    content = {"schema": CALIBRATION_SCHEMA, **counted, **words, **calibration, "provenance": origin}
    atomic.write_json(folder / "calibration.json", content)
    paper_tables.write(paper, folder / "table.tex", folder / "table.md", origin)
    by_definition = {name: found.result() for name, found in channels.items()}
    content = {"schema": SCHEMA, **about, "definitions": by_definition, "provenance": origin}
    atomic.write_json(folder / "outlier_channels.json", content)


def _imatrix(statistics: Statistics) -> tuple[Imatrix | None, str | None]:
    """Return what becomes the imatrix of the model, or why there will be none."""
    try:
        return Imatrix(statistics.facts["model_type"], statistics.blocks), None
    except ArchitectureError as error:
        return None, str(error)


def _missing(statistics: Statistics, imatrix: Imatrix, *, is_apart: bool) -> str | None:
    """Return which matrices of the blocks the imatrix has no entry for, as far as is known; None where it has all.

    `is_apart` says that what each expert read was kept.
    """
    inputs = ("attn_in", "out_proj_in", "mlp_in", "down_in")
    left_out = [site for site in inputs if site not in statistics.facts["sites"]]
    parts = [
        *imatrix.left_out,
        *([] if is_apart else ["experts were not kept apart, so they have no entry"]),
        *([f"capture.sites has no {', '.join(left_out)}, so what reads it has no entry"] if left_out else []),
    ]
    return "; ".join(parts) or None


def export_summary(
    summary: Path, latex: Path, markdown: Path, definitions: Mapping[str, Definition], corpus: str, lineage: Lineage
) -> None:
    """Write the table of all models of an experiment, one row each, to `latex` and to `markdown`."""
    rows, _ = read_table(summary, "summary", lineage["summary"])
    table = paper_tables.of_experiment(rows, definitions, corpus)
    paper_tables.write(table, latex, markdown, provenance.record(lineage))


def _about(entry: Entry, statistics: Statistics, corpus: str) -> dict[str, Any]:
    """Return what was measured on what."""
    return {
        "model": entry.model,
        "label": entry.label,
        "corpus": corpus,
        "sequences": statistics.sequences,
        "length": int(statistics.lengths.max()),
        "dtype": statistics.facts["dtype"],
        "hidden_size": int(statistics.facts["channels"]),
        "blocks": statistics.blocks,
    }
