"""Stored tensors: those in the files of a checkpoint, read one by one and dequantised when they are asked for."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from outlier_features.artefacts import remedies
from outlier_features.errors import SourceError
from outlier_features.models.stored_formats import Pair, Stored


class Slices:
    """The tensors of files that are open, each read when it is asked for."""

    def __init__(self, opened: ExitStack, stored: Mapping[str, Stored]) -> None:
        self._opened, self._stored = opened, stored
        self._files: dict[Path, Any] = {}

    def of(self, key: str) -> Any:
        """Return the slice of a tensor, which `[...]` reads."""
        file = self._stored[key].file
        if file not in self._files:
            # mmap: the views keep the file's alignment, as in from_pretrained, so results agree to the bit
            self._files[file] = self._opened.enter_context(safe_open(file, framework="pt", backend="mmap"))
        return self._files[file].get_slice(key)


class Dequantised:
    """A tensor that two of the checkpoint stand for, read and dequantised on the device when it is asked for."""

    def __init__(self, pair: Pair, slices: Slices, dtype: torch.dtype, device: torch.device) -> None:
        self._values, self._scales = slices.of(pair.values), slices.of(pair.scales)
        self._combine, self._dtype, self._device = pair.combine, dtype, device

    def __getitem__(self, _everything: Any) -> torch.Tensor:
        values, scales = (part[...].to(self._device) for part in (self._values, self._scales))
        return self._combine(values, scales, self._dtype)


def header(file: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by its header. Raises SourceError if the file is cut or altered."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            entries = json.loads(opened.read(min(size, file.stat().st_size)))
        entries.pop("__metadata__", None)
        start = 8 + size
        found = {}
        for key, entry in entries.items():
            begin, end = (start + offset for offset in entry["data_offsets"])
            found[key] = Stored(file, begin, end, entry["dtype"], tuple(entry["shape"]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise SourceError(f"{file}: has no readable header; {remedies.of_checkpoint(file.parent)}.") from error
    if max((stored.end for stored in found.values()), default=start) > file.stat().st_size:
        raise SourceError(f"{file}: is cut; {remedies.of_checkpoint(file.parent)}.")
    return found
