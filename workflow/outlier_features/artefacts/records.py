"""Records: the lineage that a result carries, found quickly in whatever kind of file it is.

JSON, Arrow and parquet files, safetensors, figures, pages and texts all hold their lineage as names and digests in
plain bytes; the two Arrow formats and safetensors keep them in one part of the file, and only that is read.
"""

import json
import re
from functools import cache
from pathlib import Path

WITHOUT = {".csv", ".tsv"}
"""Suffixes of files that can carry none; each is written together with one that does."""

_FOOTERS = {".parquet": b"PAR1", ".arrow": b"ARROW1"}
"""How these files end, after the size of their last part."""

_QUOTE = rb'(?:\\?"|&quot;|&#34;)?'


def recorded(path: str | Path, artefact: str) -> str | None:
    """Return the digest that a file carries as the lineage of `artefact`, None where it carries none or is cut."""
    try:
        found = _pattern(artefact).search(_telling(Path(path)))
    except (OSError, ValueError):
        return None
    return found.group(1).decode() if found else None


@cache
def _pattern(artefact: str) -> re.Pattern[bytes]:
    return re.compile(rb"\b" + artefact.encode() + _QUOTE + rb":?\s*" + _QUOTE + rb"([0-9a-f]{16})\b")


def _telling(path: Path) -> bytes:
    """Return the bytes of a file among which its lineage stands. Raises ValueError where the file is cut."""
    with path.open("rb") as file:
        if path.suffix in _FOOTERS:
            mark = _FOOTERS[path.suffix]
            end = file.seek(-4 - len(mark), 2) if path.stat().st_size > 4 + len(mark) else 0
            size, ending = int.from_bytes(file.read(4), "little"), file.read()
            if ending != mark or size > end:
                raise ValueError(f"{path} does not end as a whole file does")
            file.seek(end - size)
            return file.read(size)
        if path.suffix == ".safetensors":
            return file.read(int.from_bytes(file.read(8), "little"))
        content = file.read()
    if path.suffix == ".json":
        json.loads(content)
    return content
