"""Memory: what may still be taken is the least of what limits it, and a failed allocation is known by its words."""

import resource

import pytest
import torch
from outlier_features.machine import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "is_of_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("memory"), False),
    ],
)
def test_a_failed_allocation_is_known_by_its_words(error: object, is_of_memory: bool) -> None:
    assert memory.is_out_of_memory(error) == is_of_memory


def test_a_limit_of_the_process_counts_and_nothing_is_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"MemAvailable": 9 << 30, "VmSize": 5 << 30, "VmData": 2 << 30}
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: 3 << 30}
    monkeypatch.setattr(memory, "_field", lambda _, name: fields[name])
    monkeypatch.setattr(memory, "_group_files", lambda: iter(()))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], resource.RLIM_INFINITY))
    assert memory.free_memory(CPU) == 1 << 30
    limits[resource.RLIMIT_DATA] = resource.RLIM_INFINITY
    assert memory.free_memory(CPU) == 9 << 30
    limits[resource.RLIMIT_AS] = 4 << 30
    assert memory.free_memory(CPU) == 0


def test_a_control_group_counts_where_it_has_a_limit(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    most, taken = tmp_path / "memory.max", tmp_path / "memory.current"
    taken.write_text("300\n")
    monkeypatch.setattr(memory, "_field", lambda *_: 9 << 30)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(memory, "_group_files", lambda: iter([(most, taken)]))
    for limit, free in (("1000\n", 700), ("max\n", 9 << 30), ("200\n", 0)):
        most.write_text(limit)
        assert memory.free_memory(CPU) == free
