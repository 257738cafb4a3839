"""Small real models and windows that several test files share."""

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton

from outlier_features.artefacts import provenance
from outlier_features.capture.hooks import observed
from outlier_features.capture.run import Settings, capture
from outlier_features.config.entries import Definition
from outlier_features.kernels.reference import Grids
from outlier_features.models import sites
from outlier_features.models.checkpoints import seal
from outlier_features.site_names import SITES
from outlier_features.text import windows
from outlier_features.thresholds import grid
from projects import once, words_project
from transformers import AutoConfig, AutoModelForCausalLM
from workflows import Workflows, snakemake

torch.set_num_threads(1)  # the tensors are tiny: a second thread only waits for a core

HIDDEN, BLOCKS, VOCABULARY = 40, 3, 160
WINDOWS, LENGTH = 5, 33

DENSE = {
    "model_type": "qwen3",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 56,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
MOE = DENSE | {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 24,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [0],
}

PLANTED = {3: 9.0, 17: 6.0, 30: -4.0}
"""Channels whose norm gain is set so that they become outlier features, or come near."""

DEFINITIONS = {
    "arb8020": Definition(sites=("attn_in", "mlp_in"), scope="sequence", rounding="bfloat16"),
    "llm_int8": Definition(sites=("attn_in", "mlp_in")),
    "llm_int8_paper": Definition(sites=("attn_in", "out_proj_in", "mlp_in")),
    "strict": Definition(sites=("mlp_in",), threshold=4.0, min_layers=0.6, min_positions=0.3),
}
"""One of each kind: per sequence and rounded, pooled, over every site, and another threshold."""


def save_checkpoint(
    directory: Path, architecture: dict, seed: int = 0, planted: dict[int, float] | None = None
) -> Path:
    """Write a random-weight checkpoint, gains of `planted` channels set in every norm over the hidden size."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**architecture)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if parameter.shape == (HIDDEN,) and name.endswith("layernorm.weight"):
                for channel, gain in (PLANTED if planted is None else planted).items():
                    parameter[channel] = gain
    model.save_pretrained(directory, max_shard_size="60KB")
    seal(directory, {"path": str(directory)}, {"checkpoint": "test"})
    return directory


def write_windows(path: Path, ids: np.ndarray | Sequence[np.ndarray], stride: int | None = None) -> Path:
    """Write windows of token ids, all of one length or a list of any, two bytes a token."""
    length = max(map(len, ids))
    stride = stride or length
    rows = [
        {
            "window": index,
            "token_ids": row.tolist(),
            "token_bytes": [2] * len(row),
            "scored_from": 1 if index == 0 else max(1, length - stride),
        }
        for index, row in enumerate(ids)
    ]
    cut = {"window": length, "stride": stride, "bos": False}
    origin = provenance.record({"tokens": "test"}, cut=cut)
    windows.write_windows(path, rows, origin)
    return path


@contextmanager
def mounted(place: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk at `place`; skip the test where that is not allowed."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # a thread may still hold a file there


def capture_settings(dtype: torch.dtype = torch.float32, **changes: object) -> Settings:
    """Return settings that count everything the three definitions ask for."""
    values = {
        "sites": ("attn_in", "out_proj_in", "mlp_in", "residual"),
        "counted": ("attn_in", "out_proj_in", "mlp_in"),
        "coverages": (("attn_in", "mlp_in"), ("attn_in", "out_proj_in", "mlp_in"), ("mlp_in",)),
        "grids": Grids(grid((3.0, 4.0, 6.0, 8.0, 12.0, 20.0)), grid((2.0, 3.0, 4.0, 6.0, 8.0))),
        "dtype": dtype,
    }
    return Settings(**(values | changes))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole workflows, the longest file first: a worker that gets one last would end alone."""
    items.sort(key=lambda item: [name not in item.path.parts for name in LONGEST])


LONGEST = ("test_sweep.py", "workflow", "browser", "cluster")
"""Parts of the paths of test files that take long, in the order they begin in."""


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose demo of two models, one dense, has run to the end, once for all workers; tests change copies."""
    root = tmp_path_factory.getbasetemp()
    return once((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "finished", run_to_the_end)


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
                probes = sites.probes(block, SITES)
                hooks.enter_context(observed(probes, _keep(seen)))
            for window in ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        shape = (WINDOWS, len(model.model.layers), LENGTH, HIDDEN)
        result[name] = {site: np.stack(parts).reshape(shape).swapaxes(0, 1) for site, parts in seen.items()}
    return result


def _keep(seen: dict[str, list]) -> Callable[[str, torch.Tensor], None]:
    return lambda site, x: seen[site].append(x.double().numpy())


class Table:
    """What was seen of each family, one row each, printed at the end of the tests."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, str]] = {}

    def add(self, family: str, model: str, blocks: int, rows: dict[str, int], dtype: torch.dtype) -> None:
        """Note that a family's logits and sites equal the ordinary forward in one precision."""
        row = self._rows.setdefault(family, {"model": model, "blocks": str(blocks)})
        row |= {site: str(count) for site, count in rows.items()}
        row[str(dtype).removeprefix("torch.")] = "equal"

    def lines(self) -> list[str]:
        """Return the table as lines of text."""
        columns = ("model", "blocks", "attn_in", "out_proj_in", "mlp_in", "residual", "float32", "bfloat16")
        rows = [("family", *columns)]
        rows += [(family, *(row.get(column, "-") for column in columns)) for family, row in self._rows.items()]
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


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
