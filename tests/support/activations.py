"""Activations of the kinds that matrices read, as windows (S) of rows by channels (T, C), in bfloat16."""

from collections.abc import Callable

import numpy as np
import torch

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def planted(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return normal values of which four channels are large, one of them always negative, and a massive position 0."""
    x = rng.normal(size=shape)
    x[:, [5, 40, 41]] *= np.array([30.0, 12.0, 8.0])
    x[:, 9] = -20 + rng.normal(size=shape[0])
    x[0, 17] = 900.0
    return x


def gated(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return silu(a) * b, with channels and rows of unlike size."""
    a, b = 1.5 * rng.normal(size=shape), rng.normal(size=shape) * rng.lognormal(0, 0.5, (shape[0], 1))
    return a / (1 + np.exp(-a)) * b * rng.lognormal(0, 0.5, shape[1])


KINDS: dict[str, Draw] = {
    "random": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape),
    "planted": planted,
    "gated": gated,
}


def windows(kind: str, count: int = 3, shape: tuple[int, int] = (384, 320), seed: int = 0) -> list[np.ndarray]:
    """Return windows of a kind."""
    rng = np.random.default_rng(seed)
    drawn = [torch.from_numpy(KINDS[kind](rng, shape)) for _ in range(count)]
    return [x.bfloat16().double().numpy() for x in drawn]
