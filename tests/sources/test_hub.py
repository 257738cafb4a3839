"""Models of the hub: what is published arrives byte for byte, and each way to fail is one line that says what to do."""

import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import mounted
from families import FAMILIES, save_family, save_tokenizer, write_files
from forks import Forks
from hub_server import Fault, HubServer, Repository, environment
from outlier_features.models.checkpoints import read_source
from outlier_features.sources.retry import TRIES, TRIES_WITHOUT_HUB
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch_file
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.slow

LINEAGE = {"checkpoint": "0123456789abcdef"}
COMMIT, OTHER = "a" * 40, "b" * 40
MEGABYTE = 1 << 20
NOBODY = "http://127.0.0.1:9"
WEIGHTS = r"GET .*/resolve/.*(safetensors|\.bin)$"
DOWNLOADS = "GET .*/resolve/"
DESCRIBED = ["config.json", "tokenizer.json", "tokenizer_config.json"]
"""What is asked for of a model before its weights."""
TERMS = "accept its terms at {url}/org/model"
KEPT = "check the network and HF_ENDPOINT, then run again: what has arrived is kept."
UNREAD = "name a revision with safetensors."
ONLINE = "unset HF_HUB_OFFLINE, or fetch on a machine with a network."

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


@pytest.fixture(scope="module")
def client() -> Iterator[Forks]:
    with Forks(CLIENT) as client:
        yield client


@pytest.fixture
def user(client: Forks, tmp_path: Path) -> Iterator[User]:
    with HubServer() as hub:
        yield User(client, hub, tmp_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three weight files with tokenizer and licence, beside it other forms of the same weights."""
    directory = save_family(FAMILIES["llama"], tmp_path_factory.mktemp("published") / "llama")
    (directory / "LICENSE").write_text("free")
    (directory / "original").mkdir()
    for name in ("original/model.safetensors", "consolidated.00.pth", "model.onnx", "model.gguf", "README.md"):
        (directory / name).write_bytes(b"another form")
    return directory


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three `.bin` files."""
    return save_family(FAMILIES["opt-350m"], tmp_path_factory.mktemp("published") / "opt")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one file of four megabytes and a little."""
    directory = tmp_path_factory.mktemp("published") / "large"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_tokenizer(directory)
    weights = np.random.default_rng(0).integers(256, size=(4, MEGABYTE), dtype=np.uint8)
    save_file({"weight": weights}, directory / "model.safetensors")
    return directory


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory to publish, with a configuration only."""
    directory = tmp_path / "odd"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_tokenizer(directory)
    return directory


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


# A commit, a branch, a tag


def test_a_pinned_commit_arrives_byte_for_byte_and_says_nothing(user: User, llama: Path) -> None:
    user.publish(llama)
    ended = user.fetch()
    assert (ended.status, ended.lines) == (0, [])
    assert arrived(user, llama)


def test_the_seal_says_hub_revision_and_commit_and_has_size_and_sha256_of_every_file(user: User, llama: Path) -> None:
    user.publish(llama)
    assert user.fetch().status == 0
    assert read_source(user.output) == {"hub": "org/model", "revision": COMMIT, "commit": COMMIT}
    sealed = json.loads((user.output / "source.json").read_text())["files"]
    assert sealed == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in taken(llama).items()
    }


def test_every_file_is_asked_for_once_and_other_forms_of_the_weights_never(user: User, llama: Path) -> None:
    user.publish(llama)
    assert user.fetch().status == 0
    assert sorted(user.asked()) == sorted(taken(llama))
    assert {request.method for request in user.hub.requests} == {"GET"}


@pytest.mark.parametrize("revision", [None, "main", "feature/longer-context", "v1.0"])
def test_a_branch_or_tag_is_recorded_as_its_commit_with_a_warning_that_names_it(
    user: User, llama: Path, large: Path, revision: str | None
) -> None:
    repository = user.publish(large, revisions=dict.fromkeys(("main", "feature/longer-context", "v1.0"), OTHER))
    repository.commits[OTHER] = llama
    ended = user.fetch(revision)
    where = f"org/model@{revision or 'main'}"
    assert ended.lines == [f"warning: {where} is commit {OTHER} today; pin it in config.yaml with revision: {OTHER}"]
    assert arrived(user, llama)
    assert read_source(user.output) == {"hub": "org/model", "revision": revision, "commit": OTHER}


