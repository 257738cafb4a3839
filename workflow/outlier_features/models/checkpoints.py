"""Checkpoints: directories of config, tokenizer and safetensors, sealed by source.json."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from outlier_features.artefacts import atomic, provenance, remedies
from outlier_features.artefacts.lineage import Lineage
from outlier_features.errors import DamagedFile, SourceError
from outlier_features.models.sizes import Footprint

SOURCE = "source.json"
"""Says where a checkpoint comes from and which files it has; written last."""
POINTER = b"version https://git-lfs"
"""How a file begins that a clone without Git LFS has in the place of a large one."""


def seal(directory: Path, origin: Mapping[str, Any], lineage: Lineage) -> None:
    """Check the weights of a checkpoint and write its source.json: origin, footprint, size and sha256 of every file."""
    weights = sorted(directory.rglob("*.safetensors"))
    if not weights:
        raise SourceError(f"{_named(origin)}: has neither safetensors nor pytorch_model.bin; name a revision that has.")
    for path in weights:
        _require_whole(path, _named(origin))
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": atomic.digest(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != SOURCE
    }
    from outlier_features.models.footprint import of_directory  # builds the model without weights; readers do without

    footprint = replace(of_directory(directory), stored_bytes=sum(path.stat().st_size for path in weights))
    record = provenance.record(lineage, source=dict(origin))
    atomic.write_json(directory / SOURCE, {"provenance": record, "files": files, "footprint": footprint.plain()})


def read_footprint(directory: Path) -> Footprint:
    """Return the sizes of the model of a sealed checkpoint. Raises FileNotFoundError where they are not told."""
    try:
        return Footprint(**json.loads((directory / SOURCE).read_text(encoding="utf-8"))["footprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileNotFoundError(f"{directory / SOURCE} does not tell the sizes of the model") from error


def read_source(directory: Path, expected: str | None = None) -> dict[str, Any]:
    """Return where a checkpoint comes from; refuse one that is incomplete or whose lineage is not `expected`."""
    path = directory / SOURCE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record, files = content["provenance"], content["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(
            f"{directory}: no whole checkpoint (source.json is missing or cut); {remedies.again(path)}."
        ) from error
    if expected is not None:
        provenance.require(record, "checkpoint", expected, path)
    for name, entry in files.items():
        found = directory / name
        size = found.stat().st_size if found.is_file() else None
        if size != entry["bytes"]:
            raise DamagedFile(
                f"{found}: has {size if size is not None else 'no'} bytes where {entry['bytes']} were written; "
                f"delete {directory}, then {remedies.again(path)}."
            )
    return record["source"]


def _require_whole(path: Path, where: str) -> None:
    """Raise SourceError unless a file has the header of safetensors and all the bytes that it tells of."""
    try:
        with safe_open(path, framework="np"):
            return
    except SafetensorError as error:
        with path.open("rb") as opened:
            is_pointer = opened.read(len(POINTER)) == POINTER
        if is_pointer:
            wrong = "is a pointer of Git LFS and not the weights; run git lfs pull in its folder."
        else:
            wrong = f"not a whole safetensors file ({error}); name a whole copy of the model."
        raise SourceError(f"{path.name} of {where}: {wrong}") from error


def _named(origin: Mapping[str, Any]) -> str:
    kind, value = next(iter(origin.items()))
    return f"{kind} {value}"
