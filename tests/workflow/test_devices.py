"""Several GPUs of one machine: as many captures at once as Snakemake allows, each on a device of its own.

The devices are pretended by an nvidia-smi of our own; jobs, locks and captures are real, and run on the CPU.
"""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from outlier_features.machine import gpu_lock
from projects import copy_of, write_config

pytestmark = pytest.mark.slow

TARGETS = [f"results/words/statistics/dense.{part}-of-2.json" for part in (1, 2)]
WAITS = "every GPU is taken by another job"


def environment(folder: Path, uuids: list[str]) -> dict[str, str]:
    """Return an environment in which nvidia-smi lists these devices."""
    folder.mkdir()
    tool = folder / "nvidia-smi"
    lines = "\n".join(f"GPU {index}: NVIDIA H200 (UUID: {uuid})" for index, uuid in enumerate(uuids))
    tool.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    tool.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in (gpu_lock.VISIBLE, gpu_lock.JOB)}
    return kept | {"PATH": f"{folder}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "TERM": "dumb"}


def snakemake(project: Path, around: dict[str, str], *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--resources", "gpu=2"]
    return subprocess.Popen(
        command, cwd=project, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(running: subprocess.Popen) -> None:
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said


def logs(project: Path) -> list[str]:
    return [path.read_text() for path in sorted(project.glob("results/logs/capture/words/*.log"))]


def test_two_captures_run_at_once_and_wait_for_devices_that_another_run_holds(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuids = [f"GPU-{uuid4()}" for _ in range(2)]
    around = environment(tmp_path / "bin", uuids)
    project = copy_of(finished, tmp_path / "project")
    write_config(project, lambda config: config["capture"].update(scatter=2))
    shutil.rmtree(project / "results/logs")
    with ExitStack() as others:
        for uuid in uuids:
            monkeypatch.setenv(gpu_lock.VISIBLE, uuid)
            monkeypatch.delenv(gpu_lock.JOB, raising=False)
            others.enter_context(gpu_lock.device())
        running = snakemake(project, around, *TARGETS)
        for _ in range(600):
            if sum(WAITS in log for log in logs(project)) == 2:
                break
            assert running.poll() is None, running.communicate()
            time.sleep(0.2)
        else:
            running.kill()
            pytest.fail(f"two captures should wait at once: {logs(project)}")
    finish(running)
    assert all((project / target).is_file() for target in TARGETS)
    for log in logs(project):
        assert any(f"uses GPU {uuid}, free after " in log for uuid in uuids)
    for uuid in uuids:
        (gpu_lock.LOCKS / f"outlier-features-{uuid}.lock").unlink()
