"""Faults: what goes wrong for real is one line that says what to do, and the next run comes to the same bits."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from captures import LINEAGE, Captures
from conftest import mounted
from families import FAMILIES, save_family
from forks import REPOSITORY
from outlier_features.capture import engine
from outlier_features.capture.engine import Outputs
from outlier_features.capture.offload import Offload
from outlier_features.capture.prefetch import Reading
from outlier_features.config.entries import Model
from outlier_features.errors import DamagedFile, SourceError
from outlier_features.models.weights import Weights
from outlier_features.sources.fetch import fetch
from outlier_features.statistics.shards import Statistics
from torch.utils._pytree import tree_leaves

KEPT = "then run again: what is finished is kept."
FULL = f"the disk is full; make room, {KEPT}"
READ_ONLY = f"the disk can only be read; mount it for writing, {KEPT}"

FILL = """
def fill(folder):
    status = os.statvfs(folder)
    with open(folder / "ballast", "wb") as ballast:
        ballast.write(bytes(status.f_bavail * status.f_frsize))

def before(owner, name, is_time, fault):
    intact = getattr(owner, name)
    def faulty(*arguments, **more):
        if is_time(*arguments):
            fault()
        return intact(*arguments, **more)
    setattr(owner, name, faulty)
"""
"""Words the faults below are said in."""
KILL_AT_2 = FILL + "before(Weights, 'install', lambda _, block, __: block == 2, lambda: os.kill(os.getpid(), 9))"


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captures]:
    with Captures(tmp_path_factory.mktemp("said")) as found:
        yield found


@pytest.fixture(scope="module")
def sealed(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The digests of the shards of an undisturbed run."""
    manifest = tmp_path_factory.mktemp("undisturbed") / "out.json"
    assert captures.run(checkpoints["dense"], tokens, manifest).status == 0
    return digests(manifest)


def digests(manifest: Path) -> dict[str, str]:
    """Return the digests of the shards of a result, which is whole."""
    Statistics([manifest]).block(0)
    return json.loads(manifest.read_text())["shards"]


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    with mounted(tmp_path / "disk", megabytes=4) as place:
        yield place


@pytest.mark.parametrize(
    ("where", "behind"),
    [
        ("before(shard_writer.shards, 'write', lambda path, *_: path.name == 'block-002.arrow', {})", 2),
        ("before(resume, 'save_file', lambda _, path: 'state-001' in str(path), {})", 1),
        ("before(resume.atomic, 'write_json', lambda path, _: path.name == 'progress.json', {})", 0),
        ("before(shard_writer.shards, 'write', lambda path, *_: path.name == 'block-000.arrow', {})", 0),
    ],
    ids=["a shard", "the state", "the progress", "the first shard"],
)
def test_a_disk_that_runs_full_is_one_line_and_the_next_run_goes_on(
    where: str,
    behind: int,
    captures: Captures,
    checkpoints: dict[str, Path],
    tokens: Path,
    sealed: dict[str, str],
    small_disk: Path,
) -> None:
    order = checkpoints["dense"], tokens, small_disk / "out.json"
    fault = FILL + where.format(f"lambda: fill(Path({str(small_disk)!r}))")
    assert captures.run(*order, fault, log=small_disk / "log.txt").error == f"{small_disk}/.out.unfinished: {FULL}"
    assert (small_disk / ".out.unfinished").exists() == (behind > 0 or "progress" in where)
    (small_disk / "ballast").unlink()
    ended = captures.run(*order)
    assert (ended.status, ended.resumed_after) == (0, behind)
    assert digests(small_disk / "out.json") == sealed
    assert sorted(path.name for path in small_disk.iterdir()) == ["log.txt", "out", "out.json"]


def test_a_disk_that_has_turned_read_only_is_one_line_and_the_next_run_goes_on(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, sealed: dict[str, str], small_disk: Path
) -> None:
    order = checkpoints["dense"], tokens, small_disk / "out.json"
    assert captures.run(*order, KILL_AT_2).status == -signal.SIGKILL
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert captures.run(*order).error == f"{small_disk}/.out.lock: {READ_ONLY}"
    log = small_disk / "log.txt"
    assert captures.run(*order, log=log).error == f"{log}: {READ_ONLY}"
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    ended = captures.run(*order)
    assert (ended.status, ended.resumed_after) == (0, 2)
    assert digests(small_disk / "out.json") == sealed


