"""A real Slurm of one machine: two nodes, each with a pretend GPU, on loopback, for as long as it is needed.

By hand: python tests/support/slurm.py COMMAND... starts it, runs the command, prints the jobs and stops it. It needs
root on Debian and installs slurm-wlm where that is missing. The configuration has to lie in /etc/slurm, because what
runs inside a job is told of no other place; a mount namespace gives this cluster an /etc/slurm of its own, so that a
Slurm of the machine is not touched and nothing is left behind.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import debian

ETC = Path("/etc/slurm")
NODES = ("node1", "node2")
PR_SET_PDEATHSIG = 1
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "nsenter")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=256
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=3600
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
PartitionName=gpu Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=8000 Gres=gpu:1\n"


class Unavailable(Exception):
    """A Slurm cannot be started on this machine; the text is the reason."""


class Slurm:
    """A running cluster: its nodes, its controller and what it says of its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._inside: list[str] = []

    def start(self) -> None:
        """Start everything and return when both nodes are idle."""
        self._enter()
        munge = ["--foreground", "--force", f"--key-file={self.folder}/munge.key"]
        munge += [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "seed-file")]
        self._run("munged", *munge, f"--log-file={self.folder}/munged.log")
        _wait("the key service", (self.folder / "munge.socket").exists)
        self.start_controller()
        for node in NODES:
            self._run("slurmd", "-D", "-N", node)
        _wait("idle nodes", lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES))

    def start_controller(self) -> None:
        """Start the controller; jobs that were there are known again."""
        self._run("slurmctld", "-D")

    def stop_controller(self) -> None:
        """Stop the controller; jobs go on running."""
        _end(self._daemons.pop("slurmctld"))

    def stop(self) -> None:
        """Cancel every job and stop everything."""
        if "slurmctld" in self._daemons:
            with suppress(subprocess.TimeoutExpired, TimeoutError):
                self.ask("scancel", "--user=root")
                _wait("jobs to end", lambda: not self.ask("squeue", "-h"), 20)
        for name in reversed(list(self._daemons)):
            _end(self._daemons.pop(name))

    def command(self, *command: str, where: Path = Path("/")) -> list[str]:
        """Return a command as it has to be run to see this cluster, in the directory `where`."""
        return [*self._inside, f"--wdns={where}", "--", *command]

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints; nothing where the controller does not answer."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, timeout=60).stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """Return every job so far, in the order they were submitted, as Slurm tells of it."""
        shown = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown]
        return sorted((job for job in found if "JobId" in job), key=lambda job: int(job["JobId"]))

    def jobs_of(self, comment: str) -> list[dict[str, str]]:
        """Return the jobs whose comment, the rule and its wildcards, begins so."""
        return [job for job in self.jobs() if job.get("Comment", "").startswith(comment)]

    def table(self) -> str:
        """Return the jobs as people read them."""
        keys = ("JobId", "Comment", "JobState", "Reason", "RunTime", "NodeList", "MinMemoryNode", "TimeLimit")
        rows = [[*keys, "GPUs"]]
        rows += [[*(job.get(key, "") for key in keys), job.get("TresPerJob", "")] for job in self.jobs()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(" ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _enter(self) -> None:
        """Make the mount namespace in which /etc/slurm is that of this cluster."""
        script = f"mount --bind {self.folder}/etc {ETC} && touch {self.folder}/mounted && exec sleep infinity"
        self._run("unshare", "--mount", "sh", "-c", script)
        try:
            _wait(f"a mount over {ETC}", (self.folder / "mounted").exists, 10)
        except TimeoutError:
            raise Unavailable(f"{ETC} cannot be mounted over here") from None
        self._inside = ["nsenter", f"--target={self._daemons['unshare'].pid}", "--mount"]

    def _run(self, *command: str) -> None:
        name = " ".join(command) if "-N" in command else command[0]
        environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
        entered = self.command(*command) if self._inside else command
        with (self.folder / f"{command[0]}.out").open("ab") as said:
            self._daemons[name] = subprocess.Popen(
                entered, stdout=said, stderr=said, env=environment, preexec_fn=_end_with_parent
            )


@contextmanager
def running() -> Iterator[Slurm]:
    """Start a cluster and stop it afterwards, whatever happens. Raises Unavailable with the reason."""
    _install()
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        slurm = Slurm(Path(name))
        try:
            _configure(slurm.folder)
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


def _install() -> None:
    if os.geteuid():
        raise Unavailable("a Slurm is started as root only")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if all(shutil.which(program, path=path) for program in PROGRAMS):
        return
    if reason := debian.install("slurm-wlm", "munge"):
        raise Unavailable(f"there is no Slurm here, and {reason}")


def _configure(folder: Path) -> None:
    """Write the configuration of a cluster, its key and its devices."""
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "etc").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    controller_port, *ports = _free_ports(1 + len(NODES))
    lines = [CONFIGURATION.format(host=host, folder=folder, controller_port=controller_port)]
    for name, port in zip(NODES, ports, strict=True):
        lines.append(NODE.format(name=name, host=host, port=port, cpus=os.cpu_count()))
    (folder / "etc/slurm.conf").write_text("".join(lines))
    devices = [f"NodeName={name} Name=gpu File={_device(folder / name)}\n" for name in NODES]
    (folder / "etc/gres.conf").write_text("".join(devices))


def _device(path: Path) -> Path:
    """Make what Slurm takes for a GPU: /dev/null by another name."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError as error:
        raise Unavailable(f"a pretend GPU cannot be made here: {error}") from error
    return path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _end_with_parent() -> None:
    """Let the process end with the one that started it, also where that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(15)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _wait(what: str, condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} seconds for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    with running() as cluster:
        status = subprocess.run(cluster.command(*sys.argv[1:], where=Path.cwd())).returncode
        print(cluster.table())
    sys.exit(status)
