"""File lock: one process at a time makes a result, and a process that dies leaves no lock behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from outlier_features.errors import DamagedFile
from outlier_features.machine.file_lock import alone
from projects import PROJECT

HOLD = """
import sys, time
from pathlib import Path
from outlier_features.machine.file_lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_refused_by_name_and_the_lock_is_gone_afterwards(tmp_path: Path) -> None:
    with alone(tmp_path / "out"):
        with (
            pytest.raises(DamagedFile, match=r"out: another process is making it; wait for it"),
            alone(tmp_path / "out"),
        ):
            pass
        with alone(tmp_path / "other"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DamagedFile), alone(tmp_path / "out"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with alone(tmp_path / "out"):
        pass