def test_a_folder_of_another_user_is_one_line(captures: Captures, checkpoints: dict[str, Path], tokens: Path) -> None:
    leave = "os.geteuid() or os.seteuid(65534)"  # root may write everywhere
    fault = f"{FILL}\nimport outlier_features.capture.run as c; before(c, 'alone', lambda *_: True, lambda: {leave})"
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        told = captures.run(checkpoints["dense"], tokens, Path(place) / "out.json", fault).error
    assert told == f"{place}/.out.lock: permission denied; change the permissions, {KEPT}"


def test_a_pass_that_goes_on_needs_room_for_the_rest_only(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, sealed: dict[str, str], tmp_path: Path
) -> None:
    order = checkpoints["dense"], tokens, tmp_path / "out.json"
    assert captures.run(*order, KILL_AT_2).status == -signal.SIGKILL
    needed = (
        "from outlier_features.capture import run\n"
        "before(run, 'require_room', lambda *a: print('needs', a[1]), lambda: None)"
    )
    whole, rest = (captures.run(*order[:2], tmp_path / f"{name}.json", FILL + needed) for name in ("other", "out"))
    wanted = [float(ended.said.split("needs ")[1].split()[0]) for ended in (whole, rest)]
    assert wanted[1] < 0.7 * wanted[0]
    assert digests(tmp_path / "out.json") == sealed


def test_what_a_killed_run_had_begun_to_write_is_removed_by_the_next(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, sealed: dict[str, str], tmp_path: Path
) -> None:
    order = checkpoints["dense"], tokens, tmp_path / "out.json"
    assert captures.run(*order, KILL_AT_2).status == -signal.SIGKILL
    leftovers = tmp_path / ".out.unfinished"
    assert [path.name for path in leftovers.glob("hidden-states-*")]
    for name in (".tmpAbCdEf", ".state-001.safetensors.unfinished", "state-002.safetensors"):
        (leftovers / name).write_bytes(b"begun")
    assert captures.run(*order).resumed_after == 2
    assert digests(tmp_path / "out.json") == sealed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*sealed, "timings.arrow"])


@pytest.mark.parametrize(("family", "spare"), [("qwen3", -4096), ("gptj", 8192)], ids=["copied", "rewritten"])
def test_a_disk_that_is_full_while_a_model_is_fetched_is_one_line(
    family: str, spare: int, small_disk: Path, tmp_path: Path
) -> None:
    source = save_family(FAMILIES[family], tmp_path / "original")
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    size = sum(path.stat().st_size for path in source.iterdir())
    (small_disk / "ballast").write_bytes(bytes(free - size - spare))
    told = rf"^{small_disk}/model: the disk is full; make room, then run again: what has arrived is kept\.$"
    with pytest.raises(SourceError, match=told):
        fetch(Model(path=str(source)), small_disk / "model", LINEAGE)
    (small_disk / "ballast").unlink()
    assert list(small_disk.iterdir()) == []
    fetch(Model(path=str(source)), small_disk / "model", LINEAGE)


# Files that change afterwards


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 40), Path.unlink], ids=["cut", "gone"])
def test_a_damaged_shard_is_made_anew_as_the_error_says(
    damage: Callable[[Path], object],
    captures: Captures,
    checkpoints: dict[str, Path],
    tokens: Path,
    sealed: dict[str, str],
    tmp_path: Path,
) -> None:
    order = checkpoints["dense"], tokens, tmp_path / "out.json"
    assert captures.run(*order).status == 0
    damage(tmp_path / "out/block-001.arrow")
    remedy = f"delete {tmp_path}/out.json and {tmp_path}/out, then run snakemake again"
    with pytest.raises(DamagedFile, match=rf"out/block-001\.arrow: the shard is .*{remedy}\."):
        Statistics([tmp_path / "out.json"]).block(1)
    (tmp_path / "out.json").unlink()
    shutil.rmtree(tmp_path / "out")
    assert captures.run(*order).status == 0
    assert digests(tmp_path / "out.json") == sealed


AGAIN = "run snakemake, or the stage fetch (train, for a model with a recipe)"


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as opened:
        opened.seek(at)
        opened.write(content)


@pytest.mark.parametrize(
    ("at", "content"),
    [(8, b"garbage"), (8, b"\xff\xfe\xfd"), (0, b"\xff" * 8), (0, bytes(8)), (9, b"[1],"), (0, b"\x10" + bytes(7))],
    ids=["no json", "no text", "endless", "empty", "altered", "cut"],
)
def test_a_weight_file_with_another_header_of_the_same_size_is_one_line(
    at: int, content: bytes, captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["dense"], tmp_path / "dense")
    file = sorted(checkpoint.glob("*.safetensors"))[-1]
    overwrite(file, at, content)
    told = captures.run(checkpoint, tokens, tmp_path / "out.json").error
    remedy = f"{file.name} is not as it was fetched: delete {checkpoint}, then {AGAIN}."
    assert told == f"{file}: has no readable header; {remedy}"
    assert not (tmp_path / "out.json").exists()