def test_a_revision_that_is_not_there_is_one_line_after_one_request(user: User, llama: Path) -> None:
    user.publish(llama)
    wanted = "c" * 40
    said = f"org/model@{wanted}: the model has no such revision; give a commit, a branch or a tag that it has."
    assert user.fetch(wanted).error == said
    assert len(user.hub.requests) == 1
    assert list(user.results.iterdir()) == []


def test_a_model_that_is_not_there_is_one_line_after_one_request(user: User) -> None:
    said = (
        f"org/model@{COMMIT}: no such model on the hub, or it is private; check the name, and HF_TOKEN if it is yours."
    )
    assert user.fetch().error == said
    assert len(user.hub.requests) == 1


@pytest.mark.parametrize("name", ["org/more/model", "org/mo del"])
def test_a_name_that_no_model_can_have_is_refused_without_a_request(user: User, name: str) -> None:
    ended = user.end(user.start(name=name), name)
    assert ended.error == f"{name}@{COMMIT}: is no name of a model; names look like organisation/model."
    assert user.hub.requests == []


# Pickled weights


def test_bin_files_are_rewritten_with_equal_tensors(user: User, opt: Path) -> None:
    user.publish(opt)
    assert user.fetch().status == 0
    read_source(user.output)
    assert are_equal(stored(*user.output.glob("*.safetensors")), stored(*opt.glob("*.bin")))
    assert not list(user.output.glob("*.bin*"))
    file = "model-00002-of-00003.safetensors"
    named = json.loads((user.output / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name for name in named if named[name] == file} == stored(user.output / file).keys()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older-format"])
def test_a_single_bin_file_is_rewritten_tied_tensors_too(user: User, odd: Path, is_zip: bool) -> None:
    weight = torch.arange(12.0).view(3, 4)
    tied = {"embedding": weight, "head": weight, "turned": weight.T}
    torch.save(tied, odd / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    (odd / "training_args.bin").write_bytes(b"no weights")
    user.publish(odd)
    assert user.fetch().status == 0
    assert are_equal(stored(user.output / "model.safetensors"), tied)
    assert "training_args.bin" not in user.asked()


def test_safetensors_are_taken_where_both_are_published(user: User, odd: Path, large: Path) -> None:
    (odd / "pytorch_model.bin").write_bytes(b"never read")
    shutil.copy(large / "model.safetensors", odd)
    user.publish(odd)
    assert user.fetch().status == 0
    assert user.asked() == [*DESCRIBED, "model.safetensors"]


def published_sets(directory: Path, one: Path, other: Path) -> list[str]:
    """Publish a model whole, beside an index of the shards of another, and return the names of these."""
    shutil.copytree(other, directory)
    whole = stored(*one.glob("*.safetensors"))
    save_torch_file(whole, directory / "model.safetensors", metadata={"format": "pt"})
    return sorted(path.name for path in directory.glob("model-*"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model like `llama` with other weights."""
    return save_family(FAMILIES["llama"], tmp_path_factory.mktemp("published") / "second", seed=1)


def test_a_whole_file_is_taken_before_an_index_as_transformers_does(
    user: User, llama: Path, second: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "two"
    older = published_sets(directory, llama, second)
    user.publish(directory)
    ended = user.fetch()
    assert (ended.status, ended.lines) == (
        0,
        [
            f"note: org/model@aaaaaaaaaaaa: takes model.safetensors, as transformers does, and passes over {older[0]} "
            "and 2 more"
        ],
    )
    assert not set(older) & set(user.asked())
    opened = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    arrived = stored(*user.output.glob("*.safetensors"))
    assert are_equal(arrived, opened)
    assert are_equal(arrived, stored(*llama.glob("*.safetensors")))
    assert not are_equal(arrived, stored(*second.glob("*.safetensors")))
    assert not (user.output / "model.safetensors.index.json").exists()


def test_a_whole_bin_file_is_taken_before_its_index_and_before_an_adapter(
    user: User, llama: Path, second: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "two"
    directory.mkdir()
    for name in DESCRIBED:
        shutil.copy(llama / name, directory)
    wanted, other = stored(*llama.glob("*.safetensors")), stored(*second.glob("*.safetensors"))
    torch.save(wanted, directory / "pytorch_model.bin")
    write_files(other, directory, is_pickled=True)
    save_torch_file(other, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    user.publish(directory)
    ended = user.fetch()
    assert ended.status == 0
    assert [line.partition(": ")[2].partition(": ")[2] for line in ended.lines] == [
        "takes pytorch_model.bin, as transformers does, and passes over pytorch_model-00001-of-00003.bin and 2 more",
        "does not apply the adapter adapter_model.safetensors; merge it into the weights to measure both",
    ]
    opened = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    arrived = stored(*user.output.glob("*.safetensors"))
    assert are_equal(arrived, opened)
    assert are_equal(arrived, wanted)


def test_the_shards_of_an_index_may_lie_in_a_folder(user: User, llama: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(llama, tmp_path / "deep")
    index = directory / "model.safetensors.index.json"
    weight_map = {key: f"parts/{name}" for key, name in json.loads(index.read_text())["weight_map"].items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "parts").mkdir()
    for path in directory.glob("model-*"):
        path.rename(directory / "parts" / path.name)
    user.publish(directory)
    assert user.fetch().status == 0
    assert are_equal(stored(*user.output.rglob("*.safetensors")), stored(*llama.glob("*.safetensors")))
    read_source(user.output, LINEAGE["checkpoint"])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], "holds only an adapter of org/base"),
        (["model-00001-of-00002.safetensors"], "without model.safetensors.index.json"),
        (["pytorch_model.safetensors"], "has pytorch_model.safetensors, but transformers opens only model.safetensors"),
        (["model.fp16.safetensors"], "has model.fp16.safetensors, but transformers opens only model.safetensors"),
    ],
)
def test_weights_that_transformers_would_not_open_are_refused_before_one_is_asked_for(
    user: User, odd: Path, names: list[str], told: str
) -> None:
    for name in names:
        (odd / name).write_text('{"base_model_name_or_path": "org/base"}')
    user.publish(odd)
    assert told in user.fetch().error
    assert user.asked(WEIGHTS) == []
    assert not user.output.exists()


def test_a_tokenizer_of_a_later_version_is_refused_before_any_weights(user: User, odd: Path, large: Path) -> None:
    content = json.loads((odd / "tokenizer.json").read_text())
    content["model"]["type"] = "OfNextYear"
    (odd / "tokenizer.json").write_text(json.dumps(content))
    shutil.copy(large / "model.safetensors", odd)
    user.publish(odd)
    assert "its tokenizer.json cannot be read by tokenizers" in user.fetch().error
    assert user.asked() == DESCRIBED


class Command:
    """A pickle of this makes a file when it is read without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "plain"])
def test_a_pickle_that_holds_code_is_refused_and_the_code_does_not_run(user: User, odd: Path, is_zip: bool) -> None:
    made = user.directory / "made"
    content = {"weight": torch.ones(2), "more": Command(made)}
    if is_zip:
        torch.save(content, odd / "pytorch_model.bin")
    else:
        (odd / "pytorch_model.bin").write_bytes(pickle.dumps({"more": Command(made)}, protocol=2))
    user.publish(odd)
    assert user.fetch().error == f"org/model: pytorch_model.bin asks for posix.mkdir, and code is never run; {UNREAD}"
    assert not made.exists()
    assert not user.output.exists()


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older-format"])
@pytest.mark.parametrize("share", [0, 0.02, 0.6, 0.99])
def test_a_bin_file_that_was_published_cut_is_refused(user: User, odd: Path, is_zip: bool, share: float) -> None:
    path = odd / "pytorch_model.bin"
    torch.save({f"weight_{n}": torch.ones(8, 8) for n in range(4)}, path, _use_new_zipfile_serialization=is_zip)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    user.publish(odd)
    assert user.fetch().error == f"org/model: pytorch_model.bin is cut or damaged, or no pickle of tensors; {UNREAD}"
    assert not user.output.exists()


# A busy hub


def test_a_wait_that_the_hub_orders_is_kept_and_said(user: User, llama: Path) -> None:
    user.publish(llama)
    user.hub.faults = [Fault("429", "GET .*config.json$", retry_after=0.4)]
    before = time.monotonic()
    ended = user.fetch()
    assert ended.lines == ["org/model@aaaaaaaaaaaa: status 429; trying again in 0.4 s"]
    assert time.monotonic() - before > 0.4
    assert arrived(user, llama)


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Retry-After": formatdate(0, usegmt=True)}, "0.0 s"),
        ({"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'}, "1.0 s"),
        ({"RateLimit": '"resolvers";r=9;t=90', "Retry-After": "soon"}, "0.0 s"),
    ],
    ids=["date", "rate limit", "neither"],
)
def test_a_wait_may_be_a_date_or_the_end_of_a_rate_limit(user: User, large: Path, headers: Any, waits: str) -> None:
    user.publish(large)
    user.hub.faults = [Fault("429", "GET .*config.json$", headers=headers)]
    assert user.fetch().lines == [f"org/model@aaaaaaaaaaaa: status 429; trying again in {waits}"]
    assert arrived(user, large)


def test_a_hub_that_is_busy_for_ever_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("429", WEIGHTS, times=99, retry_after=0)]
    ended = user.fetch()
    assert ended.error == f"org/model@aaaaaaaaaaaa: cannot be downloaded (status 429; {TRIES} tries); {KEPT}"
    assert len(user.hub.seen(WEIGHTS)) == TRIES
    assert not user.output.exists()
    assert len(user.kept) == len(DESCRIBED)


def test_a_hub_that_is_down_for_a_moment_is_asked_again(user: User, llama: Path) -> None:
    user.publish(llama)
    user.hub.faults = [Fault("503", "/api/models/", times=3), Fault("503", WEIGHTS, times=2)]
    ended = user.fetch()
    assert [line.partition(";")[0] for line in ended.lines] == (
        [f"org/model@{COMMIT}: status 503"] * 3 + ["org/model@aaaaaaaaaaaa: status 503"] * 2
    )
    assert arrived(user, llama)
    assert (len(user.hub.seen("/api/")), len(user.hub.seen(WEIGHTS))) == (4, 5)


# Tokens


def test_a_gated_model_without_a_token_names_its_terms_and_the_token(user: User, llama: Path) -> None:
    user.publish(llama, gated=True)
    terms = TERMS.format(url=user.hub.url)
    said = f"org/model@aaaaaaaaaaaa: is gated; {terms}, and set HF_TOKEN to a token of that account."
    assert user.fetch().error == said
    assert len(user.asked()) == 1
    assert not user.output.exists()


def test_a_gated_model_with_the_token_of_somebody_else_names_its_terms(user: User, llama: Path) -> None:
    user.publish(llama, gated=True)
    terms = TERMS.format(url=user.hub.url)
    ended = user.fetch(HF_TOKEN="hf_somebody")
    said = f"org/model@aaaaaaaaaaaa: is gated, and HF_TOKEN may not read it; {terms} with that account."
    assert ended.error == said
    assert "hf_somebody" not in ended.log + ended.streams
    assert len(user.asked()) == 1


def test_a_token_that_is_no_longer_valid_is_named(user: User, llama: Path) -> None:
    user.publish(llama)
    user.hub.faults = [Fault("401", "/api/models/", times=99)]
    ended = user.fetch(HF_TOKEN="hf_expired")
    assert ended.error == f"org/model@{COMMIT}: the hub refused (status 401); check HF_TOKEN."
    assert len(user.hub.requests) == 1


def test_the_token_opens_a_gated_model_and_is_seen_by_the_hub_only(user: User, llama: Path) -> None:
    user.publish(llama, gated=True)
    user.hub.storage = user.hub.url.replace("127.0.0.1", "localhost")
    user.hub.faults = [Fault("503", WEIGHTS), Fault("503", r"stored$"), Fault("cut", r"model-00002.*stored$")]
    ended = user.fetch(HF_TOKEN=user.hub.token)
    assert arrived(user, llama)
    texts = [ended.log, ended.streams, *(path.read_bytes().decode("latin-1") for path in user.output.iterdir())]
    assert not [text for text in texts if user.hub.token in text]
    at_the_hub = [request for request in user.hub.requests if not request.headers["host"].startswith("localhost")]
    elsewhere = [request for request in user.hub.requests if request not in at_the_hub]
    assert {request.headers.get("authorization") for request in at_the_hub} == {f"Bearer {user.hub.token}"}
    assert [request.status for request in elsewhere] == [503, 200, 200, 200, 200]
    for request in elsewhere:
        assert user.hub.token not in str(request)
    assert not [request for request in user.hub.requests if user.hub.token in request.path]


# Broken connections


def test_a_hub_that_nobody_answers_for_is_given_up_after_two_tries(user: User) -> None:
    ended = user.fetch(HF_ENDPOINT=NOBODY)
    told = f"org/model@{COMMIT}: [Errno 111] Connection refused; trying again in 0.0 s"
    assert ended.lines[:-1] == [told] * (TRIES_WITHOUT_HUB - 1)
    told = f"cannot be downloaded ([Errno 111] Connection refused; {TRIES_WITHOUT_HUB} tries)"
    assert ended.error == f"org/model@{COMMIT}: {told}; {KEPT}"


def test_a_storage_that_nobody_answers_for_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.storage = NOBODY
    told = f"cannot be downloaded ([Errno 111] Connection refused; {TRIES} tries)"
    assert user.fetch().error == f"org/model@aaaaaaaaaaaa: {told}; {KEPT}"
    assert user.asked(WEIGHTS) == ["model.safetensors"] * TRIES


def test_a_hub_that_closes_every_connection_is_given_up_after_all_tries(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("refuse", "GET", times=99)]
    assert f"; {TRIES} tries); {KEPT}" in user.fetch().error
    assert len(user.hub.requests) == TRIES
    assert list(user.results.iterdir()) == []


def test_a_download_that_is_cut_goes_on_where_it_stopped(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("cut", WEIGHTS)]
    ended = user.fetch()
    assert user.ranges() == [None, f"bytes={2 * MEGABYTE}-"]
    assert len(ended.lines) == 1
    assert arrived(user, large)


def test_a_redirected_download_that_is_cut_goes_on_where_it_stopped(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.storage = user.hub.url.replace("127.0.0.1", "localhost")
    user.hub.faults = [Fault("cut", "stored$")]
    assert user.fetch().status == 0
    assert user.ranges("stored$") == [None, f"bytes={2 * MEGABYTE}-"]
    assert arrived(user, large)


def test_a_connection_that_falls_silent_is_given_up_and_goes_on_where_it_stopped(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("stall", "/api/models/"), Fault("stall", WEIGHTS)]
    ended = user.fetch(silence=0.7)
    assert [line.partition(";")[0] for line in ended.lines] == [
        f"org/model@{COMMIT}: timed out",
        "org/model@aaaaaaaaaaaa: timed out",
    ]
    assert user.ranges() == [None, f"bytes={2 * MEGABYTE}-"]
    assert arrived(user, large)


def test_a_download_that_is_always_cut_is_given_up_and_the_next_fetch_goes_on(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("cut", WEIGHTS, times=99)]
    error = user.fetch().error
    assert error.startswith("org/model@aaaaaaaaaaaa: cannot be downloaded (")
    assert error.endswith(f"; {TRIES} tries); {KEPT}")
    assert user.ranges() == [None, f"bytes={2 * MEGABYTE}-"] + [f"bytes={3 * MEGABYTE}-"] * (TRIES - 1)
    assert not user.output.exists()
    assert max(user.kept.values()) == 3 * MEGABYTE

    user.hub.faults.clear()
    user.hub.requests.clear()
    assert user.fetch().status == 0
    assert user.asked() == ["model.safetensors"]
    assert user.ranges() == [f"bytes={3 * MEGABYTE}-"]
    assert arrived(user, large)


def test_an_outage_in_the_middle_of_a_download_is_outlasted(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("cut", WEIGHTS), Fault("refuse", WEIGHTS, times=TRIES - 2)]
    assert user.fetch().status == 0
    assert user.ranges() == [None] + [f"bytes={2 * MEGABYTE}-"] * (TRIES - 1)
    assert arrived(user, large)


def test_a_fetch_that_was_killed_goes_on_where_it_stopped(user: User, llama: Path, tmp_path: Path, large: Path) -> None:
    directory = shutil.copytree(llama, tmp_path / "both")
    shutil.copy(large / "model.safetensors", directory / "model-last.safetensors")
    index = directory / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps(told | {"weight_map": told["weight_map"] | {"weight": "model-last.safetensors"}}))
    user.publish(directory)
    user.hub.faults = [Fault("stall", "GET .*model-last")]
    process = user.start()
    deadline = time.monotonic() + 30
    while 2 * MEGABYTE not in user.kept.values() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    assert user.end(process).status == -signal.SIGKILL
    assert not user.output.exists()

    user.hub.requests.clear()
    assert user.fetch().status == 0
    assert user.asked() == ["model-last.safetensors"]
    assert user.ranges() == [f"bytes={2 * MEGABYTE}-"]
    assert arrived(user, directory)


# Wrong bytes


def test_a_file_that_came_short_is_completed_by_the_rest(user: User, large: Path) -> None:
    user.publish(large)
    size = (large / "model.safetensors").stat().st_size
    user.hub.faults = [Fault("wrong_size", WEIGHTS)]
    (line,) = user.fetch().lines
    told = f"model.safetensors came with {size - 1} bytes where the hub promised {size}"
    assert line.startswith(f"org/model@aaaaaaaaaaaa: {told}; trying again in ")
    assert user.ranges() == [None, f"bytes={size - 1}-"]
    assert arrived(user, large)


def test_a_file_that_always_comes_short_is_refused_with_both_sizes(user: User, large: Path) -> None:
    user.publish(large)
    size = (large / "model.safetensors").stat().st_size
    user.hub.faults = [Fault("wrong_size", WEIGHTS, times=99)]
    told = f"model.safetensors came with {size - 1} bytes where the hub promised {size}; {TRIES} tries"
    assert user.fetch().error == f"org/model@aaaaaaaaaaaa: cannot be downloaded ({told}); {KEPT}"
    assert not user.output.exists()
    assert all(name.endswith(".part") for name, kept in user.kept.items() if kept > MEGABYTE)


def test_a_file_with_a_flipped_byte_is_downloaded_again(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("flipped_byte", WEIGHTS)]
    (line,) = user.fetch().lines
    digest = hashlib.sha256((large / "model.safetensors").read_bytes()).hexdigest()[:12]
    told = f"model.safetensors came with another content than its digest {digest}… on the hub says"
    assert line.startswith(f"org/model@aaaaaaaaaaaa: {told}; trying again in ")
    assert user.ranges() == [None, None]
    assert arrived(user, large)


def test_a_file_that_always_comes_with_a_flipped_byte_is_refused_and_not_kept(user: User, large: Path) -> None:
    user.publish(large)
    user.hub.faults = [Fault("flipped_byte", "GET .*config.json$", times=99)]
    told = "config.json came with another content than its digest "
    assert user.fetch().error.startswith(f"org/model@aaaaaaaaaaaa: cannot be downloaded ({told}")
    assert len(user.hub.seen("config.json$")) == TRIES
    assert (user.kept, user.output.exists()) == ({}, False)


def test_a_half_file_from_an_earlier_run_that_is_damaged_is_downloaded_again(user: User, large: Path) -> None:
    user.publish(large)
    content = (large / "model.safetensors").read_bytes()
    folder = user.results / ".model.download"
    folder.mkdir(parents=True)
    part = folder / f"{hashlib.sha256(content).hexdigest()}.part"
    part.write_bytes(b"\0" * MEGABYTE)
    ended = user.fetch()
    assert "another content" in ended.lines[0]
    assert user.ranges() == [f"bytes={MEGABYTE}-", None]
    assert arrived(user, large)


# What is published is not what it should be


def test_an_index_that_names_a_file_the_hub_lacks_is_refused_before_any_weights(
    user: User, llama: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(llama, tmp_path / "incomplete")
    (directory / "model-00002-of-00003.safetensors").unlink()
    user.publish(directory)
    told = "model-00002-of-00003.safetensors, which its index names, is not among its files; name another revision."
    assert user.fetch().error == f"org/model@aaaaaaaaaaaa: {told}"
    assert user.asked(WEIGHTS) == []
    assert not user.output.exists()


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"model_type": "bert"}, "bert"),
        ({"model_type": "mamba"}, "mamba has no attention heads"),
        ({"model_type": "falcon_h1"}, "FalconH1DecoderLayer has 2 parts that take a mask or a cache"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"model_type": "of-next-year"}, "of-next-year"),
    ],
    ids=["encoder", "no-heads", "two-mixers", "gptq", "unknown"],
)
def test_what_cannot_be_measured_is_refused_before_any_weights(
    user: User, odd: Path, large: Path, described: dict[str, Any], told: str
) -> None:
    (odd / "config.json").write_text(json.dumps(described))
    shutil.copy(large / "model.safetensors", odd)
    user.publish(odd)
    assert told in user.fetch().error
    assert user.asked() == DESCRIBED
    assert not user.output.exists()


