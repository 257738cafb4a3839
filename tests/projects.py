"""Small projects: a copy of what a run of this project needs, with a configuration and a text of its own."""

import shutil
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
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


def model(seed: int, **architecture: object) -> dict:
    fields = ARCHITECTURE | {"model_type": "qwen3"} | architecture
    return {"dtype": "float32", "train": RECIPE | {"seed": seed, "architecture": fields}}


def write_config(project: Path, change: object = None) -> None:
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    config["experiments"] = {"demo": {"models": ["dense", "moe"], "corpus": "words"}}
    config["models"] = {"dense": model(0), "moe": model(1, **MOE)}
    config["corpora"] = {
        "words": {"path": "text", "files": ["a.txt"], "training": ["b.txt"], "sequences": 3, "length": 24}
    }
    if change:
        change(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def copy_project(target: Path) -> Path:
    """Copy what a run of this project needs, without configuration and results."""
    target.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = PROJECT / part
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target / part, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    return target


def words_project(target: Path, change: object = None) -> Path:
    """Return a project of two models, one dense, and a corpus of words, in which nothing has run yet."""
    project = copy_project(target)
    (project / "text").mkdir()
    for name in ("a.txt", "b.txt"):
        (project / "text" / name).write_text(SENTENCE * 60)
    write_config(project, change)
    return project
