"""Inventory: what of an experiment is there already, and how large its models are, known or fetched or neither."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from outlier_features import checkpoints, layout, packages
from outlier_features.config import Config, Model
from outlier_features.digests import Digests
from outlier_features.errors import SourceError
from outlier_features.freshness import is_fresh
from outlier_features.lineage import Lineage, Lineages
from outlier_features.planning import Footprint, Pass, Plan, estimate


def plans(config: Config, configurations: Path | None = None) -> list[Plan]:
    """Return what each model of the chosen experiment takes.

    Sizes come from the checkpoint where it is there, else from its configuration alone: the file
    `{hub name}/config.json` below `configurations` where that is given, else the hub or its cache. Raises SourceError.
    """
    lineages, corpus = Lineages(config, Digests(layout.digests(), lambda: True)), config.chosen.corpus
    return [
        _plan(name, config, configurations, _cached(lineages, corpus, name, config.capture.scatter))
        for name in config.chosen.models
    ]


def _plan(name: str, config: Config, configurations: Path | None, cached: tuple[str, ...]) -> Plan:
    model = config.models[name]
    footprint, download = _sizes(name, model, configurations, is_there="checkpoint" in cached)
    run = Pass.of(config, config.corpora[config.chosen.corpus], model)
    return Plan(
        model=name,
        label=config.label(name),
        hub=model.hub,
        footprint=footprint,
        estimate=estimate(footprint, run),
        download_bytes=footprint.stored_bytes if download is None else download,
        is_download_known=download is not None,
        cached=cached,
    )


def _cached(lineages: Lineages, corpus: str, name: str, parts: int) -> tuple[str, ...]:
    results: dict[str, tuple[str, Lineage, list[Path]]] = {
        "checkpoint": ("checkpoint", lineages.checkpoint(name), [layout.source(name)]),
        "tokens": ("tokens", lineages.tokens(corpus, name), [layout.tokens(corpus, name)]),
        "statistics": ("statistics", lineages.statistics(corpus, name), layout.manifests(corpus, name, parts)),
        "tables": ("reduction", lineages.reduction(corpus, name), [layout.table("layers", corpus, name)]),
    }
    return tuple(stage for stage, (kind, lineage, paths) in results.items() if is_fresh(kind, lineage, *paths))


def _sizes(name: str, model: Model, configurations: Path | None, *, is_there: bool) -> tuple[Footprint, float | None]:
    """Return the footprint of a model and what is to be downloaded for it, if that is known."""
    if is_there:
        return checkpoints.read_footprint(layout.checkpoint(name)), 0
    from outlier_features.footprint import of_config, of_directory  # torch; a plan of what is there does without

    if model.hub is None:
        return of_config(_local_config(model), name), 0
    if configurations is not None:
        directory = configurations / model.hub
        if not (directory / "config.json").is_file():
            raise SourceError(f"{directory}: has no config.json; put the one of {model.hub} there, or ask the hub.")
        return of_directory(directory), None
    return _hub_sizes(model)


def _hub_sizes(model: Model) -> tuple[Footprint, float]:
    from outlier_features import hub, sources
    from outlier_features.footprint import of_directory

    found = hub.snapshot(str(model.hub), model.revision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = sources.describe(found, ("config.json", "*.index.json"), folder / "arrived", folder)
        stored = sum(found.files[weight].size for weight in weights)
        return replace(of_directory(folder), stored_bytes=stored), stored


def _local_config(model: Model) -> Any:
    from transformers import AutoConfig

    if model.train is not None:
        return AutoConfig.for_model(**model.train.architecture, vocab_size=model.train.vocabulary)
    if model.package is not None:
        return AutoConfig.from_pretrained(packages.directory(model.package), gguf_file=model.file)
    return AutoConfig.from_pretrained(str(model.path), local_files_only=True)
