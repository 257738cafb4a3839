r"""The engine of this project against other ways to run a large model, and to find its outlier features.

PYTHONPATH=workflow python benchmarks/engines.py

Writes a dense and a mixture-of-experts checkpoint of random weights into a temporary folder, runs every contestant in
turns, each run in a process of its own with the checkpoint dropped from the page cache, prints a table of medians and
writes it into docs/benchmarks.md. `--nnsight PYTHON` names an interpreter that has nnsight beside the same torch and
transformers, which is no dependency of this project. Fails where contestants disagree.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import page
import report
from metering import Meter, Usage
from page_cache import drop, files

HERE = Path(__file__).parent
PROJECT = HERE.parent
RUN_SECONDS = 1200
"""How long one run may take."""

CLOSE = 1e-6
"""By how much, relatively, losses may differ between contestants."""


@dataclass(frozen=True)
class Run:
    """One run of one contestant."""

    usage: Usage
    losses: list[float]
    fetched_bytes: int
    outlier_count: int | None


@dataclass
class Model:
    """A checkpoint with the runs over it."""

    kind: str
    parameters: int
    stored_bytes: int
    checkpoint: Path
    runs: dict[str, list[Run]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)


def main() -> None:
    """Print the table and write it, or do one run."""
    options = _options()
    if options.only:
        _do(options)
        return
    if not options.again:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            _compare(options, Path(folder))
    text = report.section(json.loads(options.runs.read_text()))
    print(text)
    page.write(options.output, "engines", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", type=float, default=0.8, help="parameters of the dense model in billions; 0: none")
    parser.add_argument("--moe", type=float, default=2.0, help="parameters of the mixture of experts in billions")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--contestants", default=",".join(report.NAMES), help="some of %(default)s")
    parser.add_argument("--nnsight", metavar="PYTHON", help="an interpreter that has nnsight")
    parser.add_argument("--output", type=Path, default=page.PAGE)
    parser.add_argument("--runs", type=Path, default=PROJECT / "results" / "engines.json", help="keeps every run")
    parser.add_argument("--again", action="store_true", help="run nothing, report what --runs holds")
    for name in ("--only", "--checkpoint", "--tokens", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def _do(options: argparse.Namespace) -> None:
    """Run one contestant and print what it found and took, as the last line."""
    from contestants import CONTESTANTS, Job
    from outlier_features.config.config import Config

    config = Config.read(PROJECT / "config.yaml")
    job = Job(Path(options.checkpoint), Path(options.tokens), Path(options.folder), options.dtype, config)
    with Meter() as meter:
        outcome = CONTESTANTS[options.only](job)
    print(json.dumps({"usage": asdict(meter.usage), **asdict(outcome)}))


def _compare(options: argparse.Namespace, folder: Path) -> None:
    """Run every contestant over every model in turns, and keep every run."""
    tokens = folder / "windows.arrow"
    sizes = {kind: size for kind, size in (("dense", options.dense), ("moe", options.moe)) if size}
    models = [_written(folder / kind, kind, size, tokens, options) for kind, size in sizes.items()]
    names = options.contestants.split(",")
    _compile(folder, tokens, options)
    loads = []
    for turn in range(options.rounds):
        for model in models:
            for name in names:
                loads.append(os.getloadavg()[0])
                _take_turn(model, name, tokens, options)
                _keep(options, models, loads)
                check_agreement(model)
                print(f"round {turn + 1}: {model.kind} {name}", file=sys.stderr)


def _keep(options: argparse.Namespace, models: Sequence[Model], loads: Sequence[float]) -> None:
    """Write every run so far, and what they were run on."""
    chosen = ("dense", "moe", "windows", "length", "rounds", "dtype", "contestants")
    values = {"options": {name: getattr(options, name) for name in chosen}, "machine": page.machine(), "loads": loads}
    values["models"] = [asdict(model) for model in models]
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    options.runs.write_text(json.dumps(values, default=str))


def _written(directory: Path, kind: str, billions: float, tokens: Path, options: argparse.Namespace) -> Model:
    command = [sys.executable, str(HERE / "inputs.py"), kind, str(billions), str(directory), "--dtype", options.dtype]
    command += ["--tokens", str(tokens), "--windows", str(options.windows), "--length", str(options.length)]
    _call(command)
    footprint = json.loads((directory / "source.json").read_text())["footprint"]
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    return Model(kind, footprint["counts"]["total_params"], stored, directory)


def _compile(folder: Path, tokens: Path, options: argparse.Namespace) -> None:
    """Run this project once over a tiny model, which leaves its kernels compiled in a cache on disk."""
    tiny = _written(folder / "tiny", "dense", 0.001, tokens, options)
    _take_turn(tiny, "ours", tokens, options)


def _take_turn(model: Model, name: str, tokens: Path, options: argparse.Namespace) -> None:
    """Run one contestant with the checkpoint out of the page cache, and keep the run."""
    if name == "c" and not options.nnsight:
        model.not_run[name] = "no --nnsight was given"
        return
    drop(files(model.checkpoint))
    with tempfile.TemporaryDirectory(dir=model.checkpoint.parent) as folder:
        command = [options.nnsight if name == "c" else sys.executable, str(HERE / "engines.py"), "--only", name]
        command += ["--checkpoint", str(model.checkpoint), "--tokens", str(tokens), "--folder", folder]
        values = json.loads(_call([*command, "--dtype", options.dtype]).splitlines()[-1])
    model.runs.setdefault(name, []).append(Run(**values | {"usage": Usage(**values["usage"])}))


def _call(command: Sequence[str]) -> str:
    """Run a command without a network; return what it prints. Exits with what it said if it fails."""
    paths = os.pathsep.join([str(PROJECT / "workflow"), str(HERE)])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=RUN_SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def check_agreement(model: Model) -> None:
    """Exit if contestants disagree on the loss of a window or on the number of outlier features."""
    runs = {name: found[-1] for name, found in model.runs.items()}
    if not runs:
        return
    reference_name, reference = next(iter(runs.items()))
    for name, run in runs.items():
        for window, (expected, loss) in enumerate(zip(reference.losses, run.losses, strict=True)):
            if not abs(loss - expected) <= CLOSE * abs(expected):
                raise SystemExit(
                    f"{model.kind}: {name} has loss {loss} in window {window} and {reference_name} {expected}; "
                    "they did not run the same model."
                )
    counts = {name: run.outlier_count for name, run in runs.items() if run.outlier_count is not None}
    if len(set(counts.values())) > 1:
        raise SystemExit(f"{model.kind}: contestants count different numbers of outlier features: {counts}.")


if __name__ == "__main__":
    main()
