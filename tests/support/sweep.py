"""The sweep of 2025 in small: tiny checkpoints under its twelve hub names, and a corpus, served from this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from families import FAMILIES, save_family
from hub_server import HubServer, Repository
from projects import PROJECT, copy_project

FAMILY_OF = {
    "Qwen/Qwen3-0.6B": "qwen3",
    "Qwen/Qwen3-1.7B": "qwen3",
    "Qwen/Qwen3-4B": "qwen3",
    "Qwen/Qwen3-8B": "qwen3",
    "Qwen/Qwen3-14B": "qwen3",
    "allenai/OLMoE-1B-7B-0125": "olmoe",
    "openai/gpt-oss-20b": "gpt-oss",
    "Qwen/Qwen3-30B-A3B": "qwen3-moe",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral",
    "Qwen/Qwen3-Next-80B-A3B-Instruct": "qwen3-next",
    "zai-org/GLM-4.5-Air": "glm4-moe",
    "openai/gpt-oss-120b": "gpt-oss",
}
"""The architecture of each model of the sweep, by its hub name."""

CARD = """---
configs:
- config_name: default
  data_files: sample/*.parquet
- config_name: sample-10BT
  data_files: sample/*.parquet
---
"""
AMOUNTS = ("--cores", "2", "--resources", "gpu=1", "hub=2")
"""What a run of a sweep may take at once."""
SENTENCES = (
    "the outlier features of a language model live in a few channels and are large",
    "a mixture of experts sends every token to a few of its experts",
    "what is rounded to eight bits loses what the largest value does not need",
)


def serve(config: Mapping[str, Any], folder: Path) -> HubServer:
    """Return a server, not started yet, that has every hub model and corpus of the experiment `moe_vs_dense`."""
    experiment = config["experiments"]["moe_vs_dense"]
    models = [config["models"][name] for name in experiment["models"]]
    served = {}
    for seed, model in enumerate(models):
        directory = folder / model["hub"]
        planted = {3: 8.0 + seed, 5 + seed: -9.0}
        save_family(FAMILIES[FAMILY_OF[model["hub"]]], directory, seed, planted)
        served[model["hub"]] = Repository({model["revision"]: directory})
    corpus = config["corpora"][experiment["corpus"]]
    return HubServer(models=served, datasets={corpus["hub"]: Repository({corpus["revision"]: write_corpus(folder)})})


def write_corpus(folder: Path) -> Path:
    """Write a data set of short documents in the layout of the hub."""
    directory = folder / "corpus"
    (directory / "sample").mkdir(parents=True)
    (directory / "README.md").write_text(CARD)
    documents = [f"{SENTENCES[i % 3]}, said document {i}. " * 12 for i in range(600)]
    pq.write_table(pa.table({"text": documents}), directory / "sample/000.parquet")
    return directory


def project_with(folder: Path, change: Any) -> tuple[Path, dict[str, Any]]:
    """Return a copy of this project with another configuration, which is returned as well."""
    project = copy_project(folder / "project")
    config = yaml.safe_load((PROJECT / "config.yaml").read_text())
    config["corpora"]["fineweb-edu"] |= {"sequences": 2, "length": 48}
    change(config)
    (project / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return project, config
