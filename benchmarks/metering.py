"""Metering: what a piece of work takes of time, memory and disk, as the kernel counts it for this process."""

import resource
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PERIOD = 0.02
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Usage:
    """What a piece of work took; bytes, and seconds."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    """VmHWM: the most this process ever had resident, pages of mapped files among it."""
    start_bytes: int
    """VmRSS when the work began: the interpreter and what it had imported."""
    anonymous_bytes: int
    """The most RssAnon seen while the work ran: without pages of files."""
    disk_read_bytes: int
    """What was fetched from storage; what the page cache held is not among it."""
    call_read_bytes: int
    """What read calls returned, from storage or not; reads through mappings are not among it."""
    written_bytes: int


class Meter:
    """Measures the work done inside its context, by this process and its children."""

    usage: Usage

    def __enter__(self) -> "Meter":
        """Begin."""
        self._start_bytes, self._anonymous = _memory("VmRSS"), 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._io, self._cpu, self._wall = _io(), _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the final counts."""
        wall, cpu, io = time.perf_counter() - self._wall, _cpu_seconds() - self._cpu, _io()
        self._stop.set()
        self._thread.join()
        self.usage = Usage(
            wall_seconds=wall,
            cpu_seconds=cpu,
            peak_bytes=_memory("VmHWM"),
            start_bytes=self._start_bytes,
            anonymous_bytes=max(self._anonymous, _memory("RssAnon")),
            disk_read_bytes=io["read_bytes"] - self._io["read_bytes"],
            call_read_bytes=io["rchar"] - self._io["rchar"],
            written_bytes=io["write_bytes"] - self._io["write_bytes"],
        )

    def _watch(self) -> None:
        while not self._stop.wait(PERIOD):
            self._anonymous = max(self._anonymous, _memory("RssAnon"))


def _memory(name: str) -> int:
    """Return a field of /proc/self/status in bytes.

    ru_maxrss would not do: a child inherits the high-water mark of the parent that forked it.
    """
    fields = Path("/proc/self/status").read_text()
    return int(fields.partition(f"{name}:")[2].split(maxsplit=1)[0]) * 1024


def _io() -> dict[str, int]:
    pairs = (line.split(":") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
