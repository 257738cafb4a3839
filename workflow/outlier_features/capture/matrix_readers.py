"""Matrix readers: which matrices of a block read exactly the tensor of a site, seen while one window runs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from outlier_features.site_names import MATRIX_INPUTS, SiteName

_Place = tuple[int, torch.dtype, torch.Size, tuple[int, ...]]


class MatrixReaders:
    """The modules of a block that own a matrix, and which of the tensors of its sites each was handed."""

    def __init__(self, block: nn.Module) -> None:
        self._modules = [(name, module) for name, module in block.named_modules() if _owns_matrix(module)]
        self._sites: dict[SiteName, _Place] = {}
        self._readers: dict[_Place, set[str]] = {}
        self._kept: list[torch.Tensor] = []

    def saw(self, site: SiteName, x: torch.Tensor) -> None:
        """Take down the tensor of a site. It is kept, lest another one comes to lie in its place."""
        if site in MATRIX_INPUTS:
            self._kept.append(x)
            self._sites[site] = _place(x)
            self._readers.setdefault(self._sites[site], set())

    def names(self) -> dict[SiteName, list[str]]:
        """Return the names inside the block of the modules that read each site, in the order of the block.

        Sites that are the same tensor, as in a parallel block with one norm, have the same readers.
        """
        return {
            site: [name for name, _ in self._modules if name in self._readers[place]]
            for site, place in self._sites.items()
        }

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look at what the modules are handed while the context is open; sites must be told before they are read."""
        with ExitStack() as hooks:
            for name, module in self._modules:
                hooks.callback(module.register_forward_pre_hook(self._reader(name), with_kwargs=True).remove)
            yield

    def _reader(self, name: str) -> Any:
        def before(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            handed = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            if (x := next(handed, None)) is not None and (readers := self._readers.get(_place(x))) is not None:
                readers.add(name)

        return before


def _place(x: torch.Tensor) -> _Place:
    """Return what two tensors have in common that are the same values in memory, or the same rows of one window."""
    rows = x.squeeze()  # one window is a batch of one
    return rows.data_ptr(), rows.dtype, rows.shape, rows.stride()


def _owns_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() >= 2 for parameter in module.parameters(recurse=False))
