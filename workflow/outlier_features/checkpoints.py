"""Checkpoints: every source of a model becomes a directory of config, tokenizer and safetensors, with source.json."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from outlier_features import atomic, packages, provenance
from outlier_features.config import Model
from outlier_features.errors import DamagedFile, SourceError
from outlier_features.lineage import Lineage

SOURCE = "source.json"
"""Says where a checkpoint comes from and which files it has; written last."""

HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*")
"""What is downloaded of a hub repository: weights as safetensors, configuration, tokenizer, licence."""


def fetch(model: Model, output: Path, lineage: Lineage) -> None:
    """Put the checkpoint of a `hub`, `path` or `package` model into the directory `output`. Raises SourceError."""
    with atomic.directory(output) as unfinished:
        if model.package is not None:
            origin = _from_package(model.package, str(model.file), unfinished)
        elif model.path is not None:
            origin = _from_directory(Path(model.path), unfinished)
        else:
            origin = _from_hub(str(model.hub), model.revision, unfinished)
        seal(unfinished, origin, lineage)


def seal(directory: Path, origin: Mapping[str, Any], lineage: Lineage) -> None:
    """Check the weights of a checkpoint and write its source.json: origin, and size and sha256 of every file."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise SourceError(f"{_named(origin)}: has no safetensors; convert it, or name a revision that has them.")
    for name in sorted(_indexed(directory) - {path.name for path in weights}):
        raise SourceError(f"{_named(origin)}: {name}, which its index names, is missing; fetch the model again.")
    for path in weights:
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise SourceError(
                f"{path.name} of {_named(origin)}: not a whole safetensors file ({error}); fetch it again."
            ) from error
    files = {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": atomic.digest(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != SOURCE
    }
    record = provenance.record(lineage, source=dict(origin))
    atomic.write_json(directory / SOURCE, {"provenance": record, "files": files})


def read_source(directory: Path, expected: str | None = None) -> dict[str, Any]:
    """Return where a checkpoint comes from; refuse one that is incomplete or whose lineage is not `expected`."""
    path = directory / SOURCE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record, files = content["provenance"], content["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(
            f"{directory}: no whole checkpoint (source.json is missing); fetch the model again."
        ) from error
    if expected is not None:
        provenance.require(record, "checkpoint", expected, path)
    for name, entry in files.items():
        found = directory / name
        size = found.stat().st_size if found.is_file() else None
        if size != entry["bytes"]:
            raise DamagedFile(
                f"{found}: has {size if size is not None else 'no'} bytes where {entry['bytes']} were written; "
                f"delete {directory} and fetch the model again."
            )
    return record["source"]


def _from_package(requirement: str, file: str, output: Path) -> dict[str, Any]:
    """Dequantise the GGUF of a package with transformers and save it as an ordinary float32 checkpoint."""
    import torch  # minutes of work follow; the other sources need neither
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    directory = packages.directory(requirement)
    if not (directory / file).is_file():
        raise SourceError(f"package {requirement} has no file {file}; it has {_names(directory, '*.gguf')}.")
    quantization = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=file, quantization_config=quantization, dtype=torch.float32, local_files_only=True
    )
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(directory, gguf_file=file, local_files_only=True).save_pretrained(output)
    return {"package": requirement, "file": file, "sha256": atomic.digest(directory / file)}


def _from_directory(directory: Path, output: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such directory; check path in config.yaml.")
    for path in _files(directory):
        shutil.copy2(path, output / path.name)  # no link: who edits the original in place would change the copy
    return {"path": str(directory)}


def _from_hub(repository: str, revision: str | None, output: Path) -> dict[str, Any]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    where = f"{repository}@{revision or 'main'}"
    try:
        snapshot = Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    except RepositoryNotFoundError as error:
        raise SourceError(f"{where}: no such model on the hub, or it is gated; check the name and HF_TOKEN.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{where}: cannot be downloaded ({type(error).__name__}: {reason}); check the network, HF_ENDPOINT and the "
            "revision, then run again: what is already there is kept."
        ) from error
    for path in _files(snapshot):
        _link(path.resolve(), output / path.name)
    return {"hub": repository, "revision": revision, "commit": snapshot.name}


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.is_file() and path.name != SOURCE]


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file of the hub's cache where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _indexed(directory: Path) -> set[str]:
    """Return the weight files that the index of a checkpoint in several files names."""
    files: set[str] = set()
    for index in directory.glob("*.safetensors.index.json"):
        files |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return files


def _named(origin: Mapping[str, Any]) -> str:
    kind, value = next(iter(origin.items()))
    return f"{kind} {value}"


def _names(directory: Path, pattern: str) -> str:
    return ", ".join(sorted(path.name for path in directory.glob(pattern))) or "none"
