"""Sources: a model of the hub, of a local directory or of a package becomes a checkpoint."""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from outlier_features import architectures, atomic, hub, packages, pickled
from outlier_features.checkpoints import SOURCE, indexed, seal
from outlier_features.config import Model
from outlier_features.disk import explained
from outlier_features.errors import SourceError
from outlier_features.lineage import Lineage

DESCRIPTIONS = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*")
"""What is taken of a model beside its weights: configuration, tokenizer, licence."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
"""Suffixes of files that hold weights in some form; only the first two are ever read."""


def fetch(model: Model, output: Path, lineage: Lineage) -> None:
    """Put the checkpoint of a `hub`, `path` or `package` model into the directory `output`. Raises SourceError.

    What of a hub model has arrived when this is stopped lies beside `output`; neither that nor what an earlier
    checkpoint at `output` has of the same content is downloaded again.
    """
    arrived = output.with_name(f".{output.name}.download")
    with explained(output, "what has arrived is kept"), atomic.directory(output) as unfinished:
        if model.package is not None:
            origin = _from_package(model.package, str(model.file), unfinished)
        elif model.path is not None:
            origin = _from_directory(Path(model.path), unfinished)
        else:
            origin = _from_hub(str(model.hub), model.revision, output, arrived, unfinished)
        if list(unfinished.glob("*.bin")):
            pickled.rewrite(unfinished, str(model.hub or model.path))
        seal(unfinished, origin, lineage)
    shutil.rmtree(arrived, ignore_errors=True)


def choose_weights(names: Collection[str], directory: Path) -> list[str]:
    """Return which files of a checkpoint hold its weights: safetensors where there are any, else `.bin`.

    The index of a checkpoint in several files is read from `directory`. Files that only lie beside the weights, such as
    the original format of a publisher, are left out.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        if (index := f"{stem}.{suffix}.index.json") in names:
            return indexed(directory / index)
        if f"{stem}.{suffix}" in names:
            return [f"{stem}.{suffix}"]
        if suffix == "safetensors" and (others := [name for name in names if name.endswith(suffix)]):
            return sorted(others)
    return []


def _from_package(requirement: str, file: str, output: Path) -> dict[str, Any]:
    """Dequantise the GGUF of a package and save it as an ordinary float32 checkpoint."""
    from outlier_features import dequantised

    directory = packages.directory(requirement)
    if not (directory / file).is_file():
        raise SourceError(f"package {requirement} has no file {file}; it has {_names(directory, '*.gguf')}.")
    dequantised.write(directory, file, output)
    return {"package": requirement, "file": file, "sha256": atomic.digest(directory / file)}


def _from_directory(directory: Path, output: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise SourceError(f"{directory}: no such directory; check path in config.yaml.")
    architectures.require_readable(directory, directory)
    names = [path.name for path in _files(directory)]
    chosen = choose_weights(names, directory)
    for name in names:
        if name in chosen or not name.endswith(WEIGHTS):
            shutil.copy2(directory / name, output / name)  # no link: an edit of the original would change the copy
    return {"path": str(directory)}


def describe(
    found: hub.Snapshot, patterns: Iterable[str], arrived: Path, output: Path, earlier: Path | None = None
) -> list[str]:
    """Bring the files of a commit that match into `output`, and return the names of those that hold its weights.

    Raises SourceError or ArchitectureError where its config.json describes nothing that can be measured, which is
    before its weights are paid for.
    """
    names = [name for name in found.files if any(fnmatch(name, pattern) for pattern in patterns)]
    _take(hub.download(found, names, arrived, earlier), output)
    architectures.require_readable(output, found)
    chosen = choose_weights(list(found.files), output)
    for name in chosen:
        if name not in found.files:
            raise SourceError(f"{found}: {name}, which its index names, is not among its files; {found.remedy}")
    if not chosen:
        raise SourceError(f"{found}: has neither safetensors nor pytorch_model.bin; {found.remedy}")
    return chosen


def _from_hub(repository: str, revision: str | None, earlier: Path, arrived: Path, output: Path) -> dict[str, Any]:
    found = hub.snapshot(repository, revision)
    chosen = describe(found, DESCRIPTIONS, arrived, output, earlier)
    spare = sum(found.files[name].size for name in chosen if name.endswith(".bin"))  # read and written once more
    _take(hub.download(found, chosen, arrived, earlier, spare), output)
    return {"hub": repository, "revision": revision, "commit": found.commit}


def _take(paths: Mapping[str, Path], output: Path) -> None:
    for name, path in paths.items():
        _link(path, output / name)


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.is_file() and path.name != SOURCE]


def _link(source: Path, target: Path) -> None:
    """Make `target` a hard link to a file that has arrived where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _names(directory: Path, pattern: str) -> str:
    return ", ".join(sorted(path.name for path in directory.glob(pattern))) or "none"
