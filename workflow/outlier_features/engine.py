"""Layer-major execution: every window goes through block i before any window reaches block i + 1.

Each window runs the model's own `forward` in a coroutine (a greenlet: all of them share one thread) that is parked
whenever it is about to enter a decoder block. When all windows are parked at a block, its weights are installed, each
window is let go on to the next block in turn, and the weights are dropped. Masks, position embeddings, state between
blocks, the final norm, the head: all of it is the model's own code, so results equal an ordinary forward to the bit.
"""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import nn

from outlier_features.errors import ArchitectureError
from outlier_features.weights import Weights

Result = TypeVar("Result")


class Observer(Protocol):
    """What the engine tells while it runs; all of it happens on the caller's thread."""

    def enter(self, block: int, window: int) -> None:
        """Window `window` is about to run through block `block`."""

    def passed(self, block: int, window: int) -> None:
        """Window `window` has left block `block`."""

    def leave(self, block: int) -> None:
        """Every window has passed block `block`; its weights are still in place."""


@torch.inference_mode()
def run(
    weights: Weights,
    windows: Sequence[torch.Tensor],
    finish: Callable[[int, torch.Tensor], Result],
    observer: Observer,
) -> list[Result]:
    """Send every window through the model, reading each block's weights once.

    `windows` are token ids, each (T,); each runs as a batch of its own, the reference order. `finish` gets a window's
    index and its logits (T, V) and returns what is kept of them, so only one window's logits exist at a time.
    Returns the results in the order of the windows.
    """
    scheduler = getcurrent()

    def forward(index: int) -> Result:
        ids = windows[index].to(weights.device)[None]
        return finish(index, weights.model(input_ids=ids, use_cache=False).logits[0])

    runners = [_runner(forward, index) for index in range(len(windows))]
    results: list[Result] = []
    try:
        with _parking(weights.blocks, scheduler), ThreadPoolExecutor(1, "read-ahead") as reader:
            ahead = reader.submit(weights.read, 0)
            for runner in runners:
                _expect_at(runner.switch(), 0)
            for block in range(len(weights.blocks)):
                weights.install(block, ahead.result())
                last = block + 1 == len(weights.blocks)
                if not last:
                    ahead = reader.submit(weights.read, block + 1)
                for index, runner in enumerate(runners):
                    observer.enter(block, index)
                    arrived = runner.switch()
                    observer.passed(block, index)
                    if last:
                        results.append(_finished(runner, arrived))
                    else:
                        _expect_at(arrived, block + 1)
                observer.leave(block)
                weights.release(block)
    finally:
        for runner in runners:
            if runner:
                runner.throw()  # unwinds a parked forward after an error
    return results


def _runner(forward: Callable[[int], Result], index: int) -> greenlet:
    runner = greenlet(lambda: forward(index))
    runner.gr_context = contextvars.copy_context()
    return runner


@contextmanager
def _parking(blocks: nn.ModuleList, scheduler: greenlet) -> Iterator[None]:
    """Let every block's forward wait for the scheduler first."""

    def park(index: int, forward: Callable) -> Callable:
        def parked(*args: object, **kwargs: object) -> object:
            scheduler.switch(index)
            return forward(*args, **kwargs)

        return parked

    for index, block in enumerate(blocks):
        block.forward = park(index, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _expect_at(arrived: object, block: int) -> None:
    if arrived != block:
        raise ArchitectureError(
            f"a window reached {'the end' if not isinstance(arrived, int) else f'block {arrived}'} where block {block} "
            "was expected: this model does not run its decoder blocks once each, in order."
        )


def _finished(runner: greenlet, result: Result) -> Result:
    if runner:
        raise ArchitectureError(
            f"a window came back to block {result} after the last block: this model runs a block more than once."
        )
    return result