def test_a_model_without_weights_is_refused(user: User, odd: Path) -> None:
    (odd / "model.gguf").write_bytes(b"another form")
    user.publish(odd)
    told = "has neither safetensors nor pytorch_model.bin; name another revision."
    assert user.fetch().error == f"org/model@aaaaaaaaaaaa: {told}"
    assert user.asked() == DESCRIBED


def test_a_failed_fetch_leaves_the_older_checkpoint_as_it_was(user: User, large: Path, llama: Path) -> None:
    repository = user.publish(large)
    repository.commits[OTHER] = llama
    assert user.fetch().status == 0
    user.hub.faults = [Fault("503", WEIGHTS, times=99, retry_after=0)]
    assert user.fetch(OTHER).error
    assert contents(user.output) == taken(large)
    assert read_source(user.output, LINEAGE["checkpoint"])["commit"] == COMMIT


# What is there already


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_offline_a_cached_model_is_taken_without_a_request(user: User, llama: Path, revision: str) -> None:
    user.publish(llama)
    user.fill_cache(revision)
    ended = user.fetch(revision, HF_HUB_OFFLINE="1")
    assert (ended.status, ended.lines, user.hub.requests) == (0, [], [])
    assert arrived(user, llama)
    assert read_source(user.output)["commit"] == COMMIT


