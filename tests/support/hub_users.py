"""Somebody who fetches a model from a hub of this machine, and what has arrived then."""

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from forks import Forks
from hub_server import HubServer, Repository, environment
from outlier_features.models.checkpoints import read_source
from safetensors.torch import load_file

LINEAGE = {"checkpoint": "0123456789abcdef"}
COMMIT, OTHER = "a" * 40, "b" * 40
MEGABYTE = 1 << 20
NOBODY = "http://127.0.0.1:9"
WEIGHTS = r"GET .*/resolve/.*(safetensors|\.bin)$"
DOWNLOADS = "GET .*/resolve/"
DESCRIBED = ["config.json", "tokenizer.json", "tokenizer_config.json"]
"""What is asked for of a model before its weights."""
KEPT = "check the network and HF_ENDPOINT, then run again: what has arrived is kept."
CLIENT = """
import importlib, os
from pathlib import Path
from huggingface_hub import constants, snapshot_download
from outlier_features.sources import hub, retry
from outlier_features.config.config import Model
from outlier_features.machine.logs import logged
from outlier_features.sources.fetch import fetch

retry.FIRST_WAIT = 0.001


def carry_out(output, said, model, lineage, variables, silence):
    os.environ.clear()
    os.environ.update(variables)
    importlib.reload(constants)  # reads the environment
    hub.SILENCE = silence
    for stream in (1, 2):
        os.dup2(os.open(f"{said}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if lineage is None:
        snapshot_download(model["hub"], revision=model["revision"])
    else:
        with logged(f"{said}.log"):
            fetch(Model(**model), Path(output), lineage)
"""
"""What every fetch begins with, in a process of its own."""


class Ended(NamedTuple):
    """How a fetch ended: its exit status, and everything it said to the log file and the two streams."""

    status: int
    log: str
    streams: str

    @property
    def lines(self) -> list[str]:
        """What a user reads in the log, without the progress."""
        lines = re.split(r"[\r\n]+", self.log)
        return [line for line in lines if line.strip() and not re.search(r"\d+%\|", line)]

    @property
    def error(self) -> str:
        """The one line of a failure."""
        assert self.status == 1
        assert "Traceback" not in self.log + self.streams
        *_, error = self.lines
        return error.removeprefix("error: ")


@dataclass
class User:
    """Somebody who fetches `org/model` from a hub into `results`."""

    client: Forks
    hub: HubServer
    directory: Path
    results: Path = field(init=False)

    def __post_init__(self) -> None:
        self.results = self.directory / "results"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def output(self) -> Path:
        return self.results / "model"

    @property
    def kept(self) -> dict[str, int]:
        """The sizes of what lies there of an unfinished download."""
        sizes = {}
        for path in self.results.glob(".model.download/*"):
            with suppress(FileNotFoundError):  # the download goes on, and a part that is whole gets its name
                sizes[path.name] = path.stat().st_size
        return sizes

    def publish(self, directory: Path, name: str = "org/model", **more: Any) -> Repository:
        self.hub.models[name] = Repository({COMMIT: directory}, **more)
        return self.hub.models[name]

    def start(
        self, revision: str | None = COMMIT, name: str = "org/model", silence: float = 60.0, **variables: str
    ) -> int:
        return self._start(LINEAGE, revision, name, silence, variables)

    def end(self, process: int, name: str = "org/model") -> Ended:
        status = self.client.status(process)
        said = self._said(name)
        texts = [
            path.read_text() if path.exists() else "" for path in map(Path, (f"{said}.log", f"{said}.1", f"{said}.2"))
        ]
        return Ended(status, texts[0], texts[1] + texts[2])

    def fetch(self, revision: str | None = COMMIT, silence: float = 60.0, **variables: str) -> Ended:
        return self.end(self.start(revision, silence=silence, **variables))

    def fill_cache(self, revision: str | None = COMMIT) -> None:
        """Bring the model into the hub's cache, as other programs do."""
        process = self._start(None, revision, "org/model", 60.0, {})
        assert self.client.status(process) == 0
        self.hub.requests.clear()

    def asked(self, match: str = DOWNLOADS) -> list[str]:
        """Return the names of the files that were asked for, in order."""
        return [request.path.rpartition("/")[2] for request in self.hub.seen(match)]

    def ranges(self, match: str = WEIGHTS) -> list[str | None]:
        """Return which part of the weights each request asked for."""
        return [request.headers.get("range") for request in self.hub.seen(match)]

    def _start(self, lineage: Any, revision: str | None, name: str, silence: float, variables: dict[str, str]) -> int:
        return self.client.order(
            output=str(self.output.with_name(name.rpartition("/")[2])),
            said=self._said(name),
            model={"hub": name, "revision": revision},
            lineage=lineage,
            variables=environment(self.hub, self.home, **variables),
            silence=silence,
        )

    def _said(self, name: str) -> str:
        return str(self.directory / f"said-{name.replace('/', '-')}")


def taken(directory: Path) -> dict[str, bytes]:
    """Return the files of a published directory that a checkpoint is made of."""
    other = (".pth", ".onnx", ".gguf", ".md")
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.suffix not in other}


def contents(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != "source.json"}


def arrived(user: User, published: Path) -> bool:
    """Return whether a whole checkpoint, equal to what is published, lies at the output and nothing beside it."""
    read_source(user.output, LINEAGE["checkpoint"])
    return contents(user.output) == taken(published) and list(user.results.iterdir()) == [user.output]


def stored(*files: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of some files, pickled or not."""
    read = [torch.load(path, weights_only=True) if path.suffix == ".bin" else load_file(path) for path in files]
    return {name: tensor for tensors in read for name, tensor in tensors.items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
