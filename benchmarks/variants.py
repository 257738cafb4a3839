r"""Variants of a model in one pass, beside a pass for each of them: bytes of weights read, and seconds.

PYTHONPATH=workflow python benchmarks/variants.py CHECKPOINT TOKENS

Each pass runs the plain model too, on whose windows variants calibrate. Both ways run in turns in one process; seconds
are medians over rounds, of which only the ratio is told.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import page
import torch
from outlier_features.config.variants import Variant, Vary
from outlier_features.format_names import FORMATS
from outlier_features.variants.observer import VariantObserver
from outlier_features.variants.vary import Asked, Model, vary

ENTRIES: dict[str, dict] = {name: {"format": name} for name in FORMATS if name != "none"} | {
    "llm_int8": {"format": "vector_wise", "keep_above": 6.0},
    "smooth": {"format": "absmax", "smooth": 0.5},
}
HEADER = ("variants", "bytes read in one pass", "in a pass each", "seconds in one pass / in a pass each")


def main() -> None:
    """Print the table, and write it where asked to."""
    options = _options()
    rows = [_row(count, options) for count in options.counts]
    where = page.machine()
    command = f"benchmarks/variants.py CHECKPOINT TOKENS --windows {options.windows} --rounds {options.rounds}"
    text = "\n\n".join(
        [
            "## Variants in one pass",
            f"`PYTHONPATH=workflow python {command}` ({options.checkpoint.name}, {options.dtype}; {where['date']}, "
            f"{where['processor']}, {where['cores']} cores, commit {where['commit']}). A pass each runs the "
            "plain model each time.",
            page.table(HEADER, rows),
        ]
    )
    print(text)
    if options.output:
        page.write(options.output, "variants", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a directory with config.json and safetensors")
    parser.add_argument("tokens", type=Path, help="the windows of a corpus, results/{corpus}/tokens/{model}.arrow")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", type=Path, help="the page to write the table into, such as docs/benchmarks.md")
    return parser.parse_args()


def _row(count: int, options: argparse.Namespace) -> tuple[str, ...]:
    entries = {name: Variant.model_validate(entry | {"windows": 1}) for name, entry in list(ENTRIES.items())[:count]}
    ways = [[entries], [{name: entry} for name, entry in entries.items()]]
    taken: list[list[tuple[int, float]]] = [[], []]
    for _ in range(options.rounds):
        for way, passes in enumerate(ways):
            taken[way].append(_taken(passes, options))
    read = [f"{way[0][0] / 1e6:,.0f} MB" for way in taken]
    seconds = [statistics.median(each for _, each in way) for way in taken]
    return str(count), *read, f"{seconds[0] / seconds[1]:.2f}"


def _taken(passes: Sequence[Mapping[str, Variant]], options: argparse.Namespace) -> tuple[int, float]:
    """Return the bytes that passes read, and the seconds they took."""
    read, original = [], VariantObserver.begin

    def begin(observer: VariantObserver, block: int, reading: object) -> None:
        read.append(reading.bytes)
        original(observer, block, reading)

    start = time.perf_counter()
    with patch.object(VariantObserver, "begin", begin), contextlib.redirect_stderr(io.StringIO()):
        for variants in passes:
            _run(variants, options)
    return sum(read), time.perf_counter() - start


def _run(variants: Mapping[str, Variant], options: argparse.Namespace) -> None:
    lineage = json.loads((options.checkpoint / "source.json").read_text())["provenance"]["lineage"]
    asked = Asked(variants, settings=Vary(noise=False, sqnr_windows=0))
    model = Model(getattr(torch, options.dtype))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        output = Path(folder) / "pass.json"
        inputs = options.checkpoint, options.tokens, None
        vary(*inputs, output, asked, model, lineage, windows=range(options.windows))


if __name__ == "__main__":
    main()