def test_offline_a_model_that_is_not_cached_is_one_line(user: User, llama: Path) -> None:
    user.publish(llama)
    cache = user.home / "hub"
    told = f"is not in the hub's cache ({cache}) and HF_HUB_OFFLINE is set; {ONLINE}"
    assert user.fetch(HF_HUB_OFFLINE="1").error == f"org/model@{COMMIT}: {told}"
    assert user.hub.requests == []


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("*.safetensors", "model-00001-of-00003.safetensors, which its index names, is not among its files"),
        ("*.safetensors*", "has neither safetensors nor pytorch_model.bin"),
    ],
)
def test_offline_a_model_that_is_cached_in_part_asks_for_a_network(
    user: User, llama: Path, pattern: str, told: str
) -> None:
    user.publish(llama)
    user.fill_cache()
    for path in user.home.glob(f"hub/*/snapshots/*/{pattern}"):
        path.unlink()
    assert user.fetch(HF_HUB_OFFLINE="1").error == f"org/model@aaaaaaaaaaaa: {told}; {ONLINE}"


def test_offline_a_cache_may_lack_what_a_checkpoint_leaves_out(user: User, llama: Path) -> None:
    user.publish(llama)
    user.fill_cache()
    for name in ("README.md", "model.onnx", "original/model.safetensors"):
        (path,) = user.home.glob(f"hub/*/snapshots/*/{name}")
        path.unlink()
    assert user.fetch(HF_HUB_OFFLINE="1").status == 0
    assert arrived(user, llama)


