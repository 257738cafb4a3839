"""The kernels for a CPU are compiled beside, once, and not where a GPU computes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outlier_features.kernels.compiling import in_background, is_compiled
from projects import PROJECT

MISSES = """
from outlier_features.kernels import cpu
cpu.compile_for("float32")
used = [getattr(cpu, name) for name in ("_moments", "_hits", "filled", "_row_medians", "_flat_medians")]
print([sum(kernel.stats.cache_misses.values()) for kernel in used])
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """The kernels of a copy of the library in which nothing was compiled."""
    library = PROJECT / "workflow/outlier_features"
    shutil.copytree(library, tmp_path / library.name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / library.name / "kernels/cpu.py"


@pytest.mark.slow
def test_a_process_beside_compiles_what_a_capture_then_only_loads(kernels: Path) -> None:
    cache = kernels.parent / "__pycache__"
    with in_background("float32", kernels=kernels):
        end = time.monotonic() + 300
        while not list(cache.glob("*._flat_medians-*.nbc")):
            assert time.monotonic() < end, "nothing is compiled"
            time.sleep(0.1)
    assert is_compiled(kernels)
    command = [sys.executable, "-c", MISSES]
    environment = os.environ | {"PYTHONPATH": str(kernels.parents[2])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[0, 0, 0, 0, 0]"


def test_nothing_is_compiled_for_a_gpu_and_an_edit_makes_what_was_compiled_old(kernels: Path) -> None:
    with in_background("float32", "GPU-1", kernels):
        assert not is_compiled(kernels)
    index = kernels.parent / "__pycache__/cpu._moments-1.py311.nbi"
    index.parent.mkdir()
    index.touch()
    assert is_compiled(kernels)
    later = index.stat().st_mtime + 1
    os.utime(kernels, (later, later))
    assert not is_compiled(kernels)
