"""GPU lock: one job a GPU. A process holds the lock of the device it uses, and the lock goes when the process does.

Snakemake counts GPUs but does not say which one a job gets. So each job takes one that no other holds, whoever started
it on this machine, and sees that one alone from then on. No result depends on which. docs/decisions/0010 says why so.
"""

import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from outlier_features.errors import ConfigError

VISIBLE, SHARING, JOB = "CUDA_VISIBLE_DEVICES", "OUTLIER_FEATURES_JOBS_PER_GPU", "SLURM_JOB_ID"
LOCKS = Path("/tmp")
"""Where locks lie: one place for every user of the machine, whatever TMPDIR says."""
PERIOD = 1.0
"""Seconds between two tries while every device is taken."""


@contextmanager
def device(locks: Path = LOCKS) -> Iterator[str | None]:
    """Hold one of the GPUs this process may use, waiting for one to be free; yield its identity, None without a GPU.

    CUDA_VISIBLE_DEVICES says which may be used, and inside names the one that is held; enter before CUDA is in use.
    OUTLIER_FEATURES_JOBS_PER_GPU says with how many jobs it is shared, those which say so too; 1 by default.
    Raises ConfigError where that is no number.
    """
    found = candidates(os.environ, installed())
    if not found:
        yield None
        return
    before = os.environ.get(VISIBLE)
    with _any_of(found, _sharing(os.environ), locks, os.environ.get(JOB)) as held:
        os.environ[VISIBLE] = held
        try:
            yield held
        finally:
            os.environ.pop(VISIBLE)
            os.environ.update({} if before is None else {VISIBLE: before})


def installed() -> list[list[str]]:
    """Return the UUIDs of this machine's GPUs in the order of nvidia-smi; of one in MIG mode, those of its instances.

    Each entry holds the GPU's own UUID first. Empty where nvidia-smi is missing or finds none.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    found: list[list[str]] = []
    for kind, uuid in re.findall(r"^\s*(GPU|MIG) .*\(UUID: (\S+)\)", listed, re.MULTILINE):
        if kind == "GPU":
            found.append([uuid])
        else:
            found[-1].append(uuid)
    return found


def candidates(environment: Mapping[str, str], gpus: Sequence[Sequence[str]]) -> list[str]:
    """Return the devices a process may use, as CUDA reads its environment: by UUID where that is known.

    Indices are those of nvidia-smi. Like CUDA, stop at the first that does not exist.
    """
    if VISIBLE not in environment:
        return [uuid for own, *instances in gpus for uuid in instances or [own]]
    found: list[str] = []
    for name in filter(None, map(str.strip, environment[VISIBLE].split(","))):
        identity = _identity(name, gpus)
        if identity is None or identity in found:
            break
        found.append(identity)
    return found


def _identity(name: str, gpus: Sequence[Sequence[str]]) -> str | None:
    """Return the UUID of what CUDA_VISIBLE_DEVICES calls `name`, the name where none is known, None for no device."""
    if re.fullmatch(r"-\d+|NoDevFiles", name):
        return None
    if name.isdecimal():
        if not gpus:
            return name
        return _first_usable(gpus[int(name)]) if int(name) < len(gpus) else None
    owners = [gpu for gpu in gpus if gpu[0].startswith(name)]
    return _first_usable(owners[0]) if len(owners) == 1 else name


def _first_usable(gpu: Sequence[str]) -> str:
    """Return the UUID of what CUDA uses of a GPU: in MIG mode its first instance, else itself."""
    return gpu[1] if len(gpu) > 1 else gpu[0]


def _sharing(environment: Mapping[str, str]) -> int:
    value = environment.get(SHARING, "1")
    if not re.fullmatch(r"[1-9]\d*", value):
        raise ConfigError(f"{SHARING} is {value!r}; give the number of jobs that may share a GPU, 1 by default")
    return int(value)


@contextmanager
def _any_of(found: Sequence[str], sharing: int, locks: Path, job: str | None) -> Iterator[str]:
    """Hold the first device that is free."""
    started, has_waited = time.monotonic(), False
    while True:
        for identity in found:
            with ExitStack() as stack:
                if _take(stack, _lock_file(locks, identity, job), sharing):
                    waited = f", free after {time.monotonic() - started:.0f} s of waiting" if has_waited else ""
                    print(f"uses GPU {identity}{waited}", flush=True)
                    yield identity
                    return
        if not has_waited:
            names = ", ".join(str(_lock_file(locks, identity, job)) for identity in found)
            print(f"every GPU is taken by another job; waiting until one lets go of {names}", flush=True)
            has_waited = True
        time.sleep(PERIOD)


def _lock_file(locks: Path, identity: str, job: str | None) -> Path:
    """Return the lock of a device. What a scheduler gave to one of its jobs, only that job shares out."""
    owner = "" if job is None else f"{job}-"
    return locks / f"outlier-features-{owner}{re.sub(r'[^A-Za-z0-9-]', '_', identity)}.lock"


def _take(stack: ExitStack, path: Path, sharing: int) -> bool:
    """Take a device for one job alone, or one of the places of those who share it. False where it is taken."""
    if sharing == 1:
        return _flock(stack, path, fcntl.LOCK_EX)
    for place in range(1, sharing + 1):
        with ExitStack() as tried:
            if _flock(tried, path.with_suffix(f".{place}.lock"), fcntl.LOCK_EX):
                if not _flock(tried, path, fcntl.LOCK_SH):
                    return False
                stack.push(tried.pop_all())
                return True
    return False


def _flock(stack: ExitStack, path: Path, kind: int) -> bool:
    """Lock a file until the stack is left, if that can be done at once."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    stack.callback(os.close, descriptor)
    return True


def _open(path: Path) -> int:
    """Open a lock file, made if it is missing, so that every user can: it appears readable for all, and for ever.

    Not with O_CREAT, which the kernel refuses for another user's file in a directory like /tmp.
    """
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as new:
            os.fchmod(new.fileno(), 0o444)
            with suppress(FileExistsError):
                os.link(new.name, path)
