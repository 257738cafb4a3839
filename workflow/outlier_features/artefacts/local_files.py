"""Local files: which files of this disk a text or a checkpoint is made of."""

from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from outlier_features.artefacts import packages
from outlier_features.config.entries import Corpus

DOCUMENTATION = (".*", "*.md", "LICENSE*", "source.json")
"""Files beside a checkpoint from which no number follows."""


Part = Literal["files", "training"]
"""What of a text is measured on, and what `train` recipes may read."""


def root_of_text(corpus: Corpus) -> Path:
    """Return the file or directory of a local text. Raises SourceError where its package is not installed."""
    return packages.directory(corpus.package) if corpus.package else Path(str(corpus.path))


def of_text(corpus: Corpus, part: Part) -> tuple[Path, list[str]]:
    """Return the place of a local text and its files in the order they are read, below that place.

    Raises SourceError where its package is not installed; a place that is not there has no files.
    """
    root = root_of_text(corpus)
    if root.is_file():
        return root.parent, [root.name]
    matches = {path for pattern in getattr(corpus, part) for path in root.glob(pattern) if path.is_file()}
    return root, [path.relative_to(root).as_posix() for path in sorted(matches)]


def of_checkpoint(directory: Path) -> list[str]:
    """Return the names of the files of a local checkpoint that may decide a number, sorted."""
    names = [path.name for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
    return sorted(name for name in names if not _matches(name, DOCUMENTATION))


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
