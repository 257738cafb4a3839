"""The kernels for a GPU, interpreted: they keep what NumPy computes, and compile for a GPU that is not there."""

import os
import subprocess
import sys

import numpy as np
import pytest
import reductions
import torch
from outlier_features.errors import ConfigError
from outlier_features.kernels import reference
from outlier_features.kernels.gpu import CudaReduction
from projects import PROJECT
from reductions import CASES, GRIDS, SHAPES, SMALL, activation, check

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs the kernels on the device")


@interpreted
@pytest.mark.parametrize(("kind", "dtype"), [case for case in CASES if case[1] == torch.bfloat16])
def test_everything_the_kernels_keep_is_that_of_numpy(kind: str, dtype: torch.dtype) -> None:
    check(reductions.reduced_by_kernels, activation(kind, (65, 33), dtype))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_everything_the_kernels_keep_is_that_of_numpy_in_any_shape(
    kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    check(reductions.reduced_by_kernels, activation(kind, shape, dtype))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["planted", "huge"])
def test_tiles_of_the_kernels_fit_together(kind: str, dtype: torch.dtype) -> None:
    def reduce(*arguments: object, **options: object) -> reference.Columns:
        return reductions.reduced_by_kernels(*arguments, tiles=SMALL, **options)

    check(reduce, activation(kind, (37, 41), dtype))


@interpreted
def test_more_massive_activations_than_the_kernels_have_room_for_are_an_error() -> None:
    x_TC = torch.zeros(3, 2000)
    x_TC[:, :600] = 200.0
    with pytest.raises(ConfigError, match="1800 massive activations, more than the 1024"):
        reductions.reduced_by_kernels(x_TC, GRIDS, medians=True)


@interpreted
def test_results_of_a_block_come_together() -> None:
    reduction = CudaReduction(torch.device("cpu"), GRIDS)
    parts = [activation("random", shape, torch.float32) for shape in ((6, 5), (4, 9))]
    kept = [torch.arange(7, dtype=torch.int16), torch.tensor([0.1, -1.0, 3e38])]
    begun = [reduction.site(parts[0]), *map(reduction.keep, kept), reduction.site(parts[1])]
    found = reduction.collect(begun)()
    for values in kept:
        np.testing.assert_array_equal(found.pop(1), values)
    for x_TC, columns in zip(parts, found, strict=True):
        np.testing.assert_array_equal(columns["first"], x_TC[0])
        assert columns["max"].shape == (x_TC.shape[1],)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_kernel_compiles_for_a_gpu_that_is_not_there(dtype: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = PROJECT / "tests/support/compiled_kernels.py"
    environment["PYTHONPATH"] = str(PROJECT / "workflow")
    command = [sys.executable, str(script), dtype]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    digits = {"bfloat16": 2, "float32": 4}[dtype]
    expected = ["moments", "finish", "row_medians", *["count_digit"] * (digits - 1), "massive", "spread"]
    assert [line.split()[0] for line in done.stdout.splitlines()] == expected
