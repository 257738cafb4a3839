"""Captures in processes of their own, each with a fault, that cost no imports: all are forked from one that has them.

An order may come with Python source (`fault`) that the process runs before it captures.
"""

import itertools
import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

from forks import Forks

LINEAGE = {"statistics": "a", "checkpoint": "test", "tokens": "test"}

CLIENT = """
import os, resource, shutil, signal, time
from pathlib import Path
import numpy, torch
from conftest import capture_settings
from transformers import Qwen3ForCausalLM, Qwen3MoeForCausalLM  # what a capture imports late
from outlier_features.capture import engine, offload, resume, shard_writer
from outlier_features.statistics import shards
from outlier_features.capture.run import capture
from outlier_features.machine.logs import logged
from outlier_features.models.weights import Weights

resume.SHARE = float("inf")  # saves every block


def carry_out(checkpoint, tokens, manifest, said, log, fault):
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    with logged(log):
        exec(fault, globals())
        capture(Path(checkpoint), Path(tokens), Path(manifest), capture_settings(), LINEAGE)
"""


class Ended(NamedTuple):
    """How a capture ended: its exit status, negative where a signal ended it, and what it said."""

    status: int
    said: str

    @property
    def error(self) -> str:
        """The one line of a failure."""
        assert self.status == 1, self.said
        assert "Traceback" not in self.said
        lines = [line for line in re.split(r"[\r\n]+", self.said) if line.startswith("error: ")]
        assert len(lines) == 1, self.said
        return lines[0].removeprefix("error: ")

    @property
    def resumed_after(self) -> int:
        """How many blocks of earlier runs were taken over."""
        found = re.search(r"resuming after block (\d+) of", self.said)
        return int(found[1]) if found else 0


class Captures(Forks):
    """Starts captures; each is a process."""

    def __init__(self, directory: Path) -> None:
        variables = {"HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
        super().__init__(f"LINEAGE = {LINEAGE}\n{CLIENT}", **variables)
        self._directory = directory
        self._started: dict[int, Path] = {}
        self._count = itertools.count()

    def start(self, checkpoint: Path, tokens: Path, manifest: Path, fault: str = "", log: Path | None = None) -> int:
        """Return the id of the process that captures."""
        said = self._directory / f"{next(self._count)}.txt"
        order = {"checkpoint": str(checkpoint), "tokens": str(tokens), "manifest": str(manifest), "fault": fault}
        process = self.order(**order, said=str(said), log=str(log or self._directory / "log.txt"))
        self._started[process] = said
        return process

    def end(self, process: int) -> Ended:
        """Return how a process ended, when it has."""
        return Ended(self.status(process), self.said(process))

    def run(self, checkpoint: Path, tokens: Path, manifest: Path, fault: str = "", log: Path | None = None) -> Ended:
        """Capture to the end, or to the fault."""
        return self.end(self.start(checkpoint, tokens, manifest, fault, log))

    def said(self, process: int) -> str:
        """Return what a process has said so far."""
        said = self._started[process]
        return said.read_text() if said.exists() else ""

    def kill(self, process: int) -> Ended:
        """End a process as a machine that goes down would."""
        os.kill(process, signal.SIGKILL)
        return self.end(process)
