"""File states: a memory of them stays whole, and a damaged one is an empty one."""

import os
import sys
from pathlib import Path
from subprocess import Popen

import pytest
from lineages import digest_of
from outlier_features.artefacts import digests
from outlier_features.artefacts.file_states import Memory, state


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a.txt": 3}', '{"a.txt": [[1, 2], "x", 3]}', "\0"])
def test_a_damaged_memory_is_an_empty_one(texts: Path, damage: str) -> None:
    before = digest_of(texts)
    (memory,) = (texts / "memory").iterdir()
    memory.write_text(damage)
    assert digest_of(texts) == before


@pytest.mark.usefixtures("trusted")
def test_processes_that_remember_at_once_leave_a_whole_memory(texts: Path) -> None:
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
    started = [Popen([sys.executable, "-c", code, str(texts)], env=environment) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert Memory(texts / "shared.json").get("a.txt", state(texts / "a.txt")) == "x" * 5000
