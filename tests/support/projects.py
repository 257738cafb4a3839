"""Small projects: a copy of what a run of this project needs, with a configuration and a text of its own."""

import fcntl
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import yaml
from outlier_features.kernels.cpu import compile_for

PROJECT = Path(__file__).parents[2]
PARTS = ("Snakefile", "workflow", "profiles", "envs", "resources")
SENTENCE = "the outlier features of a language model live in a few channels and are large "

ARCHITECTURE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
RECIPE = {"corpus": "words", "vocabulary": 300, "steps": 2, "batch": 2, "length": 16, "learning_rate": 0.01}
MOE = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
HOSTILE = "</script><script>alert(1)</script>"
"""How the mixture of experts is called: wherever its name is shown, it has to stay words."""


def model(seed: int, **architecture: object) -> dict:
    fields = ARCHITECTURE | {"model_type": "qwen3"} | architecture
    return {"dtype": "float32", "train": RECIPE | {"seed": seed, "architecture": fields}}


def write_config(project: Path, change: object = None) -> None:
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    config["experiments"] = {"demo": {"models": ["dense", "moe"], "corpus": "words"}}
    config["models"] = {"dense": model(0), "moe": model(1, **MOE) | {"label": HOSTILE}}
    config["corpora"] = {
        "words": {"path": "text", "files": ["a.txt"], "training": ["b.txt"], "sequences": 5, "length": 24}
    }
    if change:
        change(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def copy_project(target: Path) -> Path:
    """Copy what a run of this project needs, without configuration and results."""
    compile_kernels()
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = PROJECT / part
        shutil.copytree(source, target / part, ignore=_ignored) if source.is_dir() else shutil.copy(source, target)
    return target


@cache
def compile_kernels() -> None:
    """Have the kernels compiled here, so that no copy has to."""
    for dtype in ("float32", "bfloat16"):
        compile_for(dtype)


def _ignored(folder: str, names: list[str]) -> list[str]:
    """Leave out what Python caches, but for the compiled kernels: a copy without them takes ten seconds to get them."""
    return [name for name in names if Path(folder).name == "__pycache__" and not name.endswith((".nbi", ".nbc"))]


def words_project(target: Path, change: object = None) -> Path:
    """Return a project of two models, one dense, and a corpus of words, in which nothing has run yet."""
    project = copy_project(target)
    (project / "text").mkdir()
    for name in ("a.txt", "b.txt"):
        (project / "text" / name).write_text(SENTENCE * 60)
    write_config(project, change)
    return project


def once(place: Path, build: Callable[[Path], None]) -> Path:
    """Return what `build` puts into the folder `place`, built by the first of all processes that ask for it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            unfinished = place.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(place)
    return place


def copy_of(project: Path, target: Path) -> Path:
    """Return a copy of a project with everything that has run in it, and with its file times."""
    return shutil.copytree(project, target, dirs_exist_ok=True, copy_function=shutil.copy2)
