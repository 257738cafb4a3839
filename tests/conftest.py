"""Fixtures that several test files share, made once for each process that runs tests, and the order of files."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton

from families_table import Table
from outlier_features.capture.hooks import observed
from outlier_features.capture.run import capture
from outlier_features.models import sites
from outlier_features.models.sizes import Footprint
from outlier_features.site_names import POSITIONAL
from projects import once, words_project
from published_sizes import read_sizes, write_sizes
from small_models import (
    DENSE,
    HIDDEN,
    LENGTH,
    MOE,
    VOCABULARY,
    WINDOWS,
    capture_settings,
    save_checkpoint,
    write_windows,
)
from transformers import AutoModelForCausalLM
from workflows import Workflows, snakemake


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole workflows, the longest file first: a worker that gets one last would end alone."""
    items.sort(key=lambda item: [name not in item.path.parts for name in LONGEST])


LONGEST = ("test_sweep.py", "workflow", "browser", "cluster")
"""Parts of the paths of test files that take long, in the order they begin in."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose demo of two models, one dense, has run to the end, once for all workers; tests change copies."""
    return once(of_all_workers(tmp_path_factory) / "finished", run_to_the_end)


def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the workers of one run of the tests share."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def run_to_the_end(project: Path) -> None:
    """Make a project and all its results, every job in a process of its own, as users do."""
    ended = snakemake(words_project(project), amounts=("--cores", "2", "--resources", "gpu=1"))
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="session")
def workflows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workflows]:
    """Runs of Snakemake that cost no imports."""
    with Workflows(tmp_path_factory.mktemp("workflows")) as found:
        yield found


@pytest.fixture(scope="session")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Footprint]:
    """The sizes of published models, found from their configurations once for all workers."""
    return read_sizes(once(of_all_workers(tmp_path_factory) / "sizes", write_sizes))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense and a mixture-of-experts checkpoint with planted outlier channels, each in several files."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "dense": save_checkpoint(root / "dense", DENSE),
        "moe": save_checkpoint(root / "moe", MOE, seed=1),
    }


@pytest.fixture(scope="session")
def ids() -> np.ndarray:
    return np.random.default_rng(7).integers(VOCABULARY, size=(WINDOWS, LENGTH))


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> Path:
    return write_windows(tmp_path_factory.mktemp("tokens") / "windows.arrow", ids)


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path], tokens: Path) -> dict[str, Path]:
    """The statistics of both checkpoints over all windows, from a CPU wherever the tests run."""
    root, cpu = tmp_path_factory.mktemp("statistics"), torch.device("cpu")
    for name, checkpoint in checkpoints.items():
        capture(checkpoint, tokens, root / f"{name}.json", capture_settings(), {"statistics": "test"}, device=cpu)
    return {name: root / f"{name}.json" for name in checkpoints}


@pytest.fixture(scope="session")
def activations(checkpoints: dict[str, Path], ids: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Per model and site, the raw activations (N, S, T, C) in float64, from an ordinary forward."""
    result = {}
    for name, checkpoint in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        seen = defaultdict(list)
        with ExitStack() as hooks, torch.inference_mode():
            for block in model.model.layers:
                probes = sites.probes(block, POSITIONAL)
                hooks.enter_context(observed(probes, _keep(seen)))
            for window in ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        shape = (WINDOWS, len(model.model.layers), LENGTH, HIDDEN)
        result[name] = {site: np.stack(parts).reshape(shape).swapaxes(0, 1) for site, parts in seen.items()}
    return result


def _keep(seen: dict[str, list]) -> Callable[[str, torch.Tensor], None]:
    return lambda site, x: seen[site].append(x.double().numpy())


TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def families_table(pytestconfig: pytest.Config) -> Table:
    """The table of families that is printed at the end."""
    return pytestconfig.stash.setdefault(TABLE, Table())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table: rows seen per site in one block, and where logits equal the ordinary forward to the bit."""
    if TABLE in config.stash:
        terminalreporter.section("families: rows seen at each site of a block; logits and sites against plain forward")
        for line in config.stash[TABLE].lines():
            terminalreporter.write_line(line)
