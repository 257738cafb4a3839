"""Freshness: whether results are what the present code, settings and inputs would make, by the lineage they carry.

Snakemake knows what results were made from only where it made them, in its own folder; results that were copied here,
or that another machine has replaced, tell it themselves. docs/decisions/0014 says how.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlier_features import shipped
from outlier_features.artefacts import paths
from outlier_features.artefacts.file_states import Memory, State, state
from outlier_features.artefacts.lineage import Lineage, Lineages
from outlier_features.artefacts.records import WITHOUT, recorded
from outlier_features.config.config import Config
from outlier_features.figures import catalogue

TIMESTAMP = ".snakemake_timestamp"
"""The empty file whose time is, to Snakemake, that of the folder it lies in."""


def is_fresh(artefact: str, lineage: Lineage, *paths: Path) -> bool:
    """Return whether results are there and carry a lineage; one that can carry none only has to be there."""
    return all(
        path.is_file() if path.suffix in WITHOUT else recorded(path, artefact) == lineage[artefact] for path in paths
    )


@dataclass(frozen=True)
class Result:
    """The files of one job: an artefact of a model or of a part of its captures, a figure, or what is of all models."""

    artefact: str
    model: str
    """Empty where it is of all models."""
    name: str
    """Model, or part as `model.2-of-4`; empty where there is one of a corpus."""
    lineage: Lineage
    paths: Sequence[Path]

    @property
    def made_from(self) -> list[tuple[str, str]]:
        """The results it is made from, as artefact and model."""
        names = [name.partition(" ") for name in self.lineage if name != self.artefact]
        return [(artefact, model or self.model) for artefact, _, model in names]


class Freshness:
    """Which results of a configuration are there and were made from something else than their lineages say."""

    def __init__(self, config: Config, lineages: Lineages, parts: int) -> None:
        """`parts` is how many captures share the windows of a model out."""
        self._config, self._lineages, self._parts = config, lineages, parts
        self._memory = Memory(paths.lineages_seen())
        self._moved: dict[str, set[tuple[str, str]]] = {}

    def has_moved(self, artefact: str, corpus: str, name: str = "") -> bool:
        """Return whether a file of a result is there and carries another lineage than the wanted one, or none."""
        if corpus not in self._moved:
            self._moved[corpus] = self._examined(corpus)
        return (artefact, name) in self._moved[corpus]

    def _examined(self, corpus: str) -> set[tuple[str, str]]:
        """Return what has moved; put the times of files that arrived in another order than they are made in to one."""
        moved: dict[tuple[str, str], list[Path]] = {}
        newest = {
            ("published", ""): max((state(path)[1] for path in shipped.published("*").parent.glob("*.csv")), default=0)
        }
        arrived: list[Path] = []
        is_in_order = True
        for result in self.results(corpus):
            states = {path: found for path in result.paths if (found := _state(path))}
            if not states:
                continue
            unseen = [path for path, found in states.items() if self._memory.get(str(path), found) is None]
            if not all(self._carries(result, path, found) for path, found in states.items()):
                moved[result.artefact, result.name] = list(states)
            times = [found[1] for found in states.values()]
            before = max(newest.get(each, 0) for each in (("published", ""), *result.made_from))
            is_in_order = is_in_order and (not unseen or before <= min(times))
            arrived += unseen
            key = (result.artefact, result.model)
            newest[key] = max(newest.get(key, 0), *times)
        self._memory.save()
        if not is_in_order:
            _set_time(arrived, time.time())
        _mark(path for paths in moved.values() for path in paths)
        return set(moved)

    def _carries(self, result: Result, path: Path, found: State) -> bool:
        if path.suffix in WITHOUT or path.name == TIMESTAMP:
            return True
        carried = self._memory.get(str(path), found)
        if carried is None:
            carried = recorded(path, result.artefact) or "none"
            self._memory.put(str(path), found, carried)
        return carried == result.lineage[result.artefact]

    def results(self, corpus: str) -> Iterator[Result]:
        """Yield the results of the chosen models on a corpus, each after those it is made from."""
        models, lineages = self._config.chosen.models, self._lineages
        for model in models:
            yield from self._of_model(corpus, model)
        for artefact in paths.OF_EXPERIMENT:
            if artefact != "index":  # which shows the figures
                yield self._of_experiment(artefact, corpus)
        if corpus != self._config.chosen.corpus:  # pictures are of the chosen corpus
            return
        has_series = any(self._config.models[model].series for model in models)
        figures = catalogue.names("experiment") + catalogue.names("series") * has_series
        yield Result("figure", "", "", lineages.figure(corpus), paths.figures(figures))
        for model in models:
            files = paths.figures(catalogue.names("model"), model)
            for name in catalogue.names("mixture"):
                folder = paths.mixture_figure(name, model)
                files += [*(folder / f"{name}.{end}" for end in paths.FORMATS), folder / TIMESTAMP]
            yield Result("model_figure", model, model, lineages.model_figure(corpus, model), files)
        yield self._of_experiment("index", corpus)

    def _of_experiment(self, artefact: str, corpus: str) -> Result:
        lineage = getattr(self._lineages, artefact)(corpus)
        return Result(artefact, "", "", lineage, [*paths.of(artefact, corpus).values()])

    def _of_model(self, corpus: str, model: str) -> Iterator[Result]:
        for artefact in paths.OF_MODEL:
            if artefact in paths.VARIED and not self._has(artefact, model):
                continue
            names = (model,) if artefact == "checkpoint" else (corpus, model)
            lineage = getattr(self._lineages, artefact)(*names)
            if artefact not in paths.SCATTERED:
                yield Result(artefact, model, model, lineage, [*paths.of(artefact, corpus, model).values()])
                continue
            for path in paths.manifests(corpus, model, self._parts, artefact):
                timed = [paths.benchmark(corpus, path.stem)] if artefact == "statistics" else []
                yield Result(artefact, model, path.stem, lineage, [path, *timed])

    def _has(self, artefact: str, model: str) -> bool:
        """Return whether a model has one of VARIED."""
        is_wanted = artefact != "calibration" or self._config.training_windows() > 0
        return is_wanted and self._config.is_varied(model)


def _state(path: Path) -> State | None:
    try:
        return state(path)
    except OSError:
        return None


def _mark(moved: Iterable[Path]) -> None:
    """Make the mark newer than every file of a result that has moved."""
    now = time.time()
    _set_time([path for path in moved if path.stat().st_mtime >= now], now - 1)  # of a machine whose clock is ahead
    paths.mark().mkdir(parents=True, exist_ok=True)
    _set_time([paths.mark()], now)


def _set_time(paths: Iterable[Path], seconds: float) -> None:
    for path in paths:
        os.utime(path, (seconds, seconds))