def test_a_first_weight_file_without_a_header_is_one_line(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["dense"], tmp_path / "dense")
    overwrite(min(checkpoint.glob("*.safetensors")), 8, b"garbage")
    assert captures.run(checkpoint, tokens, tmp_path / "out.json").error.endswith(f"then {AGAIN}.")


def test_a_weight_file_that_is_cut_after_the_fetch_is_one_line(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(checkpoints["dense"], tmp_path / "dense")
    file = max(checkpoint.glob("*.safetensors"))
    size = file.stat().st_size
    os.truncate(file, size - 1)
    told = captures.run(checkpoint, tokens, tmp_path / "out.json").error
    remedy = f"delete {checkpoint}, then run snakemake again."
    assert told == f"{file}: has {size - 1} bytes where {size} were written; {remedy}"


@pytest.mark.parametrize(
    ("value", "words"), [("nan", "33 NaN and 0 infinite"), ("inf", "0 NaN and 33 infinite")], ids=["nan", "inf"]
)
def test_a_weight_that_is_no_number_is_one_line_and_leaves_nothing(
    value: str, words: str, captures: Captures, checkpoints: dict[str, Path], tokens: Path, tmp_path: Path
) -> None:
    fault = f"""{FILL}
intact = Weights.install
def poisoned(self, block, tensors):
    if block == 1:
        tensors["input_layernorm.weight"] = tensors["input_layernorm.weight"].clone()
        tensors["input_layernorm.weight"][5] = {value!r} and float({value!r})
    intact(self, block, tensors)
Weights.install = poisoned
"""
    told = captures.run(checkpoints["dense"], tokens, tmp_path / "out.json", fault).error
    assert told.startswith(
        f"block 1, attn_in, window 0: {words} values in a float32 pass; set capture.nonfinite to count"
    )
    assert list(tmp_path.iterdir()) == []


# Memory


def test_memory_that_is_short_is_one_line_and_the_next_run_goes_on(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, sealed: dict[str, str], tmp_path: Path
) -> None:
    order = checkpoints["dense"], tokens, tmp_path / "out.json"
    fault = f"""{FILL}
def allocate():
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 27, resource.RLIM_INFINITY))
    torch.empty(1 << 30)
before(engine.Offload, "with_room", lambda _, __, where: where == "block 2", allocate)
"""
    told = captures.run(*order, fault).error
    assert re.fullmatch(
        r"dense: out of memory at block 2; by the plan the pass takes 0\.\d\d GB on the device and "
        r"\d\.\d\d GB on the host\. Lower sequences or length of the corpus, or give it more memory, then run again: "
        r"blocks that are saved are kept\.",
        told,
    )
    ended = captures.run(*order)
    assert (ended.status, ended.resumed_after) == (0, 2)
    assert digests(tmp_path / "out.json") == sealed


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
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow")}
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


def test_a_capture_whose_hidden_states_are_on_disk_saves_goes_on_and_seals_the_same(
    captures: Captures, checkpoints: dict[str, Path], tokens: Path, sealed: dict[str, str], tmp_path: Path
) -> None:
    order = checkpoints["dense"], tokens, tmp_path / "out.json"
    nowhere = "\nfrom outlier_features.machine import memory; memory.free_memory = lambda device: 0.0"
    assert captures.run(*order, KILL_AT_2 + nowhere).status == -signal.SIGKILL
    ended = captures.run(*order, nowhere)
    assert (ended.status, ended.resumed_after) == (0, 2)
    assert "of hidden states were offloaded to disk" in ended.said
    assert digests(tmp_path / "out.json") == sealed


# Surroundings


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "tr_TR.UTF-8", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Pacific/Kiritimati"},
    ],
    ids=["turkish", "plain"],
)
def test_language_time_zone_and_file_times_change_nothing(
    surroundings: dict[str, str],
    checkpoints: dict[str, Path],
    tokens: Path,
    sealed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint, future = shutil.copytree(checkpoints["dense"], tmp_path / "dense"), 2_147_000_000.0  # in 2038
    for path in (*checkpoint.iterdir(), checkpoint):
        os.utime(path, (future, future))
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    with Captures(tmp_path) as elsewhere:
        assert elsewhere.run(checkpoint, tokens, tmp_path / "out.json").status == 0
    assert digests(tmp_path / "out.json") == sealed
