"""The plan of an experiment in a terminal: how large its models are, and what measuring each takes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TextIO

import pandas as pd
from rich.table import Table
from rich.text import Text

from outlier_features.artefacts import strict_json
from outlier_features.cli.show_summary import console, frame
from outlier_features.planning.estimate import Plan
from outlier_features.units import human, spoken

CONVENTIONS = {
    "with_embedding_and_head": ("active_params", "embedding and head counted"),
    "without_embedding": ("active_params_without_embedding", "head counted, embedding not"),
    "without_embedding_and_head": ("active_params_without_embedding_and_head", "neither counted"),
}
"""How publishers count active parameters: our column, and what to call it."""

LEGEND = (
    "published: the publisher's figures and by how much ours differ; active parameters are compared as the publisher "
    "counts them (figures rounded to 3B or 12B cannot agree better than their last digit). download: ~ where it "
    "follows from the number formats in config.json and the hub was not asked; 0 where it is here. read: bytes of "
    "weights, each once. device: weights of two blocks, what lies outside the blocks, hidden states of all windows, "
    "one window inside a block. host: the process beside that; on a machine without a GPU a run needs both. time: the "
    "slower of computing and reading."
)


def show_plans(
    plans: Sequence[Plan],
    published: pd.DataFrame,
    *,
    flops: float,
    bandwidth: float,
    format: Literal["table", "json"] = "table",
    stream: TextIO,
) -> None:
    """Write the plans to `stream`, as tables or as JSON records.

    `published` has the publishers' sizes by hub name, with the convention they count by; `flops` are operations and
    `bandwidth` bytes a second that the device and the disk sustain.
    """
    sizes: dict[str, Any] = {row["hub"]: row for row in published.to_dict("records")}
    rows = [plan.row(flops, bandwidth) | _published(plan, sizes.get(plan.hub or "")) for plan in plans]
    if format == "json":
        stream.write(strict_json.dumps(rows, indent=2) + "\n")
        return
    paper = console(stream)
    paper.print(_table("parameters", SIZES, [_size_cells(row) for row in rows]))
    paper.print()
    paper.print(_table(f"cost at {flops:.3g} operations/s and {bandwidth:.3g} bytes/s", COSTS, _cost_cells(rows)))
    if varied := [row for row in rows if "variants" in row]:
        paper.print()
        paper.print(_table("variants, all in one more pass", VARIANTS, list(map(_variant_cells, varied))))
    paper.print()
    paper.print(LEGEND)
    if varied:
        paper.print(VARIANTS_LEGEND)


WORDS = ("already here", "\ncounted with", "variants and interventions")
"""The columns that hold words."""
SIZES = ("total", "active", "experts", "top-k", "shared", "published\ntotal", "\nactive", "\ncounted with")
COSTS = ("download\nGB", "read\nGB", "device\nGB", "host\nGB", "results\nGB", "time", "already here")


VARIANTS = ("runs", "read\nGB", "device\nGB", "of these\nhidden", "time", "variants and interventions")
VARIANTS_LEGEND = (
    "runs: how often the windows go through each block, the plain model, the noise of each format and every draw of a "
    "control included. hidden: hidden states of all runs, offloaded where the device has no room."
)


def _published(plan: Plan, row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the publisher's figures and by how many percent ours differ; empty where nothing is published."""
    if row is None:
        return {}
    column, words = CONVENTIONS[row["convention"]]
    counts = plan.footprint.counts
    return {
        "published_total_params": row["total_params"],
        "published_active_params": row["active_params"],
        "convention": row["convention"],
        "counted": words,
        "total_difference_pct": 100 * (counts["total_params"] / row["total_params"] - 1),
        "active_difference_pct": 100 * (counts[column] / row["active_params"] - 1),
    }


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = frame(title)
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(name, justify="left" if name in WORDS else "right", no_wrap=name != VARIANTS[-1])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _size_cells(row: Mapping[str, Any]) -> list[str]:
    experts = [str(row[name]) if row[name] is not None else "-" for name in ("experts", "top_k", "shared_experts")]
    if "convention" not in row:
        return [row["label"], human(row["total_params"]), human(row["active_params"]), *experts, "-", "-", ""]
    pairs = [(row[f"published_{name}_params"], row[f"{name}_difference_pct"]) for name in ("total", "active")]
    published = [f"{human(value)} ({difference:+.1f} %)" for value, difference in pairs]
    sizes = [human(row["total_params"]), human(row["active_params"])]
    return [row["label"], *sizes, *experts, *published, row["counted"]]


def _cost_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    together: dict[str, Any] = {"label": "together (memory: the largest)", "cached": None}
    together |= {name: sum(row[name] for row in rows) for name in ("download_bytes", "read_bytes", "statistics_bytes")}
    together |= {name: max(row[name] for row in rows) for name in ("device_bytes", "host_bytes")}
    together |= {"seconds": sum(row["seconds"] for row in rows)}
    together |= {"is_download_known": all(row["is_download_known"] for row in rows)}
    return [*map(_costs, rows), [""] * (1 + len(COSTS)), _costs(together)]


def _costs(row: Mapping[str, Any]) -> list[str]:
    return [
        row["label"],
        ("" if row["is_download_known"] else "~") + _gigabytes(row["download_bytes"]),
        *(_gigabytes(row[f"{name}_bytes"]) for name in ("read", "device", "host", "statistics")),
        spoken(row["seconds"]),
        "" if row["cached"] is None else ", ".join(row["cached"]) or "nothing",
    ]


def _variant_cells(row: Mapping[str, Any]) -> list[str]:
    sizes = [_gigabytes(row[f"variants_{name}_bytes"]) for name in ("read", "device", "hidden")]
    return [row["label"], str(row["variant_runs"]), *sizes, spoken(row["variants_seconds"]), ", ".join(row["variants"])]


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f}" if count >= 5e7 else f"{count / 1e9:.2f}"
