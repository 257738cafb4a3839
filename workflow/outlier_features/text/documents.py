"""Documents: the texts of a corpus, from a package, from local files or from the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from outlier_features.artefacts import local_files
from outlier_features.artefacts.local_files import Part
from outlier_features.config.entries import Corpus
from outlier_features.errors import OutlierFeaturesError, SourceError
from outlier_features.text import text_files


def documents(corpus: Corpus, part: Part = "files") -> Iterator[str]:
    """Yield the texts of one part of a corpus, in a fixed order. Raises SourceError if there is none to be had."""
    return ("".join(pieces) for pieces in in_pieces(corpus, part))


def in_pieces(corpus: Corpus, part: Part = "files") -> Iterator[Iterator[str]]:
    """Yield the texts as `documents` does, each in pieces that are read when they are asked for."""
    if corpus.hub is not None:
        yield from _from_hub(corpus)
        return
    for path in files(corpus, part):
        yield from text_files.documents(path, corpus.column)


def files(corpus: Corpus, part: Part = "files") -> list[Path]:
    """Return the files of one part of a local corpus, in order. Raises SourceError if there are none."""
    root = local_files.root_of_text(corpus)
    if not root.exists():
        raise SourceError(f"{root}: no such file or directory; check the path of the corpus in config.yaml.")
    if root.is_file() and part == "training":
        raise SourceError(f"{root}: one file is what is measured on; give a directory with files and training.")
    folder, names = local_files.of_text(corpus, part)
    if part == "training" and (both := set(names) & set(local_files.of_text(corpus, "files")[1])):
        raise SourceError(f"{folder / min(both)}: is in files and in training; what is trained on is not measured on.")
    if not names:
        patterns = ", ".join(getattr(corpus, part)) or "an empty list"
        raise SourceError(f"{root}: no file matches {patterns} ({part} of the corpus).")
    found = [folder / name for name in names]
    for path in found:
        text_files.require_format(path)
    return found


def _from_hub(corpus: Corpus) -> Iterator[Iterator[str]]:
    try:
        for number, row in enumerate(_stream(corpus), 1):
            where = f"{corpus.hub}, row {number}"
            value = text_files.value_of(dict(row), corpus.column, where)
            yield iter((text_files.text_of(value, corpus.column, where),))
    except OutlierFeaturesError:
        raise
    except Exception as error:  # the client raises a dozen kinds; all mean that the text cannot be had
        reason = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{corpus.hub}: the data set cannot be read from the hub ({type(error).__name__}: {reason}); "
            "check the network, HF_ENDPOINT, HF_TOKEN and the revision."
        ) from error


def _stream(corpus: Corpus) -> Any:
    """Return the rows of a data set of the hub, which come as they are asked for."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise SourceError(f"{corpus.hub}: reading a hub data set needs the package datasets; install it.") from error
    return load_dataset(corpus.hub, name=corpus.name, split=corpus.split, revision=corpus.revision, streaming=True)
