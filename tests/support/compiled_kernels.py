"""Compile the kernels for a GPU that is not there, as their launches would. Run as a script."""

import sys

import torch
from outlier_features.kernels.gpu import CudaReduction, Tiles
from outlier_features.kernels.reference import Grids, Reached
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Absent:
    """A driver that knows its target and can run nothing."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only() -> None:
    """Let every launch compile its kernel and stop there."""
    launch = JITFunction.run

    def run(self: JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> object:
        compiled = launch(self, *args, grid=grid, warmup=True, **options)
        print(self.__name__, len(compiled.asm["cubin"]), compiled.metadata.shared)
        return compiled

    JITFunction.run = run
    driver.set_active(Absent())


def main() -> None:
    """Reduce an activation of the type named on the command line, as far as the launches."""
    compile_only()
    x_TC = torch.zeros(40, 1024, dtype=getattr(torch, sys.argv[1]))
    reduction = CudaReduction(torch.device("cpu"), Grids((3.0, 6.0), (3.0, 6.0)), Tiles())
    reduction.site(x_TC, Reached.nothing(*x_TC.shape, x_TC.device), medians=True, spread=True)


if __name__ == "__main__":
    main()
