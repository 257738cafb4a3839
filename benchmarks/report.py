"""Report: from the runs of benchmarks/engines.py to a table in Markdown and the targets, met or missed."""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import page

NAMES = {
    "ours": "this project: statistics at four sites, shards, outlier features",
    "ours-engine": "its engine, nothing observed",
    "a": "(a) `from_pretrained` and ordinary forward, nothing observed",
    "b": "(b) accelerate, a third of the weights in memory, the rest on disk; nothing observed",
    "b-uncached": "(b) with the page cache dropped before each window",
    "c": "(c) nnsight caches the four sites of all windows, torch counts the features afterwards",
    "d": "(d) every activation saved to a file, then a Python loop over the outlier elements",
}
GB = 1e9

Row = Mapping[str, float]
"""The median of each quantity over the runs of a contestant."""

COLUMNS: dict[str, Callable[[Row], str]] = {
    "wall s": lambda row: f"{row['wall_seconds']:.1f} ({row['wall_least']:.0f}-{row['wall_most']:.0f})",
    "CPU s": lambda row: f"{row['cpu_seconds']:.1f}",
    "peak GB": lambda row: _gb(row["peak_bytes"]),
    "less imports GB": lambda row: _gb(grown(row)),
    "anonymous GB": lambda row: _gb(row["anonymous_bytes"]),
    "disk read GB": lambda row: _gb(row["disk_read_bytes"]),
    "read calls GB": lambda row: _gb(row["call_read_bytes"]),
    "weights fetched GB": lambda row: _gb(row["fetched_bytes"]),
    "written GB": lambda row: _gb(row["written_bytes"]),
    "outlier features": lambda row: "-" if row["outlier_count"] is None else f"{row['outlier_count']:.0f}",
}

NOTES = """\
Every run is a process of its own; the clock starts after the imports, which all have in common, and the checkpoint is
dropped from the page cache before (posix_fadvise). Medians over rounds in turns, the range of the wall seconds in
brackets. *peak*: VmHWM, pages of mapped files among it; *less imports*: without what was resident when the clock
started; *anonymous*: RssAnon, without pages of files; *disk read*: what storage gave (read_bytes); *read calls*: what
read() returned (rchar; mappings are not among it); *weights fetched*: bytes of weights asked for, each as often as
asked, from storage or page cache. The losses of every window agree between all contestants within 1e-6, and the counts
of outlier features (`arb8020`, summed over windows) are equal; the benchmark fails otherwise."""


def section(found: Mapping[str, Any]) -> str:
    """Return the section of docs/benchmarks.md about the runs that engines.py kept; a round cut short is left out."""
    loads, models = found["loads"], [whole_rounds(model) for model in found["models"]]
    parts = [
        "## Against other ways to do it",
        f"{page.describe(found['machine'])}, load {min(loads):.1f} to {max(loads):.1f} (median {median(loads):.1f}) "
        f"before each turn:\n`{command(found['options'])}`",
    ]
    for model in models:
        parts += [_heading(model, found["options"]), table(model)]
    rows = [line for model in models for line in targets(model, found["options"]["windows"])]
    parts += [NOTES, page.table(["target", "model", "measured", ""], rows)]
    return "\n\n".join(parts)


def whole_rounds(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model with only the rounds that every contestant finished, and their number as `rounds`."""
    rounds = min(len(runs) for runs in model["runs"].values())
    return {**model, "rounds": rounds, "runs": {name: runs[:rounds] for name, runs in model["runs"].items()}}


def table(model: Mapping[str, Any]) -> str:
    """Return what each contestant took, a row each."""
    rows = [[NAMES[name], *(show(row) for show in COLUMNS.values())] for name, row in medians(model).items()]
    rows += [
        [NAMES[name], f"not run: {reason}", *[""] * (len(COLUMNS) - 1)] for name, reason in model["not_run"].items()
    ]
    return page.table(["", *COLUMNS], rows)


def medians(model: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the median of every quantity over the runs of each contestant."""
    result = {}
    for name, runs in model["runs"].items():
        row: dict[str, Any] = {key: median(run["usage"][key] for run in runs) for key in runs[0]["usage"]}
        walls = [run["usage"]["wall_seconds"] for run in runs]
        row |= {"wall_least": min(walls), "wall_most": max(walls)}
        result[name] = row | {key: runs[0][key] for key in ("fetched_bytes", "outlier_count")}
    return result


def targets(model: Mapping[str, Any], windows: int) -> list[list[str]]:
    """Return for each target that can be judged: what it is, of which model, what was measured, met or missed."""
    rows = medians(model)
    judged = []
    for name, against, limit, quantity, words in _targets():
        if "ours" in rows and against in rows and (windows >= 8 or quantity is not fetched):
            share = quantity(rows["ours"]) / quantity(rows[against])
            measured = f"{share:.2f}" if limit >= 0.25 else f"{1 / share:.1f} times as fast"
            judged.append([f"{name}{words}", model["kind"], measured, "met" if share <= limit else "**missed**"])
    return judged


def grown(row: Row) -> float:
    """Return by how much the peak exceeds what was resident after the imports."""
    return row["peak_bytes"] - row["start_bytes"]


def fetched(row: Row) -> float:
    """Return the bytes of weights that were asked for."""
    return row["fetched_bytes"]


def _targets() -> list[tuple[str, str, float, Callable[[Row], float], str]]:
    """Return each target: what of ours, against whom, the largest share it may be, how it is read, in words."""
    return [
        ("memory at most 1/4 of (a)'s", "a", 0.25, lambda row: row["peak_bytes"], ", peak"),
        ("memory at most 1/4 of (a)'s", "a", 0.25, grown, ", less imports"),
        ("bytes read at most 1/4 of (b)'s, 8 windows or more", "b", 0.25, fetched, ", weights fetched"),
        ("bytes read at most 1/4 of (b)'s, 8 windows or more", "b-uncached", 0.25, _disk, ", disk, page cache dropped"),
        ("not slower than (a), page cache cold", "a", 1.0, _wall, ", wall"),
        ("not slower than (a), page cache cold", "a", 1.0, lambda row: row["cpu_seconds"], ", CPU"),
        ("at least 5 times faster than (d)", "d", 0.2, _wall, ", wall"),
        ("at least 5 times faster than (d)", "d", 0.2, lambda row: row["cpu_seconds"], ", CPU"),
    ]


def _wall(row: Row) -> float:
    return row["wall_seconds"]


def _disk(row: Row) -> float:
    return row["disk_read_bytes"]


def command(options: Mapping[str, Any]) -> str:
    """Return the command that makes such a run."""
    flags = [f"--{name} {options[name]}" for name in ("dense", "moe", "windows", "length", "rounds", "dtype")]
    if options["contestants"] != ",".join(NAMES):
        flags.append(f"--contestants {options['contestants']}")
    flags += ["--nnsight PYTHON"] if "c" in options["contestants"].split(",") else []
    return f"PYTHONPATH=workflow python benchmarks/engines.py {' '.join(flags)}"


def _heading(model: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    family = {"dense": "Dense (Qwen3)", "moe": "Mixture of experts (Qwen3-MoE, 64 experts, top 8)"}[model["kind"]]
    return (
        f"**{family}**, {model['parameters'] / 1e9:.2g}B random parameters, {options['dtype']}, "
        f"{_gb(model['stored_bytes'])} GB on disk, {options['windows']} windows of {options['length']} random tokens, "
        f"rounds: {model['rounds']}. 3 % of the channels have a gain of 4 to 12 in every norm: outlier features."
    )


def _gb(size: float) -> str:
    return f"{size / GB:.2f}"
