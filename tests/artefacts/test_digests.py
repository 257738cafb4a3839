"""Digests: of the content and nothing else, never one of before an edit, read once."""

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest
from lineages import TEXTS, digest_of
from outlier_features.artefacts import digests
from outlier_features.artefacts.digests import Digests


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in the order in which they are."""
    found: list[str] = []
    read = digests.atomic.digest

    def noted(path: Path) -> str:
        found.append(path.name)
        return read(path)

    monkeypatch.setattr(digests.atomic, "digest", noted)
    return found


def test_a_digest_is_that_of_names_and_contents(texts: Path) -> None:
    lines = [f"{name} {sha256(f'what {name} holds'.encode()).hexdigest()}" for name in TEXTS]
    assert digest_of(texts) == sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.usefixtures("trusted")
def test_a_file_is_read_once_and_again_when_its_state_differs(texts: Path, reads: list[str]) -> None:
    before = digest_of(texts)
    assert sorted(reads) == TEXTS
    assert digest_of(texts) == before
    assert len(reads) == 2
    (texts / "b.txt").touch()
    assert digest_of(texts) == before
    assert reads[2:] == ["b.txt"]


@pytest.mark.usefixtures("trusted")
def test_an_edit_of_the_same_size_is_found_though_its_time_is_put_back(texts: Path) -> None:
    before, times = digest_of(texts), (texts / "a.txt").stat()
    time.sleep(0.02)  # several ticks of the clock of the file system
    (texts / "a.txt").write_text("WHAT a.txt holds")
    os.utime(texts / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (texts / "a.txt").stat().st_mtime_ns == times.st_mtime_ns
    assert digest_of(texts) != before


@pytest.mark.usefixtures("trusted")
def test_a_replacement_with_the_same_size_and_time_is_found(texts: Path) -> None:
    before = digest_of(texts)
    (texts / "new").write_text("WHAT a.txt holds")
    os.utime(texts / "new", (1e9, 1e9))
    (texts / "new").replace(texts / "a.txt")
    assert digest_of(texts) != before


def test_a_file_that_has_just_changed_is_not_remembered(texts: Path, reads: list[str]) -> None:
    assert digest_of(texts) == digest_of(texts)
    assert sorted(reads) == sorted(2 * TEXTS)


@pytest.mark.usefixtures("trusted")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = digests.atomic.digest

    def overtaken(path: Path) -> str:
        found = read(path)
        path.write_text("changed meanwhile")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digests.atomic, "digest", overtaken)
        torn = digest_of(texts)
    lines = [f"{name} {sha256(b'changed meanwhile').hexdigest()}" for name in TEXTS]
    assert torn != digest_of(texts) == sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_a_memory_that_cannot_be_written_changes_no_digest(texts: Path) -> None:
    before = digest_of(texts)
    (texts / "file").touch()
    assert Digests(texts / "file").of(texts, TEXTS) == before


def test_a_dry_run_reads_no_more_than_it_may_and_says_so(
    texts: Path, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (texts / "a.txt").open("r+b") as file:
        file.truncate(300_000_000_000)  # 300 GB, none of them on the disk
    started = time.perf_counter()
    assert digest_of(texts, dry=True) != Digests(texts / "memory").of(texts, ["b.txt"])
    assert time.perf_counter() - started < 5
    assert reads == ["b.txt"]
    said = capsys.readouterr().err
    assert said == f"{texts}: 300.0 GB not read before; this dry run takes them as changed, a run reads them.\n"
