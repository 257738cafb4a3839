"""Layer-major execution: every window goes through block i before any window reaches block i + 1.

Each window runs the model's own `forward` in a coroutine (a greenlet: all of them share one thread) that is parked
whenever it is about to enter a decoder block. When all windows are parked at a block, its weights are installed, each
window runs to the next block in turn, and the weights are dropped. Masks, position embeddings, state between
blocks, the final norm, the head: all of it is the model's own code, so results equal an ordinary forward to the bit.
"""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import nn
from torch.utils._pytree import tree_map

from outlier_features.capture.offload import Offload
from outlier_features.capture.prefetch import Prefetch, Reading
from outlier_features.errors import ArchitectureError, OutlierFeaturesError, OutOfMemory
from outlier_features.machine.memory import is_out_of_memory
from outlier_features.models import failures
from outlier_features.models.weights import Weights

Result = TypeVar("Result")


class Observer(Protocol):
    """What the engine tells while it runs; all of it happens on the caller's thread."""

    def begin(self, block: int, reading: Reading) -> None:
        """The weights of block `block` are in place."""

    def enter(self, block: int, window: int) -> None:
        """Window `window` is about to run through block `block`."""

    def passed(self, block: int, window: int) -> None:
        """Window `window` has left block `block`."""

    def leave(self, block: int, outputs: "Outputs") -> None:
        """Every window has passed block `block`, whose weights are still in place, and got `outputs` from it.

        The last block has none: what it returns goes to the head.
        """


class Outputs:
    """What the last block returned for each window; tensors may be offloaded, so they are read through `of`."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._trees: dict[int, Any] = {}

    def keep(self, window: int, output: Any) -> None:
        """Take what a block returned for a window."""
        self._trees[window] = output

    def of(self, window: int) -> Any:
        """Return what the last block returned for a window, every tensor of it with its content."""
        return tree_map(self._offload.content, self._trees[window])


@dataclass(frozen=True)
class Passed:
    """How far an earlier run came: the last block that every window has passed, and what it returned for each."""

    block: int
    outputs: Sequence[Any]


@torch.inference_mode()
def run(
    weights: Weights,
    windows: Sequence[torch.Tensor],
    finish: Callable[[int, torch.Tensor], Result],
    observer: Observer,
    *,
    passed: Passed | None = None,
    offload: Offload | None = None,
) -> list[Result]:
    """Send every window through the model, reading each block's weights once.

    `windows` are token ids, each (T,); each runs as a batch of its own, the reference order. `finish` gets a window's
    index and its logits (T, V) and returns what is kept of them, so only one window's logits exist at a time.
    With `passed` the blocks up to that one are neither read nor run: they return what they returned then. `offload`
    moves the hidden states of waiting windows away where they do not fit. Returns the results in the order of the
    windows. Raises OutOfMemory, naming the block, where that is not enough, and ForwardFailed where the model's code
    raises.
    """
    offload = offload or Offload()

    def forward(index: int) -> Result:
        ids = windows[index].to(weights.device)[None]
        with _model_explained(weights, None):
            logits = weights.model(input_ids=ids, use_cache=False).logits[0]
        return finish(index, logits)

    runners = [_Runner(forward, index) for index in range(len(windows))]
    results: list[Result] = []
    first, last = (0 if passed is None else passed.block + 1), len(weights.blocks) - 1
    course = _Course(getcurrent(), weights, Outputs(offload), offload, passed, last)
    block = first
    try:
        with course.parking(weights.blocks), closing(Prefetch(weights, first)) as ahead:
            for runner in runners:
                _expect_at(runner.switch(), first)
            for block in range(first, last + 1):
                tensors, reading = ahead.take(block)
                weights.install(block, tensors)
                del tensors
                observer.begin(block, reading)
                for index, runner in enumerate(runners):
                    observer.enter(block, index)
                    arrived = runner.switch()
                    observer.passed(block, index)
                    if block == last:
                        results.append(_finished(runner, arrived))
                    else:
                        _expect_at(arrived, block + 1)
                observer.leave(block, course.outputs)
                weights.release(block)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory at block {block}") from error
        raise
    finally:
        for runner in runners:
            if runner:
                runner.throw()  # unwinds a parked forward after an error
        offload.close()
    return results


class _Runner(greenlet):
    """The forward of one window."""

    def __init__(self, forward: Callable[[int], Any], window: int) -> None:
        super().__init__(lambda: forward(window))
        self.window = window
        self.gr_context = contextvars.copy_context()


@dataclass(frozen=True)
class _Course:
    """What the blocks' forwards do besides computing: wait for their turn, or answer for an earlier run."""

    scheduler: greenlet
    weights: Weights
    outputs: Outputs
    offload: Offload
    passed: Passed | None
    last: int

    @contextmanager
    def parking(self, blocks: nn.ModuleList) -> Iterator[None]:
        """Let every block's forward wait for the scheduler first."""
        for index, block in enumerate(blocks):
            block.forward = self._parked(index, block.forward)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward

    def _parked(self, index: int, forward: Callable) -> Callable:
        if self.passed is not None and index <= self.passed.block:
            trees = self.passed.outputs
            return lambda *_args, **_kwargs: trees[getcurrent().window]

        def parked(*args: Any, **kwargs: Any) -> Any:
            with self.offload.away(_hidden(args, kwargs)):
                self.scheduler.switch(index)
            with _model_explained(self.weights, index):
                output = self.offload.with_room(lambda: forward(*args, **kwargs), f"block {index}")
            if index < self.last:  # after it nothing waits, so nothing would be offloaded
                self.outputs.keep(getcurrent().window, output)
            return output

        return parked


@contextmanager
def _model_explained(weights: Weights, block: int | None) -> Iterator[None]:
    """Say in one line what went wrong where the code of the model raises, in a block or outside of them."""
    try:
        yield
    except OutlierFeaturesError:
        raise
    except Exception as error:
        failure = failures.of_forward(error, weights.model, weights.directory.name, block)
        if failure is None or is_out_of_memory(error):
            raise
        raise failure from error


def _hidden(args: tuple, kwargs: dict) -> torch.Tensor | None:
    """Return the hidden state a block is handed: its first tensor."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


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
