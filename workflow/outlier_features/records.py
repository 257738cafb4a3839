"""Records: the lineage that a result carries, read quickly and in whatever kind of file it is.

JSON, Arrow and parquet files, safetensors, figures, pages and texts all hold their lineage as names and digests in plain
bytes; the two Arrow formats and safetensors keep them in one part of the file, and only that is read.
"""

import re
from pathlib import Path
from typing import BinaryIO

WITHOUT = {".csv"}
"""Suffixes of files that can carry none; each is written together with one that does."""

QUOTE = rb'(?:\\?"|&quot;|&#34;)?'


def recorded(path: Path, artefact: str) -> str | None:
    """Return the digest that a file carries as the lineage of `artefact`, None where it carries none."""
    pattern = rb"\b" + re.escape(artefact).encode() + QUOTE + rb":?\s*" + QUOTE + rb"([0-9a-f]{16})\b"
    try:
        with path.open("rb") as file:
            found = re.search(pattern, _telling(file, path.suffix))
    except OSError:
        return None
    return found.group(1).decode() if found else None


def _telling(file: BinaryIO, suffix: str) -> bytes:
    """Return the bytes of a file among which its lineage stands."""
    if suffix in (".parquet", ".arrow"):
        mark = {".parquet": 4, ".arrow": 6}[suffix]  # PAR1 and ARROW1, after the size of the footer
        end = file.seek(0, 2)
        file.seek(max(0, end - mark - 4))
        size = int.from_bytes(file.read(4), "little")
        file.seek(max(0, end - mark - 4 - size))
    elif suffix == ".safetensors":
        return file.read(int.from_bytes(file.read(8), "little"))
    return file.read()
