r"""What observing costs: a capture against the same engine with nothing observed, in turns, and the capture's memory.

PYTHONPATH=workflow python benchmarks/overhead.py \
    results/checkpoints/smollm2-135m results/sotu/tokens/smollm2-135m.arrow
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from outlier_features import engine
from outlier_features.capture import Settings, capture, token_losses
from outlier_features.config import Config
from outlier_features.corpora import read_windows
from outlier_features.devices import best_device, peak_memory
from outlier_features.weights import Weights


class Nothing:
    """An observer that observes nothing."""

    def begin(self, block: int, reading: object) -> None:
        """Do nothing."""

    def enter(self, block: int, window: int) -> None:
        """Do nothing."""

    def passed(self, block: int, window: int) -> None:
        """Do nothing."""

    def leave(self, block: int, outputs: object) -> None:
        """Do nothing."""


def plain(checkpoint: Path, tokens: Path, settings: Settings) -> None:
    """Run the engine over the windows and keep only the losses."""
    ids = [torch.from_numpy(row).long() for row in read_windows(tokens).ids_ST]
    weights = Weights(checkpoint, settings.dtype, best_device())
    engine.run(weights, ids, lambda index, logits: token_losses(logits, ids[index]), Nothing())


def observed(checkpoint: Path, tokens: Path, settings: Settings) -> int:
    """Capture into a temporary folder; return the bytes of the statistics."""
    with tempfile.TemporaryDirectory() as folder:
        capture(checkpoint, tokens, Path(folder) / "statistics.json", settings, {})
        return sum(path.stat().st_size for path in Path(folder).rglob("*.arrow"))


def seconds(run: object, *arguments: object) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def capture_memory(checkpoint: Path, tokens: Path, dtype: str) -> float:
    """Return the peak resident memory of a capture in a process of its own, in GB."""
    command = [sys.executable, __file__, str(checkpoint), str(tokens), "--dtype", dtype, "--memory-only"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(output.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    config = Config.read(options.config)
    settings = Settings.of(config.capture, config.counted_sites, config.coverages, options.dtype)
    inputs = options.checkpoint, options.tokens, settings
    if options.memory_only:
        observed(*inputs)
        print(peak_memory(torch.device("cpu")) / 1e9)  # of this process; ru_maxrss would know the parent's
        return
    size = observed(*inputs)  # also compiles the kernels
    pairs = [(seconds(plain, *inputs), seconds(observed, *inputs)) for _ in range(options.rounds)]
    without, with_statistics = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    windows = read_windows(options.tokens).ids_ST.shape
    raw = activation_bytes(options.checkpoint, settings, windows[0] * windows[1])
    print(f"{options.checkpoint.name}, {windows[0]} x {windows[1]} tokens, {options.dtype}, {options.rounds} rounds")
    print(f"engine, nothing observed   {without:8.2f} s")
    print(f"capture                    {with_statistics:8.2f} s")
    print(f"ratio, median of rounds    {ratio:8.3f}")
    print(f"peak resident memory       {capture_memory(*inputs[:2], options.dtype):8.2f} GB")
    print(f"statistics                 {size / 1e6:8.1f} MB, 1/{raw / size:.0f} of the activations they stand for")


def activation_bytes(checkpoint: Path, settings: Settings, tokens: int) -> int:
    """Return the size of the activations at every site, in the precision of the pass."""
    model = Weights(checkpoint, settings.dtype, torch.device("cpu")).model
    config = model.config.get_text_config()
    return tokens * config.num_hidden_layers * config.hidden_size * len(settings.sites) * settings.dtype.itemsize


if __name__ == "__main__":
    main()
