"""Debian packages that tests need, installed by one process at a time: apt does not wait for another one."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "outlier-features-apt.lock"


def install(*packages: str) -> str | None:
    """Install packages; return why that is not possible here, None where it was done."""
    if os.geteuid() or shutil.which("apt-get") is None:
        return f"{' and '.join(packages)} can be installed by root with apt-get only"
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    wanted = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (wanted, ["apt-get", "update"], wanted):  # the lists may be there, or be old
            ended = subprocess.run(command, env=quiet, capture_output=True, text=True)
            if command is wanted and ended.returncode == 0:
                return None
    return f"{' and '.join(packages)} cannot be installed here: {ended.stderr.strip().splitlines()[-1:]}"
