"""Reading: the next block comes on a thread and a stream of its own, all of it, and equals what is stored."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from families import FAMILIES, save_family
from outlier_features.capture.prefetch import Prefetch
from outlier_features.models.weights import Weights
from transformers import core_model_loading

DEFAULT = "default stream"


class Streams:
    """Stands for the streams of a device where there is none: each thread has a current one, as in CUDA."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._of_thread = threading.local()
        self.waited_for: list[object] = []
        self.used: dict[int, list[object]] = {}
        """The streams that the memory of a tensor was said to be used on, by its address."""
        monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Stream(self))
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: self.current)
        monkeypatch.setattr(torch.cuda, "default_stream", lambda _device: DEFAULT)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.note(tensor, stream))

    @property
    def current(self) -> object:
        return getattr(self._of_thread, "stream", DEFAULT)

    @contextmanager
    def entered(self, stream: object) -> Iterator[None]:
        before, self._of_thread.stream = self.current, stream
        yield
        self._of_thread.stream = before

    def note(self, tensor: torch.Tensor, stream: object) -> None:
        self.used.setdefault(tensor.data_ptr(), []).append(stream)


class Stream:
    """A stream, and the event at its end."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def record_event(self) -> "Stream":
        return self

    def wait(self, waiting: object) -> None:
        self._streams.waited_for.append((waiting, self))


@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "gpt-oss", "deepseek-v3"])
def test_everything_is_copied_on_the_thread_and_stream_that_read_ahead(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(save_family(FAMILIES[name], tmp_path / "m"), torch.float32, torch.device("cpu"))
    expected = [weights.read(block) for block in range(len(weights.blocks))]
    streams = Streams(monkeypatch)
    copies: list[tuple[str, object]] = []
    copy = core_model_loading._materialize_copy

    def noted(*args: object, **kwargs: object) -> torch.Tensor:
        copies.append((threading.current_thread().name, streams.current))
        return copy(*args, **kwargs)

    monkeypatch.setattr(core_model_loading, "_materialize_copy", noted)
    weights.device = torch.device("cuda")  # which the loader does not look at: the tensors stay on the CPU
    with closing(Prefetch(weights, 0)) as ahead:
        found = [ahead.take(block)[0] for block in range(len(weights.blocks))]

    assert all(
        torch.equal(tensors[key], block[key]) for tensors, block in zip(found, expected, strict=True) for key in block
    )
    assert len(copies) >= sum(map(len, expected))
    assert {thread for thread, _ in copies} == {"prefetch_0"}
    (stream,) = {stream for _, stream in copies}
    assert stream is not DEFAULT
    assert streams.waited_for == [(DEFAULT, stream)] * len(expected)
    assert all(streams.used[tensor.data_ptr()] == [DEFAULT] for tensors in found for tensor in tensors.values())
