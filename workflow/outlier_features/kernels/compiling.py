"""Compiling: what a capture runs on a CPU is compiled in the background, while it still imports and opens a model.

That takes ten seconds, once a checkout: Numba keeps what it compiled in the folder __pycache__ beside the source.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KERNELS = Path(__file__).with_name("cpu.py")
COMPILE = "import sys; from outlier_features.kernels.cpu import compile_for; compile_for(sys.argv[1])"


@contextmanager
def in_background(dtype: str, gpu: str | None = None, kernels: Path = KERNELS) -> Iterator[None]:
    """Let the kernels for activations of a type be compiled while the block runs, where they are not and no GPU is.

    Nobody waits for that: who needs a kernel before compiles it.
    """
    if gpu is not None or is_compiled(kernels):
        yield
        return
    environment = os.environ | {"PYTHONPATH": str(kernels.parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILE, dtype], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def is_compiled(kernels: Path = KERNELS) -> bool:
    """Return whether anything was compiled of the kernels as they are now."""
    kept = kernels.parent.glob(f"__pycache__/{kernels.stem}.*.nbi")
    return any(path.stat().st_mtime > kernels.stat().st_mtime for path in kept)
