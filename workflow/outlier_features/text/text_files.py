"""Text files: what a file holds, row by row, by the format that its name and its content agree on."""

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from outlier_features.artefacts import remedies
from outlier_features.errors import SourceError
from outlier_features.text import compressed

BLOCK = 1 << 18
"""Bytes that are read of a file at once."""
ROWS = 64
"""Rows of a parquet file that are read at once."""

Rows = Iterator[tuple[int, Any]]
"""Numbers of rows, from 1, with what each has in the column."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32LE",
    codecs.BOM_UTF32_BE: "UTF-32BE",
    codecs.BOM_UTF16_LE: "UTF-16LE",
    codecs.BOM_UTF16_BE: "UTF-16BE",
}
BINARY = {
    b"PAR1\x15": "a parquet file",
    b"ARROW1\x00": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"%PDF-1.": "a PDF",
    b"\x89PNG": "a PNG image",
    b"SQLite format 3\x00": "an SQLite database",
}
"""How some files begin that are taken for text."""


def documents(path: Path, column: str) -> Iterator[Iterator[str]]:
    """Yield the documents of a file, each in pieces: the whole of a plain text, or what each row has in the column.

    Raises SourceError, naming the file and the place in it, where there is no text to be had.
    """
    read = _format(path)
    with _explained(path), compressed.opened(path) as stream:
        if read is None:
            yield _decoded(stream, path)
            return
        for row, value in read(stream, path, column):
            yield iter((text_of(value, column, f"{path}, row {row}"),))


def text_of(value: Any, column: str, where: str) -> str:
    """Return the text of a row. Raises SourceError, beginning with `where`, if the row holds none."""
    if not isinstance(value, str):
        kind = "null" if value is None else f"{value!r:.40} ({type(value).__name__})"
        raise SourceError(f"{where}: {column} holds {kind}, not text; take the row out or choose another column.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(value[error.start]):04X}"
        raise SourceError(
            f"{where}: {column} holds half a surrogate pair ({half} at character {error.start}), which is no text; "
            "mend the row or take it out."
        ) from error
    return value


def value_of(row: Any, column: str, where: str) -> Any:
    """Return what a row has in a column. Raises SourceError, naming the columns there are, if it has none."""
    if not isinstance(row, dict):
        raise SourceError(f"{where}: is {row!r:.40} ({type(row).__name__}), not an object with the column {column}.")
    if column not in row:
        raise no_column(where, column, row)
    return row[column]


def no_column(where: str, column: str, names: Iterable[Any]) -> SourceError:
    """Return the error of a column that is not there."""
    listed = ", ".join(f"{name!s:.40}" for name in names) or "none"
    remedy = remedies.setting("column", "one of them")
    return SourceError(f"{where}: has no column {column}; its columns are {listed}; {remedy}.")


def require_format(path: Path) -> None:
    """Raise SourceError, with the suffixes that are understood, where that of a file is none of them."""
    _format(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a reader raises into a SourceError that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, *compressed.FAULTS) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{path}: cannot be read ({reason}); the file is damaged, cut or not accessible.") from error


def _format(path: Path) -> Callable[[IO[bytes], Path, str], Rows] | None:
    """Return the reader of the rows of a file, None for plain text. Raises SourceError for an unknown suffix."""
    inner = Path(path.stem) if path.suffix.lower() in compressed.MARKS else path
    suffix = inner.suffix.lower()
    if suffix not in FORMATS:
        formats, marks = ", ".join(FORMATS), ", ".join(compressed.MARKS)
        unknown = f"the suffix {suffix!r} is no format" if suffix else "the name has no suffix that names a format"
        raise SourceError(f"{path}: {unknown} of text; understood are {formats}, each also compressed as {marks}.")
    return FORMATS[suffix]


def _decoded(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in pieces, with every newline as one character and without a byte order mark."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    read = 0
    for block in _blocks(stream, path):
        held = len(utf8.getstate()[0])
        try:
            piece = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = read - held + error.start
            raise SourceError(
                f"{path}: is not UTF-8 text ({error.reason} at byte {place}); convert it, for example: "
                f"iconv -f WINDOWS-1252 -t UTF-8."
            ) from error
        yield piece if read else piece.removeprefix("\ufeff")
        read += len(block)


def _blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the bytes of a text file, an empty block last."""
    with _explained(path):
        start = stream.read(BLOCK)
        _require_text(start, path)
        yield start
        while start:
            yield (start := stream.read(BLOCK))


def _require_text(start: bytes, path: Path) -> None:
    """Refuse a file that begins like something else than UTF-8 text."""
    name = next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    if name is None and b"\x00" in start[:1024]:
        name = _utf16(start[:1024])
    if name is not None:
        raise SourceError(f"{path}: is {name} text, not UTF-8; convert it: iconv -f {name} -t UTF-8.")
    kind = next((kind for mark, kind in BINARY.items() if start.startswith(mark)), None)
    if kind is None and (zero := start.find(b"\x00")) >= 0:
        kind = f"binary data (a zero byte at byte {zero})"
    if kind is not None:
        raise SourceError(f"{path}: holds {kind}, not text as its name says.")


def _utf16(start: bytes) -> str | None:
    """Return the name of the encoding where most bytes at even or at odd places are zero and the others are not."""
    even, odd = (start[place::2].count(0) / max(1, len(start[place::2])) for place in (0, 1))
    if max(even, odd) < 0.5 or min(even, odd) > 0.1:
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"


