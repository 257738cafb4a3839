r"""What observing costs: a capture against the same engine with nothing observed, in turns, and the capture's memory.

PYTHONPATH=workflow python benchmarks/overhead.py qwen3-0.6b qwen3-8b qwen3-30b-a3b
PYTHONPATH=workflow python benchmarks/overhead.py \
    results/checkpoints/smollm2-135m:results/sotu/tokens/smollm2-135m.arrow

A model is the name of an architecture, run with random weights and tokens, or a checkpoint and its windows.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import inputs
import page
import torch
from outlier_features.capture import engine
from outlier_features.capture.run import Settings, capture
from outlier_features.capture.scores import token_losses
from outlier_features.config.config import Config
from outlier_features.machine import devices, memory
from outlier_features.models.weights import Weights
from outlier_features.site_names import SITES
from outlier_features.statistics.shards import Statistics
from outlier_features.text.windows import read_windows

HEADER = [
    "model", "windows", "dtype", "engine s", "capture s", "ratio (range of rounds)", "CPU time ratio", "peak GB",
    "statistics MB", "of the activations",
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A model to observe, its windows, and how."""

    checkpoint: Path
    tokens: Path
    settings: Settings


class Nothing:
    """An observer that observes nothing."""

    def begin(self, block: int, reading: object) -> None:
        """Do nothing."""

    def turn(self, block: int, variant: int) -> None:
        """Do nothing."""

    def enter(self, block: int, window: int) -> None:
        """Do nothing."""

    def passed(self, block: int, window: int) -> None:
        """Do nothing."""

    def leave(self, block: int, outputs: object) -> None:
        """Do nothing."""


def plain(subject: Subject) -> None:
    """Run the engine over the windows and keep only the losses."""
    ids = [torch.from_numpy(row).long() for row in read_windows(subject.tokens).ids_ST]
    weights = Weights(subject.checkpoint, subject.settings.dtype, devices.best_device())
    found = engine.run(weights, ids, lambda index, logits: token_losses(logits, ids[index]), Nothing())
    torch.cat(found).cpu()  # waits for a device


def observed(subject: Subject) -> None:
    """Capture into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        capture(subject.checkpoint, subject.tokens, Path(folder) / "statistics.json", subject.settings, {})


def sizes(subject: Subject) -> tuple[int, int]:
    """Capture; return the bytes of the statistics, and of the activations they stand for."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "statistics.json"
        capture(subject.checkpoint, subject.tokens, manifest, subject.settings, {})
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.arrow"))
        return size, activations(Statistics([manifest])) * subject.settings.dtype.itemsize


def main() -> None:
    """Print the table, and write it where asked to."""
    options = _options()
    config = Config.read(page.PROJECT / "config.yaml")
    settings = Settings.of(config.capture, config.counted_sites, config.coverages, options.dtype)
    if options.memory_only:
        observed(Subject(*map(Path, options.models[0].split(":")), settings))
        print(memory.peak_memory(devices.best_device()) / 1e9)
        return
    rows = []
    for name in options.models:
        with _written(name, options) as (checkpoint, tokens):
            rows.append(row(name, Subject(checkpoint, tokens, settings), options))
            print(" | ".join(rows[-1]), flush=True)
    text = section(rows, options)
    print(text)
    if options.output:
        page.write(options.output, f"overhead-{devices.best_device().type}", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help=f"some of {', '.join(inputs.SHAPES)}, or CHECKPOINT:TOKENS")
    parser.add_argument("--blocks", type=int, help="run fewer decoder blocks than the architecture has")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write random checkpoints; by default a temporary folder")
    parser.add_argument("--output", type=Path, help="the page to write the table into, such as docs/benchmarks.md")
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


@contextmanager
def _written(name: str, options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """Yield the checkpoint and the windows of a model; those of an architecture are random and go again."""
    if name not in inputs.SHAPES:
        checkpoint, tokens = map(Path, name.split(":"))
        yield checkpoint, tokens
        return
    architecture = inputs.SHAPES[name] | ({"num_hidden_layers": options.blocks} if options.blocks else {})
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as folder:
        checkpoint, tokens = Path(folder) / "checkpoint", Path(folder) / "windows.arrow"
        inputs.write_windows(tokens, options.windows, options.length)
        inputs.write_checkpoint(checkpoint, architecture, options.dtype)
        yield checkpoint, tokens


def row(name: str, subject: Subject, options: argparse.Namespace) -> list[str]:
    """Return a row of the table; the rounds are in turns, and the first of each is not counted."""
    size, raw = sizes(subject)  # also compiles the kernels
    plain(subject)
    rounds = [(_took(plain, subject), _took(observed, subject)) for _ in range(options.rounds)]
    walls, cpus = ([(without[i], with_[i]) for without, with_ in rounds] for i in (0, 1))
    ratios = [with_ / without for without, with_ in walls]
    windows = read_windows(subject.tokens).ids_ST.shape
    return [
        f"{Path(name.partition(':')[0]).name}, {_blocks(subject)} blocks",
        f"{windows[0]} x {windows[1]}",
        options.dtype,
        *(f"{statistics.median(times):.2f}" for times in zip(*walls, strict=True)),
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})",
        f"{statistics.median(with_ / without for without, with_ in cpus):.3f}",
        f"{_memory(subject, options.dtype):.2f}",
        f"{size / 1e6:.1f}",
        f"1/{raw / size:.0f}",
    ]


def _took(run: object, subject: Subject) -> tuple[float, float]:
    """Return the seconds of a call, on the clock and of processor time."""
    start, cpu = time.perf_counter(), time.process_time()
    run(subject)
    return time.perf_counter() - start, time.process_time() - cpu


def _memory(subject: Subject, dtype: str) -> float:
    """Return the peak memory of a capture in a process of its own, in GB: on the device where there is one."""
    model = f"{subject.checkpoint}:{subject.tokens}"
    command = [sys.executable, __file__, model, "--dtype", dtype, "--memory-only"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(output.splitlines()[-1])


def activations(kept: Statistics) -> int:
    """Return how many values the observed tensors hold, over all blocks, sites and windows."""
    tables = [kept.block(block) for block in range(kept.blocks)]
    sites = [table.site(site) for table in tables for site in table.sites if site in SITES]
    return sum(site.width * sum(map(len, site.lists("position_max_abs"))) for site in sites)


def _blocks(subject: Subject) -> int:
    return len(Weights(subject.checkpoint, subject.settings.dtype, torch.device("cpu")).blocks)


def section(rows: list[list[str]], options: argparse.Namespace) -> str:
    """Return the section of docs/benchmarks.md."""
    device = devices.best_device()
    models = " ".join(options.models)
    flags = f"--windows {options.windows} --length {options.length} --dtype {options.dtype} --rounds {options.rounds}"
    blocks = f" --blocks {options.blocks}" if options.blocks else ""
    return (
        f"## What observing costs on {'a GPU' if device.type == 'cuda' else 'a CPU'}\n\n"
        f"{devices.name(device)}; {page.describe(page.machine())}; torch {torch.__version__}:\n"
        f"`PYTHONPATH=workflow python benchmarks/overhead.py {models} {flags}{blocks}`\n\n"
        f"{page.table(HEADER, rows)}\n\n"
        "*engine*: the same pass with nothing observed, the weights read as in a capture. Seconds are medians of\n"
        "rounds in turns; *CPU time*: of this process, all threads; *peak*: resident on a CPU, allocated on a GPU;\n"
        "*of the activations*: the statistics on disk as a share of what they stand for."
    )


if __name__ == "__main__":
    main()
