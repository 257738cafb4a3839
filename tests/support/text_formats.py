"""Rows of text in every format that is read, compressed or not."""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from outlier_features.config.entries import Corpus
from outlier_features.errors import SourceError
from outlier_features.text.documents import documents

ROWS = ["One, two.", 'Größe "in" Anführung, €.', "🙂\nA second line.", ""]
FORMATS = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda content: bytes(pa.Codec("zstd").compress(content, asbytes=True)),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def separated(mark: str, rows: list[str]) -> bytes:
    quoted = [row.replace('"', '""') for row in rows]
    lines = [f"id{mark}text", *(f'{number}{mark}"{row}"' for number, row in enumerate(quoted))]
    return "".join(f"{line}\n" for line in lines).encode()


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def content(suffix: str, rows: list[str]) -> bytes:
    objects = [{"id": number, "text": row} for number, row in enumerate(rows)]
    return {
        ".txt": rows[0].encode(),
        ".md": rows[0].encode(),
        ".jsonl": "".join(f"{json.dumps(each)}\n" for each in objects).encode(),
        ".ndjson": "\n\n".join(json.dumps(each, ensure_ascii=False) for each in objects).encode(),
        ".json": json.dumps(objects, indent=1).encode(),
        ".csv": separated(",", rows),
        ".tsv": separated("\t", rows),
        ".parquet": parquet(id=list(range(len(rows))), text=rows),
    }[suffix]


def read(path: Path, **corpus: Any) -> list[str]:
    return list(documents(Corpus(path=str(path), sequences=1, length=8, **corpus)))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refusal(path: Path, **corpus: Any) -> str:
    with pytest.raises(SourceError, match=re.escape(str(path))) as raised:
        read(path, **corpus)
    words = str(raised.value)
    assert "\n" not in words
    return words.removeprefix(str(path))
