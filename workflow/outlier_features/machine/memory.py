"""Memory: how much of it there is, has been taken and goes back to the system, on a device and on the host."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Parameters of mallopt, as glibc numbers them."""
MAPPED = 2 << 20
"""Bytes from which on memory is mapped on its own."""
USABLE = 0.9
"""Of the memory that is free, the share that is counted on."""
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch says where an allocation failed, on a device or on the host."""


def return_freed_memory() -> None:
    """Let memory that is freed go back to the system at once, where the C library is glibc.

    By default it keeps an arena for every thread, and what the threads that convert a block have freed stays there: a
    block or two of experts. Tensors are then mapped one by one instead.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, MAPPED)


def trim() -> None:
    """Return to the system what is free of the memory that is not mapped one by one, where the C library is glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory(device: torch.device) -> float:
    """Return the bytes this process may still take on a device; on the CPU the least of what limits it.

    These are the memory that is available, a limit of the control group, and limits of the process.
    """
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    available = [float(_field("/proc/meminfo", "MemAvailable"))]
    used = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}
    for limit, name in used.items():
        if (soft := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
            available.append(soft - _field("/proc/self/status", name))
    for most, taken in _group_files():
        with suppress(OSError, ValueError):  # no limit, or no such group
            available.append(float(int(most.read_text()) - int(taken.read_text())))
    return max(0.0, min(available))


def _group_files() -> Iterator[tuple[Path, Path]]:
    """Yield where the kernel tells limit and use of the memory of this process' control group, old and new style."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            yield root / name.lstrip("/") / "memory.max", root / name.lstrip("/") / "memory.current"
        elif "memory" in controllers.split(","):
            folder = root / "memory" / name.lstrip("/")
            yield folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes"


def peak_memory(device: torch.device) -> float:
    """Return the most bytes this process has had on a device at once."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(_field("/proc/self/status", "VmHWM"))


def _field(path: str, name: str) -> int:
    """Return a field of a status file of the kernel, given there in KiB, in bytes."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def is_out_of_memory(error: object) -> bool:
    """Return whether an error, or its text, is of a failed allocation, on a device or on the host."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)
