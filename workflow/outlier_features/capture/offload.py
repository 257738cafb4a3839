"""Offload: hidden states of windows that wait go to host memory, then to disk, where the device has no room for them.

A tensor is offloaded by emptying its storage: whoever refers to it still does, and finds the same bits when it is back.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from outlier_features.machine import devices, disk, memory
from outlier_features.machine.memory import is_out_of_memory
from outlier_features.planning.estimate import Estimate

Result = TypeVar("Result")
EVERYTHING = float("inf")


class Offload:
    """Keeps the hidden states of waiting windows within budgets of bytes; without any, all stay where they are."""

    def __init__(
        self, device_bytes: float = EVERYTHING, host_bytes: float = EVERYTHING, folder: Path | None = None
    ) -> None:
        """Let at most `device_bytes` of waiting hidden states stay on the device.

        The others go to host memory, at most `host_bytes` of them, and then to files in `folder` (by default where
        temporary files are). On a CPU the device is the host, so what does not stay goes to disk.
        """
        self._budget = {"device": device_bytes, "host": host_bytes}
        self._used = {"device": 0, "host": 0, "disk": 0}
        self._folder = tempfile.TemporaryDirectory(prefix="hidden-states-", dir=folder)
        self._waiting: dict[int, _Waiting] = {}
        self.most = {"device": 0, "host": 0, "disk": 0}
        """The most bytes that were at each place at once."""

    @contextmanager
    def away(self, hidden: torch.Tensor | None) -> Iterator[None]:
        """Keep the hidden state of a window while it waits: where it is, or away."""
        storage = None if hidden is None else hidden.untyped_storage()
        if storage is None or not storage.resizable():
            yield
            return
        waiting = self._waiting[storage._cdata] = _Waiting(storage)
        self._place(waiting, self._choose(waiting))
        try:
            yield
        finally:
            self._used[waiting.place] -= waiting.size
            waiting.bring_back()
            del self._waiting[storage._cdata]

    def content(self, value: Any) -> Any:
        """Return a tensor with its content, from where it was put; anything else as it is."""
        waiting = self._waiting.get(value.untyped_storage()._cdata) if isinstance(value, torch.Tensor) else None
        if waiting is None or waiting.place == "device":
            return value
        return waiting.bytes().view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())

    def with_room(self, compute: Callable[[], Result], where: str) -> Result:
        """Return what `compute` returns; where memory is short, put everything that waits away and try again."""
        try:
            return compute()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self._used["device"] == 0:
                raise
        print(f"{where}: out of memory; the hidden states of the windows that wait are offloaded from here on")
        self._budget["device"] = 0
        for waiting in list(self._waiting.values()):
            if waiting.place == "device":
                self._used["device"] -= waiting.size
                self._place(waiting, self._choose(waiting))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return compute()

    def close(self) -> None:
        """Remove what was put on disk."""
        self._folder.cleanup()

    def _choose(self, waiting: "_Waiting") -> str:
        places = ("device",) if waiting.is_on_host else ("device", "host")
        return next((p for p in places if self._used[p] + waiting.size <= self._budget[p]), "disk")

    def _place(self, waiting: "_Waiting", place: str) -> None:
        self._used[place] += waiting.size
        self.most[place] = max(self.most[place], self._used[place])
        if place == "host":
            waiting.put_on_host()
        elif place == "disk":
            waiting.put_on_disk(Path(self._folder.name) / f"{waiting.key}.bin")


class _Waiting:
    """The storage of one hidden state, and where its bytes are."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._storage, self.key, self.size = storage, storage._cdata, storage.nbytes()
        self.is_on_host = storage.device.type == "cpu"
        self.place = "device"
        self._kept: torch.Tensor | Path | None = None

    def bytes(self) -> torch.Tensor:
        """Return the bytes that are away, in host memory."""
        if isinstance(self._kept, Path):
            return torch.from_numpy(np.fromfile(self._kept, np.uint8))
        assert self._kept is not None
        return self._kept

    def put_on_host(self) -> None:
        """Move the bytes from the device to host memory."""
        self._kept, self.place = self._tensor().cpu(), "host"
        self._storage.resize_(0)

    def put_on_disk(self, path: Path) -> None:
        """Move the bytes to a file."""
        with disk.explained(path.parent):
            # from_dlpack: a storage that .numpy() has looked at can never be emptied
            path.write_bytes(np.from_dlpack(self._tensor().cpu()).data)
        self._kept, self.place = path, "disk"
        self._storage.resize_(0)

    def bring_back(self) -> None:
        """Give the storage its bytes again."""
        if self.place != "device":
            content = self.bytes()
            self._storage.resize_(self.size)
            self._tensor().copy_(content)
            if isinstance(self._kept, Path):
                self._kept.unlink()
            self._kept, self.place = None, "device"

    def _tensor(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8, device=self._storage.device).set_(self._storage)


def budgets(device: torch.device, plan: Estimate, memory_budget: float | None) -> tuple[float, float]:
    """Return the bytes that hidden states of waiting windows may take on the device, and on the host.

    `memory_budget` are the bytes the pass may take on the device, by default most of what is free there.
    """
    total = memory_budget if memory_budget is not None else memory.USABLE * memory.free_memory(device)
    beside = plan.device_bytes - plan.hidden_bytes
    return max(0.0, total - beside), memory.USABLE * memory.free_memory(devices.HOST) / 2
