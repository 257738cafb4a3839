"""Variants in one pass: each runs as it would alone, every block is read once, and shared blocks run once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from observers import Silent, logits_of, windows_of
from outlier_features.capture import engine
from outlier_features.capture.engine import Outputs, Passed, Variant
from outlier_features.capture.offload import Offload
from outlier_features.capture.prefetch import Reading
from outlier_features.models import sites
from outlier_features.models.weights import Weights

CPU = torch.device("cpu")


class Scaling(Silent):
    """Multiplies what MLPs of blocks from one on return, by another factor in each variant; notes what ran."""

    def __init__(self, weights: Weights, variants: Sequence[Variant], factors: Sequence[float]) -> None:
        self._weights, self._variants, self._factors = weights, variants, factors
        self._factor = 1.0
        self.ran: list[tuple[int, int, int]] = []
        self.readings: list[int] = []
        self.states: dict[int, list[object]] = {}
        for block in weights.blocks:
            sites.mlp(block).register_forward_hook(self._scaled)

    def begin(self, block: int, reading: Reading) -> None:
        self.readings.append(reading.bytes)

    def turn(self, block: int, variant: int) -> None:
        self._variant = variant
        self._factor = self._factors[variant] if block >= self._variants[variant].first else 1.0

    def enter(self, block: int, window: int) -> None:
        self.ran.append((block, self._variant, window))

    def leave(self, block: int, outputs: Outputs) -> None:
        self._factor = 1.0
        if block < len(self._weights.blocks) - 1:
            trees = outputs.all(self._variants)
            self.states[block] = [x.clone() if isinstance(x, torch.Tensor) else x for x in trees]

    def _scaled(self, _module: object, _args: object, output: object) -> object:
        if isinstance(output, torch.Tensor):
            return output * self._factor
        return (output[0] * self._factor, *output[1:])


def run(
    checkpoint: Path,
    ids: np.ndarray,
    variants: Sequence[Variant],
    factors: Sequence[float],
    make: Callable[[], Offload] = Offload,
    passed: Passed | None = None,
) -> tuple[list[torch.Tensor], Scaling]:
    weights = Weights(checkpoint, torch.float32, CPU)
    observer = Scaling(weights, variants, factors)
    found = engine.run(
        weights,
        windows_of(ids),
        lambda _, logits: logits.clone(),
        observer,
        variants=variants,
        passed=passed,
        offload=make(),
    )
    return found, observer


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_each_variant_is_a_run_of_its_own(
    checkpoints: dict[str, Path], ids: np.ndarray, kind: str, first: int, tmp_path: Path
) -> None:
    every = range(len(ids))
    variants = [Variant(every), Variant(every, first), Variant([1], first), Variant(every)]
    factors = [1.0, 1.5, 0.5, 0.7]
    together, observer = run(checkpoints[kind], ids, variants, factors)
    alone = logits_of(Weights(checkpoints[kind], torch.float32, CPU), ids)
    for variant, factor in zip(variants[1:], factors[1:], strict=True):
        found, _ = run(checkpoints[kind], ids, [Variant(every), variant], [1.0, factor])
        alone += found[len(ids) :]
    assert len(together) == len(alone) == 3 * len(ids) + 1
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))
    on_disk, _ = run(checkpoints[kind], ids, variants, factors, lambda: Offload(0, 0, tmp_path))
    assert all(torch.equal(*pair) for pair in zip(together, on_disk, strict=True))
    blocks = len(observer.readings)
    assert [sum(block == b and v == 1 for block, v, _ in observer.ran) for b in range(blocks)] == [
        len(ids) * (b >= first) for b in range(blocks)
    ]
    assert sum(observer.readings) == sum(run(checkpoints[kind], ids, [Variant(every)], [1.0])[1].readings)


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_pass_resumes_with_what_had_begun(checkpoints: dict[str, Path], ids: np.ndarray, stopped: int) -> None:
    every = range(len(ids))
    variants, factors = [Variant(every), Variant(every, 1), Variant(every, 2)], [1.0, 1.5, 0.5]
    whole, observer = run(checkpoints["dense"], ids, variants, factors)
    states = observer.states[stopped]
    assert [state is None for state in states[len(ids) :]] == [False] * len(ids) * stopped + [True] * len(ids) * (
        2 - stopped
    )
    resumed, rest = run(checkpoints["dense"], ids, variants, factors, passed=Passed(stopped, states))
    assert all(torch.equal(*pair) for pair in zip(whole, resumed, strict=True))
    assert min(block for block, *_ in rest.ran) == stopped + 1
