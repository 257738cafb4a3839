"""Remedies: what helps against a file that is missing, damaged, or made from something else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outlier_features.artefacts import atomic, paths
from outlier_features.errors import DamagedFile

STAGES = {
    "checkpoints": "fetch (train, for a model with a recipe)",
    "tokens": "tokenize",
    "statistics": "capture",
    **dict.fromkeys((*paths.TABLES, "perplexity"), "reduce"),
    "calibration": "tokenize",
    "variants": "vary",
    **dict.fromkeys(paths.CONSEQUENCES, "vary"),
    "summary": "summarize",
    "inference": "infer",
    "plots": "plot",
}
"""The stage that writes a result, by the first part of its path, without suffix, that stands here."""


def again(path: Path) -> str:
    """Return how a result is made again; those of a measurement by its command alone."""
    if paths.configuration().is_file():
        return "measure the model again as before"
    stages = [STAGES[part.partition(".")[0]] for part in path.parts if part.partition(".")[0] in STAGES]
    return f"run snakemake, or the stage {stages[0]}" if stages else "run snakemake again"


def setting(key: str, value: str) -> str:
    """Return how a setting of the configuration gets a value; in a measurement, by the option of its last name."""
    if paths.configuration().is_file():
        return f"give --{key.rpartition('.')[2]} {value}"
    return f"set {key} to {value}"


def unusable(path: Path, kind: str, error: Exception, remedy: str | None = None) -> DamagedFile:
    """Return the error for a result that cannot be read as a `kind`: missing, not allowed, or damaged."""
    if isinstance(error, FileNotFoundError):
        return DamagedFile(f"{path}: missing; {remedy or again(path)}.")
    if isinstance(error, PermissionError):
        return DamagedFile(f"{path}: permission denied; change the permissions of the file.")
    return DamagedFile(f"{path}: not a readable {kind}; {remedy or f'delete it, then {again(path)}'}.")


def of_checkpoint(directory: Path) -> str:
    """Return what helps where a sealed checkpoint cannot be used: as it was fetched, it would come again the same."""
    seal = directory / "source.json"
    try:
        sealed = json.loads(seal.read_text(encoding="utf-8"))
        origin, files = dict(sealed["provenance"]["source"]), dict(sealed["files"])
        altered = [name for name in files if _is_altered(directory / name, files[name]["sha256"], seal)]
    except (OSError, ValueError, KeyError, TypeError):
        origin, altered = {}, [seal.name]
    if altered:
        return f"{altered[0]} is not as it was fetched: delete {directory}, then {again(Path('checkpoints'))}"
    return f"it is so where it comes from, and fetching it again brings the same: {mended(origin)}"


def mended(origin: Mapping[str, Any]) -> str:
    """Return what helps where a model is not usable as its source has it."""
    if "path" in origin:
        return f"mend {origin['path']}, or name another directory"
    for kind, remedy in (("hub", "revision"), ("package", "package")):
        if kind in origin:
            return f"name another {remedy}"
    return "change its entry in config.yaml"


def _is_altered(path: Path, digest: str, seal: Path) -> bool:
    """Return whether a file is not the one that was sealed; one that nobody has written to since is not read."""
    if not path.is_file():
        return True
    return path.stat().st_ctime_ns > seal.stat().st_ctime_ns and atomic.digest(path) != digest
