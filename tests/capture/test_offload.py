"""Offload: hidden states that wait elsewhere change no bit and leave no file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import LINEAGE
from families import FAMILIES, save_family
from outlier_features.capture import engine
from outlier_features.capture.engine import Outputs
from outlier_features.capture.offload import Offload
from outlier_features.capture.prefetch import Reading
from outlier_features.config.entries import Model
from outlier_features.models.weights import Weights
from outlier_features.sources.fetch import fetch
from projects import PROJECT
from torch.utils._pytree import tree_leaves

SHORT_OF_MEMORY = """
import resource, sys, torch
from outlier_features.machine.memory import _field
from outlier_features.capture.offload import Offload
from contextlib import ExitStack

with torch.inference_mode(), ExitStack() as waiting:
    states = [torch.full((1 << 20,), float(n)) for n in range(32)]
    offload = Offload()
    for state in states:
        waiting.enter_context(offload.away(state))
    limit = _field("/proc/self/status", "VmData") + (1 << 25)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    assert offload.with_room(lambda: torch.zeros(1 << 24).sum(), "block 7") == 0
    assert offload.most["disk"] == 32 << 22
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    waiting.close()
    assert all(bool((state == n).all()) for n, state in enumerate(states))
"""


def test_hidden_states_that_wait_make_room_where_an_allocation_fails() -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "workflow")}
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        "block 7: out of memory; the hidden states of the windows that wait are offloaded from here on\n"
    )


class Kept:
    """An observer that keeps what every block returned."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.outputs: list[torch.Tensor] = []
        self._fails_at = fails_at

    def begin(self, block: int, reading: Reading) -> None:
        if block == self._fails_at:
            raise KeyboardInterrupt

    def turn(self, block: int, variant: int) -> None: ...

    def enter(self, block: int, window: int) -> None: ...

    def passed(self, block: int, window: int) -> None: ...

    def leave(self, block: int, outputs: Outputs) -> None:
        if block < 2:
            trees = [outputs.of(window) for window in range(4)]
            self.outputs += [leaf.clone() for leaf in tree_leaves(trees) if isinstance(leaf, torch.Tensor)]


def through(checkpoint: Path, offload: Offload, observer: Kept) -> list[torch.Tensor]:
    """Return logits and what every block returned."""
    weights = Weights(checkpoint, torch.float32, torch.device("cpu"))
    windows = [torch.from_numpy(row) for row in np.random.default_rng(5).integers(300, size=(4, 24))]
    logits = engine.run(weights, windows, lambda _, logits: logits.clone(), observer, offload=offload)
    return logits + observer.outputs


@pytest.fixture(scope="module", params=["qwen3", "qwen3-moe", "gptj"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    fetch(Model(path=str(save_family(FAMILIES[request.param], root / "original"))), root / "model", LINEAGE)
    return root / "model"


@pytest.mark.parametrize("device_bytes", [0, 4096 * 2])
def test_hidden_states_that_are_put_on_disk_change_no_bit_and_leave_no_file(
    family: Path, device_bytes: int, tmp_path: Path
) -> None:
    offload = Offload(device_bytes, 0, tmp_path)
    found = through(family, offload, Kept())
    assert offload.most == {"device": device_bytes // 3072 * 3072, "host": 0, "disk": (4 - device_bytes // 3072) * 3072}
    assert list(tmp_path.iterdir()) == []
    expected = through(family, Offload(), Kept())
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_hidden_states_on_disk_are_gone_after_an_error(family: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        through(family, Offload(0, 0, tmp_path), Kept(fails_at=2))
    assert list(tmp_path.iterdir()) == []
