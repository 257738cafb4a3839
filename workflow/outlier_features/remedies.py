"""Remedies: what helps against a file that is missing, damaged, or made from something else."""

import json
from collections.abc import Iterable
from pathlib import Path

from outlier_features import atomic
from outlier_features.errors import DamagedFile

STAGES = {
    "checkpoints": "fetch (train, for a model with a recipe)",
    "tokens": "tokenize",
    "statistics": "capture",
    **dict.fromkeys(("outliers", "channels", "layers", "draws", "convergence", "positions", "perplexity"), "reduce"),
    "summary": "summarize",
    "inference": "infer",
    "plots": "plot",
}
"""The stage that writes a result, by the first part of its path, without suffix, that stands here."""


def again(path: Path) -> str:
    """Return how a result is made again."""
    stages = [STAGES[part.partition(".")[0]] for part in path.parts if part.partition(".")[0] in STAGES]
    return f"run snakemake, or the stage {stages[0]}" if stages else "run snakemake again"


def unusable(path: Path, kind: str, error: Exception, remedy: str | None = None) -> DamagedFile:
    """Return the error for a result that cannot be read as a `kind`: missing, not allowed, or damaged."""
    if isinstance(error, FileNotFoundError):
        return DamagedFile(f"{path}: missing; {remedy or again(path)}.")
    if isinstance(error, PermissionError):
        return DamagedFile(f"{path}: permission denied; change the permissions of the file.")
    return DamagedFile(f"{path}: not a readable {kind}; {remedy or f'delete it, then {again(path)}'}.")


def of_checkpoint(directory: Path, names: Iterable[str]) -> str:
    """Return what helps where files of a sealed checkpoint cannot be used.

    Those that are as they were when it was sealed would come again the same.
    """
    try:
        sealed = json.loads((directory / "source.json").read_text(encoding="utf-8"))
        origin, files = dict(sealed["provenance"]["source"]), dict(sealed["files"])
        altered = [name for name in names if _differs(directory / name, files.get(name, {}).get("sha256"))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        origin, altered = {}, ["source.json"]
    if altered:
        return f"{altered[0]} is not as it was fetched: delete {directory}, then {again(Path('checkpoints'))}"
    return f"it is so at its source, and fetching it again changes nothing: {mended(origin)}"


def mended(origin: dict[str, str | None]) -> str:
    """Return what helps where a model is not usable as its source has it."""
    if "path" in origin:
        return f"mend {origin['path']}, or name another directory"
    return "name another package" if "package" in origin else "name another revision"


def _differs(path: Path, digest: str | None) -> bool:
    return digest is None or not path.is_file() or atomic.digest(path) != digest
