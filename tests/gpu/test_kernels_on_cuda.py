"""On a device: the kernels against float64 NumPy, against the CPU, twice the same bits, and no wait for the device."""

import numpy as np
import pytest
import reductions
import torch
from outlier_features.kernels.gpu import CudaReduction
from outlier_features.kernels.reference import Reached
from reductions import CASES, GRIDS, SHAPES, activation, check, check_equal, reduced_by_kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LARGE = [(2048, 4096), (513, 5000), (4096, 8192)]


@pytest.mark.parametrize("shape", SHAPES + LARGE)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_everything_kept_is_that_of_numpy(kind: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    check(reduced_by_kernels, activation(kind, shape, dtype).cuda())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_device_keeps_what_a_cpu_keeps(dtype: torch.dtype) -> None:
    x_TC = activation("planted", (700, 1000), dtype)
    found = reduced_by_kernels(x_TC.cuda(), GRIDS, Reached.nothing(700, 1000, torch.device("cuda")), medians=True)
    expected = reductions.reduced_on_cpu(x_TC, GRIDS, Reached.nothing(700, 1000, x_TC.device), medians=True)
    for name, value in expected.items():
        if name.startswith("rms_hit"):
            continue  # a value on a threshold can fall to either side of it with the last bit of the RMS
        np.testing.assert_allclose(found[name], value, rtol=3e-5, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ten_runs_give_the_same_bits(dtype: torch.dtype) -> None:
    x_TC = activation("planted", (2048, 2048), dtype).cuda()
    first, *others = (
        reduced_by_kernels(x_TC, GRIDS, Reached.nothing(*x_TC.shape, x_TC.device), medians=True) for _ in range(10)
    )
    for other in others:
        check_equal(other, first)


def test_nothing_waits_for_the_device_until_results_are_read() -> None:
    reduction = CudaReduction(torch.device("cuda"), GRIDS)
    x_TC = activation("planted", (512, 1024), torch.bfloat16).cuda()
    reached = Reached.nothing(512, 1024, x_TC.device)
    choices = torch.zeros(512, dtype=torch.int16, device="cuda")
    reduction.site(x_TC, reached, medians=True)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        read = reduction.collect([reduction.site(x_TC, reached, medians=True), reduction.keep(choices)])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    columns, kept = read()
    assert columns["rms"] > 0
    assert len(kept) == 512
