"""Runs of Snakemake in small projects: in processes of their own, or forked from one that has what they import."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forks import Forks

ONE_DEVICE = ("--cores", "1", "--resources", "gpu=1")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TERM": "dumb"}

Ended = subprocess.CompletedProcess[str]


def snakemake(project: Path, *arguments: str, amounts: tuple[str, ...] = ONE_DEVICE) -> Ended:
    """Run Snakemake as people do; every job is a process that imports what it needs."""
    command = [sys.executable, "-m", "snakemake", *arguments, *amounts]
    return subprocess.run(command, cwd=project, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)


def planned(ended: Ended) -> dict[str, int]:
    """Return how many jobs of each rule a dry run plans."""
    text = ended.stdout + ended.stderr
    assert ended.returncode == 0, text
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0].splitlines()[3:]
    return {rule: int(count) for rule, count in (line.split() for line in table if line.strip()) if rule != "all"}


CLIENT = """
import array, json, os, runpy, select, signal, socket, sys, traceback

sys.path[:] = [path for path in sys.path if path]  # jobs find the library as in a process of their own, by its path
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, numba, pandas, pyarrow.parquet, pydantic
import safetensors.torch, scipy.stats, seaborn, snakemake.cli, tokenizers, torch, torch.distributed.tensor, tqdm
import transformers.masking_utils, transformers.modeling_utils, transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto

assert "outlier_features" not in sys.modules


def carry_out(arguments, folder, said):
    take_over(folder, dict(os.environ), [os.open(os.devnull, os.O_RDONLY), *map(create, said)])
    sys.argv, sys.executable = ["snakemake", *arguments], python
    snakemake.cli.main(arguments)


def create(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT)


def take_over(folder, environment, descriptors):
    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def answer(connection):
    # A script of a job: do what Python would, with the streams, folder and environment of the process that asks.
    message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    order, status = json.loads(message), 0
    take_over(order["folder"], order["environment"], descriptors)
    sys.argv = order["arguments"]
    sys.path[:0] = [os.path.dirname(sys.argv[0]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(str(status).encode())
    os._exit(0)


def serve(listening, parent):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while parent not in (ready := select.select([listening, parent], [], [])[0]):
        connection, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
        connection.close()
    os._exit(0)


listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listening.bind(address)
listening.listen(64)
parent, alive = os.pipe()
if os.fork() == 0:
    os.close(alive)
    serve(listening, parent)
os.close(parent)
listening.close()
"""
"""Beside the process that runs of Snakemake are forked from waits one that scripts of their jobs are forked from."""

PYTHON = """#!{executable} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({address!r})
order = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
os._exit(int(server.recv(16) or 1))
"""
"""What jobs take for Python."""


class Workflows(Forks):
    """Starts runs of Snakemake, whose jobs are forks as well; no process imports anything but this project."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """Prepare runs in an `environment`, by default this process's without a hub; `directory` is theirs."""
        address, python = str(directory / "socket"), directory / "python"
        python.write_text(PYTHON.format(executable=sys.executable, address=address))
        python.chmod(0o755)
        client = f"address, python = {address!r}, {str(python)!r}\n{CLIENT}"
        super().__init__(client)
        self._environment = {**(environment or os.environ | OFFLINE), "PYTHONPATH": ""}
        self._directory, self._count = directory, 0

    def snakemake(self, project: Path, *arguments: str, amounts: tuple[str, ...] = ONE_DEVICE) -> Ended:
        """Run Snakemake to the end."""
        self._count += 1
        said = [self._directory / f"{self._count}.{stream}" for stream in ("out", "err")]
        order: Mapping[str, Any] = {"arguments": [*arguments, *amounts], "folder": str(project)}
        process = self.order(**order, said=list(map(str, said)))
        status = self.status(process)
        return subprocess.CompletedProcess(list(arguments), status, *(path.read_text() for path in said))

    def plan(self, project: Path, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule are planned."""
        return planned(self.snakemake(project, "-n", *arguments))
