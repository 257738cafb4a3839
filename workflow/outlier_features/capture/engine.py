"""Layer-major execution: every window goes through block i before any window reaches block i + 1.

Each window runs the model's own `forward` in a coroutine (a greenlet: all of them share one thread) that is parked
whenever it is about to enter a decoder block. When all windows are parked at a block, its weights are installed, each
window runs to the next block in turn, and the weights are dropped. Masks, position embeddings, state between
blocks, the final norm, the head: all of it is the model's own code, so results equal an ordinary forward to the bit.
"""

import contextvars
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
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

    def turn(self, block: int, variant: int) -> None:
        """The windows that follow run as variant `variant`."""

    def enter(self, block: int, window: int) -> None:
        """Window `window` is about to run through block `block`."""

    def passed(self, block: int, window: int) -> None:
        """Window `window` has left block `block`."""

    def leave(self, block: int, outputs: "Outputs") -> None:
        """Every window of every variant has passed block `block`, whose weights are still in place, and got `outputs`.

        The last block has none: what it returns goes to the head.
        """


@dataclass(frozen=True)
class Variant:
    """One way the model runs: over these windows, and from block `first` on as another model than the first variant.

    The blocks before it run once, as the first variant, which has these windows too.
    """

    windows: Sequence[int]
    first: int = 0


@dataclass(frozen=True)
class Outputs:
    """What the last block returned for each window; tensors may be offloaded, so they are read through `of`."""

    offload: Offload
    trees: dict[tuple[int, int], Any] = field(default_factory=dict)
    """By variant and window."""

    def of(self, window: int, variant: int = 0) -> Any:
        """Return what the last block returned, every tensor with its content; None for what has not begun."""
        return tree_map(self.offload.content, self.trees.get((variant, window)))

    def all(self, variants: Sequence[Variant]) -> list[Any]:
        """Return what the last block returned for every window of every variant."""
        return [self.of(window, number) for number, variant in enumerate(variants) for window in variant.windows]


@dataclass(frozen=True)
class Passed:
    """How far an earlier run came: the last block that every window has passed, and what it returned for each.

    None where a variant had not begun; the windows of a variant follow each other.
    """

    block: int
    outputs: Sequence[Any]


@torch.inference_mode()
def run(
    weights: Weights,
    windows: Sequence[torch.Tensor],
    finish: Callable[[int, torch.Tensor], Result],
    observer: Observer,
    *,
    variants: Sequence[Variant] | None = None,
    passed: Passed | None = None,
    offload: Offload | None = None,
) -> list[Result]:
    """Send every window through the model, reading each block's weights once, however many variants run.

    `windows` are token ids, each (T,); each runs as a batch of its own, the reference order. `finish` gets a window's
    index and its logits (T, V) and returns what is kept of them, so only one window's logits exist at a time.
    What makes `variants` differ is the observer's business; by default there is one, of all windows.
    With `passed` the blocks up to that one are neither read nor run: they return what they returned then. `offload`
    moves the hidden states of waiting windows away where they do not fit. Returns the results in the order of variants,
    then of their windows. Raises OutOfMemory, naming the block, where that is not enough, and ForwardFailed where the
    model's code raises.
    """
    offload = offload or Offload()

    def forward(index: int) -> Result:
        ids = windows[index].to(weights.device)[None]
        with _model_explained(weights, None):
            logits = weights.model(input_ids=ids, use_cache=False).logits[0]
        return finish(index, logits)

    first, last = (0 if passed is None else passed.block + 1), len(weights.blocks) - 1
    course = _Course(getcurrent(), weights, Outputs(offload), offload, last)
    runners = _runners(forward, variants or [Variant(range(len(windows)))], last)
    if passed is not None:
        for runner, tree in zip(runners, passed.outputs, strict=True):
            runner.given = course.outputs.trees[runner.key] = tree
    results: list[Result] = []
    block = first
    try:
        with course.parking(weights.blocks), closing(Prefetch(weights, first)) as ahead:
            for block in range(first, last + 1):
                tensors, reading = ahead.take(block)
                course.start(runners, block, first)
                weights.install(block, tensors)
                del tensors
                observer.begin(block, reading)
                for variant, its_runners in groupby((r for r in runners if r.first <= block), lambda r: r.variant):
                    observer.turn(block, variant)
                    for runner in its_runners:
                        observer.enter(block, runner.window)
                        arrived = runner.switch()
                        observer.passed(block, runner.window)
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
    """The forward of one window of one variant."""

    def __init__(self, forward: Callable[[int], Any], variant: int, window: int, first: int) -> None:
        super().__init__(lambda: forward(window))
        self.variant, self.window, self.first = variant, window, first
        self.given: Any = None
        """What the blocks before the one it starts at return, where others have run them."""
        self.starts_at = 0
        self.gr_context = contextvars.copy_context()

    @property
    def key(self) -> tuple[int, int]:
        """Its variant and window."""
        return self.variant, self.window


def _runners(forward: Callable[[int], Any], variants: Sequence[Variant], last: int) -> list[_Runner]:
    return [
        _Runner(forward, number, window, min(variant.first, last))
        for number, variant in enumerate(variants)
        for window in variant.windows
    ]


@dataclass(frozen=True)
class _Course:
    """What the blocks' forwards do besides computing: wait for their turn, or answer for those that ran before."""

    scheduler: greenlet
    weights: Weights
    outputs: Outputs
    offload: Offload
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

    def start(self, runners: Sequence[_Runner], block: int, first: int) -> None:
        """Let those that begin at `block` come there; at the first block of the pass all that have begun before."""
        for runner in runners:
            if max(runner.first, first) == block:
                runner.starts_at = block
                if 0 < runner.first == block:
                    shared = self.outputs.of(runner.window)
                    runner.given = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, shared)
                _expect_at(runner.switch(), block)

    def _parked(self, index: int, forward: Callable) -> Callable:
        def parked(*args: Any, **kwargs: Any) -> Any:
            runner = getcurrent()
            if index < runner.starts_at:
                return runner.given
            runner.given = None
            with self.offload.away(_hidden(args, kwargs)):
                self.scheduler.switch(index)
            with _model_explained(self.weights, index):
                output = self.offload.with_room(lambda: forward(*args, **kwargs), f"block {index}")
            if index < self.last:  # after it nothing waits, so nothing would be offloaded
                self.outputs.trees[runner.key] = output
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
