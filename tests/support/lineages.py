"""The lineages of the configuration that this project ships, and which of them a change moves."""

import os
from pathlib import Path
from typing import Any

import yaml
from outlier_features.artefacts.digests import Digests
from outlier_features.artefacts.lineage import Lineages
from outlier_features.config.config import Config
from projects import PROJECT

PICTURES = {"figure", "model_figure", "timings", "index"}
OF_SUMMARY = {"summary", "reproduction", "inference", "figure", "export_summary", "index"}
AFTER_REDUCTION = {"reduction", *OF_SUMMARY, "model_figure", "export"}
AFTER_STATISTICS = {"statistics", "perplexity", "timings", *AFTER_REDUCTION}
AFTER_TOKENS = {"tokens", *AFTER_STATISTICS}
EVERYTHING = {"checkpoint", *AFTER_TOKENS}
OF_ALL_MODELS = OF_SUMMARY


def artefacts(config: Config) -> dict[str, str]:
    """Return the lineage of every artefact of the chosen experiment, as `artefact` or `artefact model`."""
    lineages, corpus = Lineages(config), config.chosen.corpus
    found = {
        name: getattr(lineages, name)(corpus)[name]
        for name in ("summary", "reproduction", "inference", "figure", "export_summary", "index")
    }
    for model in config.chosen.models:
        found[f"checkpoint {model}"] = lineages.checkpoint(model)["checkpoint"]
        for artefact in ("tokens", "statistics", "reduction", "perplexity", "model_figure", "timings", "export"):
            found[f"{artefact} {model}"] = getattr(lineages, artefact)(corpus, model)[artefact]
    return found


def moved(before: dict[str, str], after: dict[str, str]) -> dict[str, set[str]]:
    """Return the artefacts whose lineage differs, each with its models (none where it is of all models)."""
    found: dict[str, set[str]] = {}
    for name in before.keys() & after.keys():
        artefact, _, model = name.partition(" ")
        if before[name] != after[name]:
            found.setdefault(artefact, set()).update({model} - {""})
    return found


def shipped() -> dict[str, Any]:
    """Return the values of the repository's configuration, of which the demo is chosen."""
    return yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))


MODELS = {"smollm2-135m", "tiny-dense", "tiny-moe"}


def of(models: set[str], artefact_names: set[str]) -> dict[str, set[str]]:
    return {artefact: set() if artefact in OF_ALL_MODELS else models for artefact in artefact_names}


TEXTS = ["a.txt", "b.txt"]
FILES = {
    "text/a.txt": b"measured on",
    "text/b.txt": b"trained on",
    "weights/config.json": b"{}",
    "weights/model.safetensors": b"0123456789",
    "weights/README.md": b"about it",
    "shipped_text/__init__.py": b"",
    "shipped_text/speech.txt": b"spoken",
    "shipped_text/model.gguf": b"quantised",
    "shipped_text-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: shipped-text\nVersion: 1.0\n",
    "resources/published/massive_activations.csv": b"model,value\n",
}


def settle(path: Path) -> None:
    """Give a file the same modification time as always; its change time is that of now."""
    os.utime(path, (1e9, 1e9))


def digest_of(texts: Path, *, dry: bool = False) -> str:
    """Return the digest of TEXTS in a folder, remembered in its folder `memory`."""
    return Digests(texts / "memory", lambda: dry).of(texts, TEXTS)
