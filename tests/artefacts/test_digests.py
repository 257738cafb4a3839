"""Digests: of the content and nothing else, never one of before an edit, read once."""

import os
import sys
import time
from hashlib import sha256
from pathlib import Path
from subprocess import Popen

import pytest
from outlier_features.artefacts import digests, file_states
from outlier_features.artefacts.digests import Digests
from outlier_features.artefacts.file_states import Memory, state

NAMES = ["a.txt", "b.txt"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_text(f"what {name} holds")
    return tmp_path


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


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as new as those of a test are remembered."""
    monkeypatch.setattr(file_states, "RACY_SECONDS", 0.0)


def digest_of(place: Path, *, dry: bool = False) -> str:
    return Digests(place / "memory", lambda: dry).of(place, NAMES)


def test_a_digest_is_that_of_names_and_contents(place: Path) -> None:
    lines = [f"{name} {sha256(f'what {name} holds'.encode()).hexdigest()}" for name in NAMES]
    assert digest_of(place) == sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.usefixtures("trusted")
def test_a_file_is_read_once_and_again_when_its_state_differs(place: Path, reads: list[str]) -> None:
    before = digest_of(place)
    assert sorted(reads) == NAMES
    assert digest_of(place) == before
    assert len(reads) == 2
    (place / "b.txt").touch()
    assert digest_of(place) == before
    assert reads[2:] == ["b.txt"]


@pytest.mark.usefixtures("trusted")
def test_an_edit_of_the_same_size_is_found_though_its_time_is_put_back(place: Path) -> None:
    before, times = digest_of(place), (place / "a.txt").stat()
    time.sleep(0.02)  # several ticks of the clock of the file system
    (place / "a.txt").write_text("WHAT a.txt holds")
    os.utime(place / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (place / "a.txt").stat().st_mtime_ns == times.st_mtime_ns
    assert digest_of(place) != before


@pytest.mark.usefixtures("trusted")
def test_a_replacement_with_the_same_size_and_time_is_found(place: Path) -> None:
    before = digest_of(place)
    (place / "new").write_text("WHAT a.txt holds")
    os.utime(place / "new", (1e9, 1e9))
    (place / "new").replace(place / "a.txt")
    assert digest_of(place) != before


def test_a_file_that_has_just_changed_is_not_remembered(place: Path, reads: list[str]) -> None:
    assert digest_of(place) == digest_of(place)
    assert sorted(reads) == sorted(2 * NAMES)


@pytest.mark.usefixtures("trusted")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = digests.atomic.digest

    def overtaken(path: Path) -> str:
        found = read(path)
        path.write_text("changed meanwhile")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digests.atomic, "digest", overtaken)
        torn = digest_of(place)
    lines = [f"{name} {sha256(b'changed meanwhile').hexdigest()}" for name in NAMES]
    assert torn != digest_of(place) == sha256("\n".join(lines).encode()).hexdigest()[:16]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a.txt": 3}', '{"a.txt": [[1, 2], "x", 3]}', "\0"])
def test_a_damaged_memory_is_an_empty_one(place: Path, damage: str) -> None:
    before = digest_of(place)
    (memory,) = (place / "memory").iterdir()
    memory.write_text(damage)
    assert digest_of(place) == before


def test_a_memory_that_cannot_be_written_changes_no_digest(place: Path) -> None:
    before = digest_of(place)
    (place / "file").touch()
    assert Digests(place / "file").of(place, NAMES) == before


@pytest.mark.usefixtures("trusted")
def test_processes_that_remember_at_once_leave_a_whole_memory(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from outlier_features.artefacts import file_states; file_states.RACY_SECONDS = 0.0\n"
        "from outlier_features.artefacts.file_states import Memory, state\n"
        "path = Path(sys.argv[1])\n"
        "for turn in range(200):\n"
        "    memory = Memory(path / 'shared.json')\n"
        "    assert turn == 0 or memory.get('a.txt', state(path / 'a.txt')) == 'x' * 5000, turn\n"
        "    memory.put('a.txt', state(path / 'a.txt'), 'x' * 5000)\n"
        "    memory.save()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(digests.__file__).parents[2])}
    started = [Popen([sys.executable, "-c", code, str(place)], env=environment) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert Memory(place / "shared.json").get("a.txt", state(place / "a.txt")) == "x" * 5000


def test_a_dry_run_reads_no_more_than_it_may_and_says_so(
    place: Path, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (place / "a.txt").open("r+b") as file:
        file.truncate(300_000_000_000)  # 300 GB, none of them on the disk
    started = time.perf_counter()
    assert digest_of(place, dry=True) != Digests(place / "memory").of(place, ["b.txt"])
    assert time.perf_counter() - started < 5
    assert reads == ["b.txt"]
    said = capsys.readouterr().err
    assert said == f"{place}: 300.0 GB not read before; this dry run takes them as changed, a run reads them.\n"
