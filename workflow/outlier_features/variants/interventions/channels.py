"""Channels: what an activation becomes when some of its channels are replaced, and the two controls of that."""

# Shapes: T position, C channel, k replaced channel.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

SetTo = Literal["zero", "mean"]


class Change(Protocol):
    """What is done to an activation."""

    def __call__(self, x: torch.Tensor, mean_C: torch.Tensor) -> torch.Tensor:
        """Return what takes the place of `x` (..., C), whose channels have these means on the calibration windows."""


@dataclass(frozen=True)
class Replace:
    """Sets channels to 0, or to their means."""

    channels: tuple[int, ...]
    set_to: SetTo

    def __call__(self, x: torch.Tensor, mean_C: torch.Tensor) -> torch.Tensor:
        """Return a copy of `x` with the channels replaced."""
        changed, at = x.clone(), list(self.channels)
        changed[..., at] = _target(self.set_to, mean_C, at).to(x.dtype)
        return changed


@dataclass(frozen=True)
class EqualSize:
    """Takes the same amount out of `x` at every position as replacing channels does, in other directions.

    x - R (x_S - target_S), with R (C, k) of orthonormal columns: R keeps norms.
    """

    channels: tuple[int, ...]
    set_to: SetTo
    directions_Ck: torch.Tensor

    def __call__(self, x: torch.Tensor, mean_C: torch.Tensor) -> torch.Tensor:
        """Return `x` changed, computed in float32."""
        at = list(self.channels)
        taken = x[..., at].float() - _target(self.set_to, mean_C, at)
        return (x.float() - taken @ self.directions_Ck.to(x.device).T).to(x.dtype)


def _target(set_to: SetTo, mean_C: torch.Tensor, at: list[int]) -> torch.Tensor:
    return mean_C[at] if set_to == "mean" else torch.zeros(len(at), device=mean_C.device)


def other_channels(channels: Sequence[int], width: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Draw as many channels, without replacement, from those that are not in the set, ascending."""
    others = np.setdiff1d(np.arange(width), channels)
    return tuple(sorted(int(c) for c in generator.choice(others, size=len(channels), replace=False)))


def directions(count: int, width: int, generator: np.random.Generator) -> torch.Tensor:
    """Draw so many orthonormal directions (C, k), uniform over rotations (QR of a Gaussian with its signs)."""
    q_Ck, r_kk = np.linalg.qr(generator.standard_normal((width, count)))
    return torch.from_numpy((q_Ck * np.sign(np.diag(r_kk))).astype(np.float32))
