"""Devices: where a model runs, and with how many threads."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from outlier_features.planning import Estimate

M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3
"""Parameters of mallopt, as glibc numbers them."""
MAPPED = 2 << 20
"""Bytes from which on memory is mapped on its own."""
USABLE = 0.9
"""Of the memory that is free, the share that is counted on."""


def best_device() -> torch.device:
    """Return the CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_every_core() -> None:
    """Let torch use every core this process may run on.

    Snakemake sets OMP_NUM_THREADS to the threads of a rule; `--cores 1` means one job at a time here, not one core.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))


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


def name(device: torch.device) -> str:
    """Return what to call a device in a file: the GPU's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def threads(device: torch.device) -> int | None:
    """Return how many threads of a CPU share a sum out, which moves its last bits; None on a GPU, where none do."""
    return torch.get_num_threads() if device.type == "cpu" else None


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


def budgets(device: torch.device, plan: Estimate, memory_budget: float | None) -> tuple[float, float]:
    """Return the bytes that hidden states of waiting windows may take on the device, and on the host.

    `memory_budget` are the bytes the pass may take on the device, by default most of what is free there.
    """
    total = memory_budget if memory_budget is not None else USABLE * free_memory(device)
    beside = plan.device_bytes - plan.hidden_bytes
    return max(0.0, total - beside), USABLE * free_memory(torch.device("cpu")) / 2


def _field(path: str, name: str) -> int:
    """Return a field of a status file of the kernel, given there in KiB, in bytes."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
