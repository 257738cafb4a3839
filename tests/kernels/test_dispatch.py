"""Dispatch: the device chooses the reduction."""

import torch
from outlier_features.kernels import dispatch
from outlier_features.kernels.cpu import CpuReduction
from outlier_features.kernels.gpu import CudaReduction
from reductions import GRIDS


def test_the_device_chooses() -> None:
    assert isinstance(dispatch.reduction(torch.device("cpu"), GRIDS), CpuReduction)
    assert isinstance(dispatch.reduction(torch.device("cuda"), GRIDS), CudaReduction)
