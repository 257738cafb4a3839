"""Which GPU a job gets: real processes and real locks; only the devices are pretended, by an nvidia-smi of our own."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from outlier_features.artefacts.code_hash import sources
from outlier_features.artefacts.lineage import SCRIPTS
from outlier_features.errors import ConfigError
from outlier_features.machine import gpu_lock

WORKFLOW = Path(__file__).parents[2] / "workflow"
GPUS = [["GPU-aaaa-1"], ["GPU-bbbb-2"]]
WITH_INSTANCES = [["GPU-aaaa-1", "MIG-11", "MIG-12"], ["GPU-bbbb-2"]]
HOLD = """
import os, sys
from pathlib import Path
from outlier_features.machine import gpu_lock
gpu_lock.PERIOD = 0.02
os.setuid(int(os.environ.get("USER_ID", os.getuid())))
with gpu_lock.device(Path(sys.argv[1])) as held:
    print("holds", held, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    sys.stdin.readline()
"""


class Job:
    """A process that holds a device until it is told to end."""

    def __init__(self, locks: Path, environment: dict[str, str]) -> None:
        """Start."""
        command = [sys.executable, "-c", HOLD, str(locks)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def said(self) -> str:
        """Return its next line, but for the device it took at once; empty where it says nothing for long."""
        timer = threading.Timer(30, self.process.kill)
        timer.start()
        line = self.process.stdout.readline().strip()
        timer.cancel()
        return line if not line.startswith("uses GPU") or "free after" in line else self.said()

    def end(self) -> None:
        """Let it end by itself."""
        self.process.communicate("\n", timeout=30)

    def kill(self) -> None:
        """Kill it, as the kernel does where memory runs out."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start jobs on a machine of two GPUs; a job's environment is what is given."""
    (tmp_path / "locks").mkdir()
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    lines = "\n".join(f"GPU {i}: NVIDIA H200 (UUID: {gpu[0]})" for i, gpu in enumerate(GPUS))
    tool.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    tool.chmod(0o755)
    drop = (gpu_lock.VISIBLE, gpu_lock.SHARING, gpu_lock.JOB)
    base = {name: value for name, value in os.environ.items() if name not in drop}
    base |= {"PATH": f"{tool.parent}:{os.environ['PATH']}", "PYTHONPATH": str(WORKFLOW)}
    with ExitStack() as jobs:

        def started(**environment: str) -> Job:
            job = Job(tmp_path / "locks", base | environment)
            jobs.callback(job.kill)
            return job

        yield started


def test_two_jobs_get_two_devices_and_a_third_waits_and_says_so(start: Start) -> None:
    first, second = start(), start()
    assert {first.said(), second.said()} == {f"holds {gpu} {gpu}" for (gpu,) in GPUS}
    third = start()
    assert third.said().startswith("every GPU is taken by another job; waiting until one lets go of ")
    second.end()
    assert ", free after " in third.said()
    assert third.said().startswith("holds GPU-")


def test_a_killed_job_frees_its_device(start: Start) -> None:
    first = start(CUDA_VISIBLE_DEVICES="1")
    assert first.said() == "holds GPU-bbbb-2 GPU-bbbb-2"
    second = start(CUDA_VISIBLE_DEVICES="1")
    assert second.said().startswith("every GPU is taken")
    first.kill()
    assert second.said().startswith("uses GPU GPU-bbbb-2, free after")
    assert second.said() == "holds GPU-bbbb-2 GPU-bbbb-2"


def test_a_device_is_the_same_by_index_and_by_uuid(start: Start) -> None:
    assert start(CUDA_VISIBLE_DEVICES="1").said().startswith("holds GPU-bbbb-2")
    assert start(CUDA_VISIBLE_DEVICES="GPU-bbbb-2").said().startswith("every GPU is taken")


def test_jobs_that_ask_to_share_a_device_do_and_others_do_not_join_them(start: Start) -> None:
    sharing = {"CUDA_VISIBLE_DEVICES": "0", "OUTLIER_FEATURES_JOBS_PER_GPU": "2"}
    first, second = start(**sharing), start(**sharing)
    assert first.said() == second.said() == "holds GPU-aaaa-1 GPU-aaaa-1"
    assert start(**sharing).said().startswith("every GPU is taken")
    alone = start(CUDA_VISIBLE_DEVICES="0")
    assert alone.said().startswith("every GPU is taken")
    first.end()
    second.end()


def test_a_job_that_shares_does_not_join_one_that_does_not(start: Start) -> None:
    assert start(CUDA_VISIBLE_DEVICES="0").said().startswith("holds")
    assert start(CUDA_VISIBLE_DEVICES="0", OUTLIER_FEATURES_JOBS_PER_GPU="2").said().startswith("every GPU is taken")


def test_two_jobs_of_slurm_never_wait_for_each_other_but_processes_of_one_do(start: Start) -> None:
    first = start(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7")
    assert first.said().startswith("holds")
    assert start(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="8").said().startswith("holds")
    assert start(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID="7").said().startswith("every GPU is taken")


def test_without_a_gpu_nothing_is_locked_and_nothing_waits(start: Start, tmp_path: Path) -> None:
    assert start(CUDA_VISIBLE_DEVICES="").said() == "holds None"
    assert start(PATH="/nowhere").said() == "holds None None"
    assert list((tmp_path / "locks").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("users", [("0", "65534"), ("65534", "0"), ("65534", "65533")])
def test_a_job_of_another_user_waits_too(start: Start, tmp_path: Path, users: tuple[str, str]) -> None:
    locks = tmp_path / "locks"
    locks.chmod(0o1777)  # as /tmp is
    for folder in tmp_path.parents[: tmp_path.parents.index(Path(tempfile.gettempdir()))]:
        folder.chmod(0o711)
    tmp_path.chmod(0o711)
    previous = os.umask(0o077)
    try:
        first = start(CUDA_VISIBLE_DEVICES="GPU-aaaa-1", USER_ID=users[0])
        assert first.said().startswith("holds GPU-aaaa-1")
        second = start(CUDA_VISIBLE_DEVICES="GPU-aaaa-1", USER_ID=users[1])
        assert second.said().startswith("every GPU is taken")
    finally:
        os.umask(previous)
    first.kill()
    assert second.said().startswith("uses GPU GPU-aaaa-1, free after")


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [
        (None, GPUS, ["GPU-aaaa-1", "GPU-bbbb-2"]),
        (None, [], []),
        ("", GPUS, []),
        ("-1", GPUS, []),
        ("1,0", GPUS, ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ("1, -1, 0", GPUS, ["GPU-bbbb-2"]),
        ("0,2,1", GPUS, ["GPU-aaaa-1"]),
        ("GPU-bb", GPUS, ["GPU-bbbb-2"]),
        ("GPU-cccc-3", GPUS, ["GPU-cccc-3"]),
        ("0,1", [], ["0", "1"]),
        (None, WITH_INSTANCES, ["MIG-11", "MIG-12", "GPU-bbbb-2"]),
        ("0", WITH_INSTANCES, ["MIG-11"]),
        ("MIG-12", WITH_INSTANCES, ["MIG-12"]),
        ("MIG-GPU-aaaa-1/7/0", WITH_INSTANCES, ["MIG-GPU-aaaa-1/7/0"]),
    ],
)
def test_candidates_are_what_cuda_would_show(visible: str | None, gpus: list[list[str]], expected: list[str]) -> None:
    environment = {} if visible is None else {gpu_lock.VISIBLE: visible}
    assert gpu_lock.candidates(environment, gpus) == expected


def test_instances_belong_to_the_gpu_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-1)'\n"
        "echo '  MIG 1g.5gb     Device  0: (UUID: MIG-11)'\n"
        "echo '  MIG 1g.5gb     Device  1: (UUID: MIG-12)'\n"
        "echo 'GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-2)'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_lock.installed() == WITH_INSTANCES


@pytest.mark.parametrize("value", ["0", "-1", "many", ""])
def test_a_number_of_jobs_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(gpu_lock.VISIBLE, "0")
    monkeypatch.setenv(gpu_lock.SHARING, value)
    with (
        pytest.raises(ConfigError, match=r"OUTLIER_FEATURES_JOBS_PER_GPU is .*give the number of jobs"),
        gpu_lock.device(tmp_path),
    ):
        pass


def test_every_script_whose_rule_asks_for_a_gpu_takes_one_and_no_lineage_follows_from_which() -> None:
    for script in SCRIPTS.glob("*.py"):
        takes = "gpu_lock.device()" in script.read_text(encoding="utf-8")
        rules = (WORKFLOW / "rules").glob("*.smk")
        asks = any("gpu=1" in r.read_text() and f"scripts/{script.name}" in r.read_text() for r in rules)
        assert takes == asks, script
        assert not any(path.stem == "gpu_lock" for path in sources(script))
