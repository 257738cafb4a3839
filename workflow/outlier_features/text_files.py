"""Texts: which files of a package or of a directory a corpus consists of."""

from pathlib import Path
from typing import Literal

from outlier_features import packages
from outlier_features.config import Corpus
from outlier_features.errors import SourceError

Part = Literal["files", "training"]
"""What is measured on, and what `train` recipes may read."""


def paths(corpus: Corpus, part: Part) -> list[Path]:
    """Return the files of one part of a corpus that is no data set of the hub, in a fixed order.

    Raises SourceError if there are none, or if some are measured on and trained on.
    """
    root = packages.directory(corpus.package) if corpus.package else Path(str(corpus.path))
    if not root.exists():
        raise SourceError(f"{root}: no such file or directory; check the path of the corpus in config.yaml.")
    patterns = getattr(corpus, part)
    matches = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    if root.is_file() and part == "training":
        raise SourceError(f"{root}: one file is what is measured on; give a directory with files and training.")
    if part == "training" and (both := matches & {path for pattern in corpus.files for path in root.glob(pattern)}):
        raise SourceError(f"{min(both)}: is in files and in training; text that is trained on is not measured on.")
    found = [root] if root.is_file() else sorted(matches)
    if not found:
        raise SourceError(f"{root}: no file matches {', '.join(patterns) or 'an empty list'} ({part} of the corpus).")
    return found
