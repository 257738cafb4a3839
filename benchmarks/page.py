"""Page: docs/benchmarks.md, whose sections the benchmarks write, each between marks of its own."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "benchmarks.md"


def write(path: Path, name: str, text: str) -> None:
    """Put a section between its marks, at the end where the page has none of that name."""
    begin, end = f"<!-- {name}: begin, written by benchmarks/{name.partition('-')[0]}.py -->", f"<!-- {name}: end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, mark, rest = old.partition(begin)
    after = rest.partition(end)[2] if mark else ""
    before = before if mark or not before else before.rstrip("\n") + "\n\n"
    path.write_text(f"{before}{begin}\n{text}\n{end}{after or chr(10)}", encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> dict[str, str]:
    """Return the date, the processor, its memory and the commit that runs."""
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    git = [["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]]
    commit, changes = (subprocess.run(c, capture_output=True, text=True, cwd=PROJECT, check=False).stdout for c in git)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor.partition(":")[2].strip(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "commit": commit.strip() + (" with changes" if changes else ""),
    }


def describe(machine: dict[str, str]) -> str:
    """Return in words on what, when and with which commit something ran."""
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"commit {machine['commit']}"
    )
