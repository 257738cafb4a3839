"""Hadamard: orthonormal matrices of +-1 / sqrt(order), of every order that three constructions and products reach."""

# Shapes: C channel, N order.

from functools import cache

import numpy as np
import torch

from outlier_features.errors import ConfigError

JOINED = 64
"""The largest order up to which parts are one matrix: fewer, larger products are faster."""


def rotated(x: torch.Tensor, block: int | None) -> torch.Tensor:
    """Return x H along the last axis, or in blocks of so many channels. Raises ConfigError where there is none."""
    return _applied(x, block, is_back=False)


def rotated_back(x: torch.Tensor, block: int | None) -> torch.Tensor:
    """Return x H^T, which undoes `rotated`."""
    return _applied(x, block, is_back=True)


def _applied(x: torch.Tensor, block: int | None, is_back: bool) -> torch.Tensor:
    width = x.shape[-1]
    order = width if block is None else block
    if width % order:
        raise ConfigError(f"rotate: {width} channels are no multiple of blocks of {order}; {_remedy(width)}.")
    parts = [part.T if is_back else part for part in parts_of(order)]
    sizes = [len(part) for part in parts]
    turned = x.unflatten(-1, (width // order, *sizes))
    for axis, part in enumerate(parts, -len(parts)):  # a product of matrices turns each of its axes by itself
        turned = (turned.movedim(axis, -1) @ part.to(x.device)).movedim(-1, axis)
    return turned.flatten(-1 - len(parts))


@cache
def parts_of(order: int) -> tuple[torch.Tensor, ...]:
    """Return orthonormal Hadamard matrices, float32, whose Kronecker product is one of this order.

    Raises ConfigError for an order without a known one.
    """
    found = _signs(order)
    if found is None:
        raise ConfigError(f"rotate: no Hadamard matrix of {order} channels is known here; {_remedy(order)}.")
    joined = [found[0]]
    for part in found[1:]:
        if len(joined[-1]) * len(part) <= JOINED:
            joined[-1] = np.kron(joined[-1], part)
        else:
            joined.append(part)
    return tuple(torch.from_numpy((part / np.sqrt(len(part))).astype(np.float32)) for part in joined)


def _remedy(width: int) -> str:
    power = width & -width
    return f"give rotate: {power}, blocks of as many channels" if power > 1 else "leave rotate out"


@cache
def _signs(order: int) -> tuple[np.ndarray, ...] | None:
    """Return matrices of +-1 whose product is a Hadamard matrix, by Paley's constructions; None if none is known."""
    if order in (1, 2):
        return (np.array([[1.0, 1], [1, -1]])[:order, :order],)
    if order % 4:
        return None
    if _is_prime(order - 1):
        return (_paley_1(order - 1),)
    for factor in _factors(order):
        left, right = _signs(factor), _signs(order // factor)
        if left is not None and right is not None:
            return left + right
    q = order // 2 - 1
    return (_paley_2(q),) if _is_prime(q) and q % 4 == 1 else None


def _factors(order: int) -> list[int]:
    return [factor for factor in range(2, order // 2 + 1) if order % factor == 0 and (factor == 2 or factor % 4 == 0)]


def _paley_1(q: int) -> np.ndarray:
    """Return the matrix of order q + 1 of a prime q = 3 (mod 4)."""
    inner = np.zeros((q + 1, q + 1))
    inner[0, 1:], inner[1:, 0] = 1, -1
    inner[1:, 1:] = _jacobsthal(q)
    return inner + np.eye(q + 1)


def _paley_2(q: int) -> np.ndarray:
    """Return the matrix of order 2 (q + 1) of a prime q = 1 (mod 4)."""
    inner = np.zeros((q + 1, q + 1))
    inner[0, 1:] = inner[1:, 0] = 1
    inner[1:, 1:] = _jacobsthal(q)
    return np.kron(inner, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])


def _jacobsthal(q: int) -> np.ndarray:
    """Return whether differences of two indices are squares modulo q: 1, or -1 where they are none, and 0 of equal."""
    character = -np.ones(q)
    character[[(k * k) % q for k in range(1, q)]] = 1
    character[0] = 0
    index = np.arange(q)
    return np.asarray(character[(index[:, None] - index) % q])


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))
