"""Forks: processes that cost no imports, all forked from one that has them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]

LOOP = """
import json, os, sys, traceback

for line in sys.stdin:
    order = json.loads(line)
    if "ended" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["ended"], 0)[1]), flush=True)
    elif started := os.fork():
        print(started, flush=True)
    else:
        status = 0
        try:
            carry_out(**order)
        except BaseException as error:
            status = error.code if isinstance(error, SystemExit) else traceback.print_exc() or 2
        sys.stdout.flush()
        os._exit(status)  # an ordinary exit would tidy up what was imported, for two seconds
os._exit(0)
"""
"""Runs each order in a process of its own: of an order it prints the process id, and when asked for its end, the exit
status."""


class Forks:
    """The process that is forked from, and those that were."""

    def __init__(self, client: str, **variables: str) -> None:
        """Prepare a process that runs the source `client`, which imports what is needed and defines `carry_out`."""
        self._client = client
        paths = os.pathsep.join((str(REPOSITORY / "workflow"), str(REPOSITORY / "tests")))
        self._environment = {**os.environ, "PYTHONPATH": paths, **variables}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._client + LOOP],
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)

    def order(self, **order: Any) -> int:
        """Return the id of the process that carries out an order."""
        return self._answer(order)

    def status(self, process: int) -> int:
        """Return the exit status of a process when it has ended."""
        return self._answer({"ended": process})

    def _answer(self, order: dict[str, Any]) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())
