"""Hooks: the tensors of sites, handed on while the model runs."""

# Shapes: T position, C channel.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from outlier_features.models.fused_experts import arguments
from outlier_features.models.sites import Probe
from outlier_features.site_names import SiteName


@contextmanager
def observed(probe_list: Sequence[Probe], record: Callable[[SiteName, torch.Tensor], None]) -> Iterator[None]:
    """Call `record(site, x)` with each probed tensor as (positions, channels) while the context is open."""
    with ExitStack() as hooks:
        for probe in probe_list:
            hooks.callback(_hook(probe, record).remove)
        yield


@contextmanager
def replaced(module: nn.Module, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Let a module's forward be `around(forward)` while the context is open; contexts of one module may be nested."""
    before = vars(module).get("forward")
    module.forward = around(module.forward)
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@contextmanager
def changed(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Hand a module `change(x)` in place of its first argument `x` while the context is open."""

    def before(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return with_first(module, args, kwargs, change)

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def with_first(
    module: nn.Module, args: tuple, kwargs: dict, change: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[tuple, dict]:
    """Return the arguments of a call of a module with the first of them changed."""
    if args:
        return (change(args[0]), *args[1:]), kwargs
    name = arguments(module)[0]
    return args, kwargs | {name: change(kwargs[name])}


@contextmanager
def passing(module: nn.Module, record: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Call `record(x_TC, y_TC)` with what a module is handed and what it returns while the context is open."""

    def after(_module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        handed = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
        record(_rows(handed), _rows(output if isinstance(output, torch.Tensor) else output[0]))

    handle = module.register_forward_hook(after, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _hook(probe: Probe, record: Callable[[SiteName, torch.Tensor], None]) -> Any:
    if probe.reads_output:

        def after(_module: nn.Module, _args: tuple, output: Any) -> None:
            record(probe.site, _rows(output if isinstance(output, torch.Tensor) else output[0]))

        return probe.module.register_forward_hook(after)
    argument = next(iter(arguments(probe.module)))

    def before(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        record(probe.site, _rows(args[0] if args else kwargs[argument]))

    return probe.module.register_forward_pre_hook(before, with_kwargs=True)


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])
