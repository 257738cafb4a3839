"""Resume: an interrupted capture resumes after the last saved block, to the same bits."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import capture_settings, write_windows
from families import FAMILIES, save_family
from outlier_features.artefacts import provenance
from outlier_features.capture import resume
from outlier_features.capture.run import capture
from outlier_features.config.entries import Model
from outlier_features.errors import DamagedFile, OutOfMemory
from outlier_features.machine.file_lock import alone
from outlier_features.models.weights import Weights
from outlier_features.sources.fetch import fetch

LINEAGE = {"statistics": "a", "checkpoint": "test", "tokens": "test"}


class Stopped(Exception):
    """Stands for whatever ends a pass from outside."""


@pytest.fixture(autouse=True)
def every_block_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of these models take less time than saving them."""
    monkeypatch.setattr(resume, "SHARE", float("inf"))


@pytest.fixture(scope="module", params=["qwen3-moe", "gptj", "gemma3", "qwen3-next"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints: one routes, one has blocks that return tuples, the last two have blocks of two kinds."""
    return fetched(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetched("qwen3", tmp_path_factory.mktemp("qwen3"))


def fetched(name: str, root: Path) -> Path:
    """Return the tiny checkpoint of a family, fetched."""
    original = save_family(FAMILIES[name], root / "original")
    fetch(Model(path=str(original)), root / "model", {"checkpoint": "test"})
    return root / "model"


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = np.random.default_rng(5).integers(300, size=(4, 24))
    return write_windows(tmp_path_factory.mktemp("windows") / "windows.arrow", ids)


def digests(manifest: Path) -> dict[str, str]:
    """Return the digests of all shards, as sealed and as they are."""
    sealed = json.loads(manifest.read_text())["shards"]
    for name, digest in sealed.items():
        assert hashlib.sha256((manifest.with_suffix("") / name).read_bytes()).hexdigest() == digest
    return sealed


def stop_at(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pass end when it wants to install a block."""
    install = Weights.install

    def stopping(self: Weights, index: int, tensors: dict[str, torch.Tensor]) -> None:
        if index == block:
            raise Stopped
        install(self, index, tensors)

    monkeypatch.setattr(Weights, "install", stopping)


def run(model: Path, windows: Path, manifest: Path, lineage: dict[str, str] = LINEAGE) -> dict[str, str]:
    capture(model, windows, manifest, capture_settings(), lineage)
    return digests(manifest)


def run_until(block: int, model: Path, windows: Path, manifest: Path) -> None:
    """Run a pass that saves every block and is stopped when it wants to install one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "SHARE", float("inf"))
        stop_at(block, patch)
        with pytest.raises(Stopped):
            run(model, windows, manifest)


@pytest.mark.parametrize("block", [1, 2])
def test_a_stopped_pass_goes_on_behind_its_last_block_to_the_same_bits(
    family: Path, windows: Path, block: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run(family, windows, tmp_path / "whole.json")
    run_until(block, family, windows, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    capsys.readouterr()
    assert run(family, windows, tmp_path / "out.json") == expected
    facts = [json.loads((tmp_path / f"{name}.json").read_text())["facts"] for name in ("whole", "out")]
    assert facts[0] == facts[1]
    assert f"resuming after block {block} of" in capsys.readouterr().out
    assert not list(tmp_path.glob(".out*"))


def test_a_stopped_pass_is_resumed_with_another_number_of_threads_and_each_shard_says_its_own(
    model: Path, windows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_until(1, model, windows, tmp_path / "out.json")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        shards = run(model, windows, tmp_path / "out.json")
    finally:
        torch.set_num_threads(before)
    assert "resuming after block 1 of" in capsys.readouterr().out
    schemas = {name: pa.ipc.open_file(str(tmp_path / "out" / name)).schema.metadata for name in shards}
    threads = {name: provenance.decode(schema)["threads"] for name, schema in schemas.items()}
    assert threads.pop("block-000.arrow") == before
    assert set(threads.values()) == {before + 1}


def test_finished_blocks_are_not_read_again(
    model: Path, windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_until(2, model, windows, tmp_path / "out.json")
    read: list[int] = []
    before = Weights.read
    monkeypatch.setattr(Weights, "read", lambda self, index: read.append(index) or before(self, index))
    run(model, windows, tmp_path / "out.json")
    assert read == list(range(2, len(Weights(model, torch.float32, torch.device("cpu")).blocks)))


@pytest.fixture
def leftovers(model: Path, windows: Path, tmp_path: Path) -> Path:
    """The folder of a pass that was stopped behind two blocks."""
    run_until(2, model, windows, tmp_path / "out.json")
    return tmp_path / ".out.unfinished"


def test_leftovers_of_another_configuration_are_discarded_by_name(
    model: Path, windows: Path, leftovers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, windows, tmp_path / "out.json", LINEAGE | {"statistics": "b"})
    said = capsys.readouterr().out
    assert f"the leftovers in {leftovers} are discarded: they are of another lineage of the statistics" in said
    assert "going on" not in said


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["block-000.arrow", "block-001.arrow", "state-001.safetensors"])
@pytest.mark.parametrize("damage", [flip, lambda p: os.truncate(p, 40), Path.unlink], ids=["flipped", "cut", "gone"])
def test_damaged_leftovers_are_discarded_and_the_result_is_right(
    model: Path,
    windows: Path,
    leftovers: Path,
    tmp_path: Path,
    pattern: str,
    damage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(leftovers / pattern)
    found = run(model, windows, tmp_path / "out.json")
    assert f"discarded: {pattern} is damaged" in capsys.readouterr().out
    assert found == run(model, windows, tmp_path / "whole.json")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_progress_that_cannot_be_read_is_discarded(
    model: Path, windows: Path, leftovers: Path, tmp_path: Path, content: str
) -> None:
    (leftovers / "progress.json").write_text(content)
    assert run(model, windows, tmp_path / "out.json") == run(model, windows, tmp_path / "whole.json")


def test_an_older_result_stays_until_the_new_one_is_whole(model: Path, windows: Path, tmp_path: Path) -> None:
    before = run(model, windows, tmp_path / "out.json")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(1, patch)
        with pytest.raises(Stopped):
            run(model, windows, tmp_path / "out.json", LINEAGE | {"statistics": "b"})
    assert digests(tmp_path / "out.json") == before


def test_two_passes_at_once_are_refused(model: Path, windows: Path, tmp_path: Path) -> None:
    with alone(tmp_path / "out"), pytest.raises(DamagedFile, match="another process is making it"):
        run(model, windows, tmp_path / "out.json")
    run(model, windows, tmp_path / "out.json")


def test_a_reader_that_dies_ends_the_pass_and_the_next_goes_on(
    model: Path, windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Weights.read

    def dying(self: Weights, index: int) -> dict[str, torch.Tensor]:
        if index == 2:
            raise MemoryError("the reader died")
        return before(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "SHARE", float("inf"))
        patch.setattr(Weights, "read", dying)
        with pytest.raises(OutOfMemory, match="model: out of memory at block 2; by the plan"):
            run(model, windows, tmp_path / "out.json")
    assert (tmp_path / ".out.unfinished/progress.json").exists()
    assert run(model, windows, tmp_path / "out.json") == run(model, windows, tmp_path / "whole.json")
