"""Compressed files, opened as the bytes they hold."""

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from outlier_features.errors import SourceError

MARKS = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd"),
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\x00"),
}
"""The suffixes that are understood, and how such a file begins."""

FAULTS = (EOFError, zlib.error, lzma.LZMAError)
"""What the readers raise beside OSError where a compressed file is damaged or cut."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, uncompressed by the rule of its suffix. Raises SourceError where it holds another."""
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(16)
    found = next((name for name, mark in MARKS.items() if mark.match(start)), None)
    if suffix in MARKS and found != suffix:
        raise SourceError(f"{path}: is named {suffix}, but holds {_words(found)}; give it the name of its format.")
    if suffix not in MARKS and found is not None:
        raise SourceError(f"{path}: holds {found} data, which its name does not say; rename it to {path.name}{found}.")
    with _reader(path, suffix) as stream:
        yield stream


def _reader(path: Path, suffix: str) -> Any:
    match suffix:
        case ".gz":
            return gzip.open(path)
        case ".bz2":
            return bz2.open(path)
        case ".xz":
            return lzma.open(path)
        case ".zst":
            return pa.CompressedInputStream(str(path), "zstd")
        case _:
            return path.open("rb")


def _words(found: str | None) -> str:
    return "no data compressed in that way" if found is None else f"{found} data"
