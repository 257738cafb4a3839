"""File states: a memory of them stays whole, and a damaged one is an empty one."""

import os
import sys
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
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as new as those of a test are remembered."""
    monkeypatch.setattr(file_states, "RACY_SECONDS", 0.0)


def digest_of(place: Path, *, dry: bool = False) -> str:
    return Digests(place / "memory", lambda: dry).of(place, NAMES)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a.txt": 3}', '{"a.txt": [[1, 2], "x", 3]}', "\0"])
def test_a_damaged_memory_is_an_empty_one(place: Path, damage: str) -> None:
    before = digest_of(place)
    (memory,) = (place / "memory").iterdir()
    memory.write_text(damage)
    assert digest_of(place) == before


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
