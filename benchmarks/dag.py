r"""What planning costs: `snakemake -n` for many models on two corpora, with nothing made yet and with nothing stale.

python benchmarks/dag.py --models 10 100 1000 --runs 3 --finished

The finished project holds real files: one model is measured by the rules, its files are copied under the name of each
other one with the lineage that one wants, and `snakemake --touch` takes them for made. Nothing is downloaded.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "profiles", "envs", "resources")
CORPORA = ("first", "second")
SEED = "seed"
"""The model that is measured for real."""
TARGETS = ("all", "results/second/reproduction.csv")
"""The experiment on the first corpus, and its tables on the second."""
MANY = "1000000"
"""As many cores, GPUs and downloads as there are jobs: the scheduler's time grows with its rounds."""
SENTENCE = "the outlier features of a language model live in a few channels and are large "
ARCHITECTURE = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
RECIPE = {"corpus": "first", "vocabulary": 300, "steps": 2, "batch": 2, "length": 16, "learning_rate": 0.01}
METERED = """
import json, sys
from dataclasses import asdict
sys.path.insert(0, sys.argv[1])
from metering import Meter
with Meter() as meter:
    try:
        from snakemake.cli import main
        from snakemake.executors import touch
        touch.Executor.SLEEPING_TIME = 0.001  # where it sleeps a tenth of a second for each of ten thousand jobs
        main(sys.argv[3:])
    except SystemExit as ended:
        code = ended.code
with open(sys.argv[2], "w") as file:
    json.dump(asdict(meter.usage), file)
sys.exit(code)
"""

RELABELLED = """
import sys
from pathlib import Path
sys.path.insert(0, "workflow")
from outlier_features.config.config import Config
from outlier_features.pipeline.freshness import Freshness
from outlier_features.artefacts.lineage import Lineages
from outlier_features.artefacts.records import recorded
config = Config.read(Path("config.yaml"))
freshness = Freshness(config, Lineages(config), parts=1)
for result in [result for corpus in config.corpora for result in freshness.results(corpus)]:
    for path in result.paths:
        if carried := recorded(path, result.artefact):
            wanted = result.lineage[result.artefact]
            path.write_bytes(path.read_bytes().replace(carried.encode(), wanted.encode()))
"""


@dataclass(frozen=True)
class Plan:
    """What one `snakemake -n` planned and took."""

    jobs: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


def write_project(folder: Path, checkout: Path, models: dict[str, Any]) -> None:
    """Put a project of these models and two corpora into a folder; the workflow is that of a checkout, by links."""
    (folder / "text").mkdir(parents=True)
    for part in PARTS:
        (folder / part).symlink_to(checkout / part)
    for corpus in CORPORA:
        (folder / f"text/{corpus}.txt").write_text(SENTENCE * 60)
    files = {"path": "text", "training": ["second.txt"], "sequences": 3, "length": 24}
    config = yaml.safe_load((checkout / "config.yaml").read_text())
    config["models"] = models
    config["corpora"] = {corpus: {"files": [f"{corpus}.txt"], **files} for corpus in CORPORA}
    config["experiments"] = {"demo": {"models": list(models), "corpus": CORPORA[0]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def hub_models(count: int) -> dict[str, Any]:
    """Return so many entries as a sweep has them."""
    return {f"model-{i:05d}": {"hub": f"organisation/model-{i:05d}", "revision": f"{i:040x}"} for i in range(count)}


def snakemake(project: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Run Snakemake in a process of its own; return what it printed and what it took."""
    with tempfile.NamedTemporaryFile() as usage:
        command = [sys.executable, "-c", METERED, str(Path(__file__).parent), usage.name, *TARGETS, *arguments]
        ended = subprocess.run(command, cwd=project, capture_output=True, text=True, env=_environment(), check=False)
        if ended.returncode:
            raise SystemExit(f"snakemake {' '.join(arguments)} failed in {project}:\n{ended.stdout}{ended.stderr}")
        return ended.stdout + ended.stderr, json.load(usage)


def plan(project: Path) -> Plan:
    """Plan once, printing what `snakemake -n` prints."""
    printed, usage = snakemake(project, "-n", "--cores", "1")
    total = re.search(r"^total\s+(\d+)$", printed, re.MULTILINE)
    if total is None and "Nothing to be done" not in printed:
        raise SystemExit(f"neither jobs nor nothing planned in {project}:\n{printed[-2000:]}")
    return Plan(int(total[1]) if total else 0, *(usage[key] for key in list(Plan.__annotations__)[1:]))


def finish(project: Path, seed: Path, models: Sequence[str]) -> None:
    """Copy the results of the seed under the name of each model, and let Snakemake take them for made."""
    for path in sorted(seed.glob("results/**/*")):
        parts = path.relative_to(seed).parts
        if "logs" in parts or not path.is_file():
            continue
        names = models if any(part.partition(".")[0] == SEED for part in parts) else [SEED]
        for name in names:
            copy = project.joinpath(*(re.sub(rf"^{SEED}(?=\.|$)", name, part) for part in parts))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    subprocess.run([sys.executable, "-c", RELABELLED], cwd=project, check=True)
    snakemake(project, "--touch", "--cores", MANY, "--resources", f"gpu={MANY}", f"hub={MANY}", "--quiet", "all")


def measure(runs: int, take: Callable[[], Plan]) -> Plan:
    """Return the medians over some runs."""
    found = [take() for _ in range(runs)]
    values = [[getattr(each, name) for each in found] for name in Plan.__annotations__]
    return Plan(*map(statistics.median, values))  # type: ignore[arg-type]


def row(models: int, state: str, found: Plan) -> str:
    """Return a line of the table."""
    cells = [models, state, int(found.jobs), f"{found.wall_seconds:.1f}", f"{found.cpu_seconds:.1f}"]
    return "| " + " | ".join(map(str, [*cells, f"{found.peak_bytes / 1e6:.0f}"])) + " |"


def compare(folder: Path, checkout: Path, sizes: Sequence[int], runs: int, *, finished: bool) -> None:
    """Print the table line by line."""
    if finished:
        write_project(folder / SEED, checkout, {SEED: {"train": RECIPE | {"architecture": ARCHITECTURE}}})
        snakemake(folder / SEED, "--cores", "1", "--quiet", "all")
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {runs} runs, medians\n")
    print("| models | results | jobs planned | seconds | CPU seconds | peak MB |\n|---|---|---|---|---|---|")
    for size in sizes:
        project, models = folder / str(size), hub_models(size)
        write_project(project, checkout, models)
        print(row(size, "none yet", measure(runs, lambda project=project: plan(project))), flush=True)
        if finished:
            finish(project, folder / SEED, list(models))
            print(row(size, "nothing stale", measure(runs, lambda project=project: plan(project))), flush=True)


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[10, 100, 1000], help="sizes of the experiment")
    parser.add_argument("--runs", type=int, default=3, help="how often each is planned")
    parser.add_argument("--finished", action="store_true", help="also with every result there")
    parser.add_argument("--checkout", type=Path, default=CHECKOUT, help="another checkout whose workflow to plan with")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), chosen.checkout.resolve(), chosen.models, chosen.runs, finished=chosen.finished)


def _environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "TERM": "dumb", "NO_COLOR": "1"}


if __name__ == "__main__":
    main()