def _lines(stream: IO[bytes], path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, without their ends."""
    parts: list[str] = []
    for piece in _decoded(stream, path):
        first, *others = piece.split("\n")
        parts.append(first)
        for line in others:
            yield "".join(parts)
            parts = [line]
    if last := "".join(parts):
        yield last


def _json_lines(stream: IO[bytes], path: Path, column: str) -> Rows:
    for number, line in enumerate(_lines(stream, path), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path}, row {number}: is not JSON ({error}).") from error
            yield number, value_of(row, column, f"{path}, row {number}")


def _json(stream: IO[bytes], path: Path, column: str) -> Rows:
    """Yield the rows of a JSON list, or of objects one behind another."""
    for number, row in enumerate(_json_values(_decoded(stream, path), path), 1):
        yield number, value_of(row, column, f"{path}, row {number}")


def _json_values(pieces: Iterator[str], path: Path) -> Iterator[Any]:
    """Yield the values of a JSON list or sequence, reading no further than the value that is asked for."""
    text = _Unread(pieces)
    listed = text.skip_space() == "["
    if listed:
        text.drop(1)
    number, decoder = 0, json.JSONDecoder()
    while following := text.skip_space():
        if listed and following == "]":
            text.drop(1)
            if text.skip_space():
                raise SourceError(f"{path}: continues after the end of its JSON list.")
            return
        number += 1
        if listed and number > 1:
            if following != ",":
                raise SourceError(f"{path}, row {number}: is not parted from the row before by a comma.")
            text.drop(1)
            text.skip_space()
        yield text.value(decoder, f"{path}, row {number}")
    if listed:
        raise SourceError(f"{path}: its JSON list does not end after row {number}; the file is cut.")


class _Unread:
    """The part of a text that has come and is not used up, more of which is read when it is needed."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces, self._text, self._at = pieces, "", 0

    def skip_space(self) -> str:
        """Go on to the next character that is no space, and return it; nothing at the end."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if not rest.isspace():
                if rest or not self._more():
                    return rest
            else:
                self._at += 1

    def drop(self, count: int) -> None:
        """Go past some characters."""
        self._at += count

    def value(self, decoder: json.JSONDecoder, where: str) -> Any:
        """Return the JSON value that begins here. Raises SourceError where there is none."""
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more():
                    raise SourceError(f"{where}: is not JSON ({error}).") from error
                continue
            if end < len(self._text) or not self._more():  # a number may go on
                self._at = end
                return value

    def _more(self) -> bool:
        """Read as much again as there is, at least one piece; say whether anything came."""
        parts, wanted = [self._text[self._at :]], max(1, len(self._text) - self._at)
        came = 0
        for piece in self._pieces:
            parts.append(piece)
            came += len(piece)
            if came >= wanted:
                break
        self._text, self._at = "".join(parts), 0
        return came > 0


def _separated(delimiter: str) -> Callable[[IO[bytes], Path, str], Rows]:
    def rows(stream: IO[bytes], path: Path, column: str) -> Rows:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a document is one field
        table = csv.reader((f"{line}\n" for line in _lines(stream, path)), delimiter=delimiter, strict=True)
        number = 0
        try:
            header = next(filter(None, table), [])
            _require_one(path, column, header)
            if header and column not in header:
                raise no_column(f"{path} (its first line taken as the names of the columns)", column, header)
            for number, row in enumerate(filter(None, table), 1):
                if len(row) != len(header):
                    raise SourceError(
                        f"{path}, row {number}: has {len(row)} fields where the header has {len(header)}."
                    )
                yield number, row[header.index(column)]
        except csv.Error as error:
            raise SourceError(f"{path}, row {number + 1}: is not separated as its name says ({error}).") from error

    return rows


def _require_one(path: Path, column: str, names: list[str]) -> None:
    """Refuse a table in which several columns have the name of the wanted one."""
    if names.count(column) > 1:
        raise SourceError(f"{path}: has {names.count(column)} columns called {column}; name them apart.")


def _parquet(stream: IO[bytes], path: Path, column: str) -> Rows:
    # the footer is at the end, so what is compressed once more has to be unpacked first
    source = str(path) if path.suffix.lower() == ".parquet" else pa.BufferReader(stream.read())
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise no_column(str(path), column, names)
        _require_one(path, column, names)
        number = 0
        for group in range(file.num_row_groups):
            batches = file.iter_batches(ROWS, row_groups=[group], columns=[column])
            for batch in _intact(batches, f"{path}, row group {group} of {file.num_row_groups}"):
                for number, value in enumerate(batch[column], number + 1):  # noqa: B020  it goes on
                    yield number, _plain(value, f"{path}, row {number}")


def _plain(value: pa.Scalar, where: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: is not UTF-8 text ({error.reason} at byte {error.start} of the value).") from error


def _intact(batches: Iterator[pa.RecordBatch], where: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{where}: is damaged ({' '.join(str(error).split())}).") from error


FORMATS: dict[str, Callable[[IO[bytes], Path, str], Rows] | None] = {
    ".txt": None,
    ".md": None,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
}
"""How the rows of a file are read, by suffix; None stands for plain text, which is one document."""