@pytest.mark.parametrize("size", [0, MEGABYTE, None], ids=["empty", "cut", "flipped"])
def test_offline_a_damaged_cached_file_is_refused_and_online_downloaded_again(
    user: User, large: Path, size: int | None
) -> None:
    user.publish(large)
    user.fill_cache()
    (cached,) = user.home.glob("hub/*/snapshots/*/model.safetensors")
    content = bytearray(cached.read_bytes())
    content[-1] ^= 0xFF
    cached.resolve().write_bytes(content[:size])
    told = f"model.safetensors is damaged in the hub's cache; {ONLINE}"
    assert user.fetch(HF_HUB_OFFLINE="1").error == f"org/model@aaaaaaaaaaaa: {told}"
    assert (user.hub.requests, user.output.exists()) == ([], False)
    assert user.fetch().status == 0
    assert user.asked() == ["model.safetensors"]
    assert arrived(user, large)


def test_what_lies_in_the_cache_of_the_hub_is_not_downloaded_again(user: User, llama: Path) -> None:
    user.publish(llama)
    user.fill_cache()
    assert user.fetch().status == 0
    assert user.asked() == []
    assert arrived(user, llama)


def test_weights_of_an_earlier_checkpoint_with_the_same_content_are_not_downloaded_again(
    user: User, llama: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(llama, tmp_path / "other")
    (other / "LICENSE").write_text("another")
    (other / "model-00002-of-00003.safetensors").write_bytes((llama / "model-00001-of-00003.safetensors").read_bytes())
    repository = user.publish(llama)
    repository.commits[OTHER] = other
    assert user.fetch().status == 0
    user.hub.requests.clear()
    assert user.fetch(OTHER).status == 0
    assert user.asked(WEIGHTS) == ["model-00002-of-00003.safetensors"]
    assert arrived(user, other)


# The disk, and company


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted(tmp_path / "disk", megabytes=1) as place:
        yield place


def test_a_disk_without_room_is_refused_before_any_weights(user: User, large: Path, small_disk: Path) -> None:
    user.publish(large)
    user.results = small_disk
    told = (
        rf"org/model@aaaaaaaaaaaa: needs \d+\.\d MB more on the disk of {small_disk}/\.model\.download, "
        r"which has [01]\.\d MB free; make room, or let results/ be a link to a larger disk\. Nothing of it has .*\."
    )
    assert re.fullmatch(told, user.fetch().error)
    assert user.asked() == DESCRIBED
    assert not user.output.exists()


def test_two_models_that_are_fetched_at_once_do_not_disturb_each_other(user: User, large: Path, llama: Path) -> None:
    names = {"org/model": large, "org/second": llama}
    for name, directory in names.items():
        user.publish(directory, name)
    user.hub.faults = [Fault("cut", "GET /org/model/.*safetensors$"), Fault("cut", "GET /org/second/.*safetensors$")]
    processes = {name: user.start(name=name) for name in names}
    assert [user.end(process, name).status for name, process in processes.items()] == [0, 0]
    assert {name: contents(user.results / name.removeprefix("org/")) for name in names} == {
        name: taken(directory) for name, directory in names.items()
    }
    assert sorted(path.name for path in user.results.iterdir()) == ["model", "second"]
