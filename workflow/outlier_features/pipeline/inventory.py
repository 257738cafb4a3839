"""Inventory: what of an experiment is there already, and how large its models are, known or fetched or neither."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlier_features.artefacts import paths
from outlier_features.artefacts.digests import Digests
from outlier_features.artefacts.lineage import Lineage, Lineages
from outlier_features.config.config import Config
from outlier_features.config.entries import Model, Recipe
from outlier_features.errors import ArchitectureError, SourceError
from outlier_features.models import checkpoints
from outlier_features.models.sizes import Footprint
from outlier_features.pipeline.freshness import is_fresh
from outlier_features.planning import varied
from outlier_features.planning.estimate import Pass, Plan, Varied, estimate

if TYPE_CHECKING:
    from outlier_features.sources.admission import Use


def plans(config: Config, configurations: Path | None = None) -> list[Plan]:
    """Return what each model of the chosen experiment takes.

    Sizes come from the checkpoint where it is there, else from its configuration alone: the file
    `{hub name}/config.json` below `configurations` where that is given, else the hub or its cache. Raises SourceError.
    """
    lineages = Lineages(config, Digests(paths.digests(), lambda: True))
    with tempfile.TemporaryDirectory() as arrived:  # what several models share is asked for once
        asked = _Asked(config, configurations, Path(arrived))
        return [_plan(name, asked, _cached(lineages, config, name)) for name in config.chosen.models]


@dataclass(frozen=True)
class _Asked:
    """What a plan is made of: the configuration, and where sizes of models come from that are not there yet."""

    config: Config
    configurations: Path | None
    arrived: Path
    """Where the files that describe models of the hub come to lie."""


def _plan(name: str, asked: _Asked, cached: tuple[str, ...]) -> Plan:
    config, model = asked.config, asked.config.models[name]
    footprint, download = _sizes(name, asked, is_there="checkpoint" in cached)
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
        varied=_varied(name, config, footprint, run),
    )


def _varied(name: str, config: Config, footprint: Footprint, run: Pass) -> Varied | None:
    """Return what the variants of a model take; None where it has none."""
    if not config.is_varied(name):
        return None
    runs = varied.Runs.of(config, name)
    names = (*config.variants_of(name), *config.interventions_of(name))
    return Varied(names, runs.total, varied.estimate(footprint, run, runs))


def _cached(lineages: Lineages, config: Config, name: str) -> tuple[str, ...]:
    corpus, parts = config.chosen.corpus, config.capture.scatter
    results: dict[str, tuple[str, Lineage, list[Path]]] = {
        "checkpoint": ("checkpoint", lineages.checkpoint(name), [paths.source(name)]),
        "tokens": ("tokens", lineages.tokens(corpus, name), [paths.tokens(corpus, name)]),
        "statistics": ("statistics", lineages.statistics(corpus, name), paths.manifests(corpus, name, parts)),
        "tables": ("reduction", lineages.reduction(corpus, name), [paths.table("layers", corpus, name)]),
    }
    if config.is_varied(name):
        made = lineages.variants(corpus, name), paths.manifests(corpus, name, parts, "variants")
        results["variants"] = ("variants", *made)
    return tuple(stage for stage, (kind, lineage, files) in results.items() if is_fresh(kind, lineage, *files))


def _sizes(name: str, asked: _Asked, *, is_there: bool) -> tuple[Footprint, float | None]:
    """Return the footprint of a model and what is to be downloaded for it, if that is known."""
    model = asked.config.models[name]
    if is_there:
        return checkpoints.read_footprint(paths.checkpoint(name)), 0
    from outlier_features.sources import admission, fetch  # torch; a plan of what is there does without

    use = admission.Use.of(asked.config)
    if model.path is not None:
        return fetch.sizes_of_directory(Path(model.path), use), 0
    if model.hub is None:
        config = _of_recipe(model.train, name) if model.train else fetch.package_config(model)
        return admission.admit_configuration(config, f"models.{name}", use), 0
    if asked.configurations is None:
        return _hub_sizes(model, use, asked.arrived)
    directory = asked.configurations / model.hub
    if not (directory / "config.json").is_file():
        raise SourceError(f"{directory}: has no config.json; put the one of {model.hub} there, or ask the hub.")
    return admission.admit(directory, directory, use, has_tokenizer=(directory / "tokenizer.json").is_file()), None


def _hub_sizes(model: Model, use: "Use", arrived: Path) -> tuple[Footprint, float]:
    from outlier_features.sources import fetch, hub

    found = hub.snapshot(str(model.hub), model.revision)
    with tempfile.TemporaryDirectory() as folder:
        footprint, stored = fetch.sizes_on_hub(found, use, arrived, Path(folder))
    return replace(footprint, stored_bytes=stored), stored


def _of_recipe(recipe: Recipe, name: str) -> Any:
    """Return the configuration of a model that is trained here. Raises ArchitectureError."""
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**recipe.architecture, vocab_size=recipe.vocabulary)
    except Exception as error:  # each architecture checks its own fields, and raises what it likes
        reason = " ".join(str(error).split())
        raise ArchitectureError(f"models.{name}.train.architecture: makes no configuration ({reason}).") from error
