r"""The reduction of one activation: bytes over time against the copy bandwidth of the device, and against torch.

PYTHONPATH=workflow python benchmarks/reduction.py

Every contestant reads an activation (positions x channels) and keeps what a capture keeps of it. GB/s are the bytes of
the activation, read once, over the time; a copy moves every byte twice, and its bandwidth counts both. On a GPU the
reductions are queued one behind the other and the device is timed; on a CPU the median of the calls counts.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import page
import torch
from outlier_features.capture.settings import Settings
from outlier_features.config.config import Config
from outlier_features.kernels import dispatch
from outlier_features.kernels.reference import Grids, Reached
from outlier_features.machine import devices

SPREAD = 0.03
"""The share of channels that are outlier features, of 10 times the magnitude of the others."""


def main() -> None:
    """Print the table, and write it where asked to."""
    options = _options()
    device = torch.device(options.device) if options.device else devices.best_device()
    config = Config.read(page.PROJECT / "config.yaml")
    grids = Settings.of(config.capture, config.counted_sites, config.coverages, options.dtype).grids
    names = options.contestants.split(",")
    rows = []
    for channels in options.channels:
        for positions in options.positions:
            x_TC = activation(positions, channels, getattr(torch, options.dtype), device)
            rows.append(measured(x_TC, grids, names, options.seconds))
            print(" | ".join(rows[-1]), flush=True)
    text = section(rows, names, device, options)
    print(text)
    if options.output:
        page.write(options.output, f"reduction-{device.type}", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=_numbers, default=[1024, 2048, 4096, 8192], metavar="N,N")
    parser.add_argument("--positions", type=_numbers, default=[2048, 8192, 32768], metavar="N,N")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", help="cuda or cpu; by default what is there")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS), help="some of %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to measure each")
    parser.add_argument("--output", type=Path, help="the page to write the table into, such as docs/benchmarks.md")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def activation(positions: int, channels: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a random activation (T, C) of RMS about 1, with outlier features."""
    generator = torch.Generator(device).manual_seed(0)
    x_TC = torch.randn(positions, channels, generator=generator, device=device)
    x_TC[:, :: round(1 / SPREAD)] *= 10
    return x_TC.to(dtype)


def measured(x_TC: torch.Tensor, grids: Grids, names: list[str], seconds: float) -> list[str]:
    """Return a row of the table."""
    target = torch.empty_like(x_TC)
    copied = 2 * x_TC.nbytes / lasting(lambda: target.copy_(x_TC), x_TC.device, seconds)
    row = [f"{x_TC.shape[1]}", f"{x_TC.shape[0]}", f"{copied / 1e9:.4g}"]
    for name in names:
        speed = x_TC.nbytes / lasting(CONTESTANTS[name](x_TC, grids), x_TC.device, seconds)
        row.append(f"{speed / 1e9:.4g} ({100 * speed / copied:.0f} %)")
    return row


def lasting(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of one call, where the calls follow each other for about `seconds`."""
    for _ in range(3):
        run()
    return statistics.median(_turns(run, device, seconds / 5))


def _turns(run: Callable[[], object], device: torch.device, seconds: float) -> Iterator[float]:
    calls = 1
    for turn in range(6):
        _wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        _wait(device)
        took = (time.perf_counter() - start) / calls
        if turn:
            yield took
        calls = max(1, min(1000, round(seconds / took)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(x_TC: torch.Tensor, grids: Grids) -> Callable[[], object]:
    """Return the reduction of a site whose hits are not counted."""
    reduction = dispatch.reduction(x_TC.device, grids)
    return lambda: reduction.site(x_TC)


def ours_with_hits(x_TC: torch.Tensor, grids: Grids) -> Callable[[], object]:
    """Return the reduction of a site whose hits are counted."""
    reduction = dispatch.reduction(x_TC.device, grids)
    reached = Reached.nothing(*x_TC.shape, x_TC.device)
    return lambda: reduction.site(x_TC, reached)


def ours_with_medians(x_TC: torch.Tensor, grids: Grids) -> Callable[[], object]:
    """Return the reduction of a hidden state, with medians."""
    reduction = dispatch.reduction(x_TC.device, grids)
    return lambda: reduction.site(x_TC, medians=True)


def eager(x_TC: torch.Tensor, grids: Grids) -> Callable[[], object]:
    """Return the same sums and extremes, without hits and medians, as plain torch operations in float32."""
    return lambda: plain(x_TC)


def compiled(x_TC: torch.Tensor, grids: Grids) -> Callable[[], object]:
    """Return `eager` through torch.compile."""
    run = torch.compile(plain, dynamic=False)
    return lambda: run(x_TC)


def plain(x_TC: torch.Tensor) -> list[torch.Tensor]:
    """Return sums and extremes per channel and position, and how many values are NaN or infinite."""
    value_TC = x_TC.float()
    square_TC = value_TC * value_TC
    fourth_TC = square_TC * square_TC
    rest, largest_T = slice(1, None), value_TC.abs().max(1)
    return [
        value_TC[0], value_TC[rest].amax(0), value_TC[rest].amin(0),
        value_TC[rest].sum(0), square_TC[rest].sum(0), fourth_TC[rest].sum(0),
        value_TC.sum(1), square_TC.sum(1), fourth_TC.sum(1), (square_TC * value_TC).sum(),
        largest_T.values, largest_T.indices, value_TC.isnan().sum(), value_TC.isinf().sum(),
    ]  # fmt: skip


CONTESTANTS = {
    "ours": ours,
    "hits": ours_with_hits,
    "medians": ours_with_medians,
    "eager": eager,
    "compiled": compiled,
}


def section(rows: list[list[str]], names: list[str], device: torch.device, options: argparse.Namespace) -> str:
    """Return the section of docs/benchmarks.md."""
    where = page.describe(page.machine())
    heading = f"## Reduction on {'a GPU' if device.type == 'cuda' else 'a CPU'}"
    flags = f"--channels {_listed(options.channels)} --positions {_listed(options.positions)} --dtype {options.dtype}"
    command = f"`PYTHONPATH=workflow python benchmarks/reduction.py {flags}`"
    header = ["channels", "positions", "copy GB/s", *(f"{name} GB/s (of copy)" for name in names)]
    return (
        f"{heading}\n\n{devices.name(device)}; {where}; torch {torch.__version__}, {torch.get_num_threads()} threads:\n"
        f"{command}\n\n{page.table(header, rows)}\n\n"
        "*ours*: everything kept of a site whose hits are not counted; *hits*, *medians*: with these; *eager* and\n"
        "*compiled* (torch.compile): sums and extremes only, in float32. The reduction of a CPU has one thread."
    )


def _listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


if __name__ == "__main__":
    main()
