"""Experts: routed experts that put out 0, and as many others of the same blocks for a control."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from torch import nn

Places = Mapping[int, tuple[int, ...]]
"""Experts by block."""


@contextmanager
def switched_off(fused: nn.Module, experts: Sequence[int]) -> Iterator[None]:
    """Let some of fused experts put out 0 while the context is open: all their matrices and biases are 0."""
    parameters = fused._parameters
    present = dict(parameters)
    for name, parameter in present.items():
        if parameter is not None:
            silent = parameter.data.clone()
            silent[list(experts)] = 0
            parameters[name] = nn.Parameter(silent, requires_grad=False)
    try:
        yield
    finally:
        parameters.update(present)


def other_experts(
    places: Places, counts: Mapping[int, int], generator: np.random.Generator
) -> dict[int, tuple[int, ...]]:
    """Draw as many other experts of the same blocks; `counts` says how many each block has."""
    drawn = {}
    for block, experts in places.items():
        others = np.setdiff1d(np.arange(counts[block]), experts)
        size = min(len(experts), len(others))
        drawn[block] = tuple(sorted(int(e) for e in generator.choice(others, size=size, replace=False)))
    return drawn
