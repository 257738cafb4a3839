"""Stages: those of the pipeline without Snakemake: the same paths, lineages and files."""

import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlier_features import shipped
from outlier_features.artefacts import paths, provenance
from outlier_features.artefacts.lineage import Lineage, Lineages
from outlier_features.config import parts
from outlier_features.config.config import Config
from outlier_features.config.entries import Model
from outlier_features.errors import ConfigError
from outlier_features.machine import gpu_lock
from outlier_features.pipeline import history
from outlier_features.pipeline.freshness import is_fresh

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from outlier_features.experiment.summary import Entry


class Stages:
    """Runs stages of the chosen experiment; a result whose lineage is the present one is left as it is.

    `part` is the one of `capture.scatter` parts to capture, counted from 1; all of them, one by one, by default. `say`
    is told what is made and what is up to date. The GPU that the first job takes is held until `leave` is left: a
    process uses one from its first job to its last.
    """

    def __init__(
        self,
        config: Config,
        leave: ExitStack,
        *,
        force: bool = False,
        part: int | None = None,
        say: Callable[[str], object] = print,
    ) -> None:
        self._config, self._leave, self._force, self._part, self._say = config, leave, force, part, say
        self._has_device = False
        self._lineages, self._corpus = Lineages(config), config.chosen.corpus

    def fetch(self, name: str, model: Model) -> None:
        """Put a model's checkpoint into results/checkpoints."""
        from outlier_features.sources.admission import Use
        from outlier_features.sources.fetch import fetch

        lineage = self._lineages.checkpoint(name)
        if not model.keep_weights and not self._force and self._has_statistics(name):
            self._say(f"up to date without weights: {self._manifests(name)[0]}")
        elif model.train is None and self._is_due("checkpoint", lineage, paths.source(name)):
            fetch(model, paths.checkpoint(name), lineage, Use.of(self._config))

    def train(self, name: str, model: Model) -> None:
        """Train a model that has a recipe."""
        from outlier_features.training.checkpoint import train_checkpoint

        lineage = self._lineages.checkpoint(name)
        if model.train is not None and self._is_due("checkpoint", lineage, paths.source(name)):
            self._take_device()
            text = self._config.corpora[model.train.corpus]
            train_checkpoint(model.train, text, paths.checkpoint(name), lineage)

    def tokenize(self, name: str, model: Model) -> None:
        """Pack the corpus into windows for a model."""
        from outlier_features.text.tokenize import tokenize

        lineage, output = self._lineages.tokens(self._corpus, name), paths.tokens(self._corpus, name)
        if self._is_due("tokens", lineage, output):
            tokenize(paths.checkpoint(name), self._config.corpora[self._corpus], output, lineage)

    def capture(self, name: str, model: Model) -> None:
        """Run a model over its windows and keep its statistics and losses."""
        from outlier_features.capture.run import Settings, capture

        config, lineage = self._config, self._lineages.statistics(self._corpus, name)
        settings = Settings.of(
            config.capture, config.counted_sites, config.coverages, model.dtype, model.experts_implementation
        )
        inputs = paths.checkpoint(name), paths.tokens(self._corpus, name)
        for part in self._parts():
            output = paths.manifest(self._corpus, name, part)
            if self._is_due("statistics", lineage, output):
                self._take_device()
                windows = parts.windows(part, config.corpora[self._corpus].sequences)
                capture(*inputs, output, settings, lineage, windows=windows, memory_budget=config.capture.memory_bytes)
        if not model.keep_weights and self._has_statistics(name):
            shutil.rmtree(paths.checkpoint(name), ignore_errors=True)

    def reduce(self, name: str, model: Model) -> None:
        """Evaluate definitions and metrics, and the perplexity."""
        from outlier_features.metrics.evaluate import reduce
        from outlier_features.metrics.perplexity import write_perplexity

        corpus, manifests = self._corpus, self._manifests(name)
        lineage = self._lineages.reduction(corpus, name)
        outputs = paths.of("reduction", corpus, name)
        if self._is_due("reduction", lineage, *outputs.values()):
            reduce(manifests, outputs, self._config.definitions, lineage)
        lineage, output = self._lineages.perplexity(corpus, name), paths.perplexity(corpus, name)
        if self._is_due("perplexity", lineage, output):
            write_perplexity(manifests, paths.tokens(corpus, name), output, lineage)

    def vary(self, name: str, model: Model) -> None:
        """Run a model's variants and interventions in one pass, and say what they cost."""
        from outlier_features.variants.asked import asked_of, model_of
        from outlier_features.variants.evaluate import evaluate
        from outlier_features.variants.vary import vary

        config, corpus = self._config, self._corpus
        if not config.is_varied(name):
            self._say(f"no variants and no interventions: {name}")
            return
        lineage = self._lineages.variants(corpus, name)
        inputs = paths.checkpoint(name), paths.tokens(corpus, name), self._calibration(name)
        for part in self._parts():
            output = paths.manifest(corpus, name, part, "variants")
            if self._is_due("variants", lineage, output):
                self._take_device()
                asked = asked_of(config, name, corpus, lineage)
                chosen = parts.windows(part, config.corpora[corpus].sequences)
                vary(*inputs, output, asked, model_of(config, model), lineage, windows=chosen)
        lineage, outputs = self._lineages.consequences(corpus, name), paths.of("consequences", corpus, name)
        manifests = paths.manifests(corpus, name, config.capture.scatter, "variants")
        if all(path.is_file() for path in manifests) and self._is_due("consequences", lineage, *outputs.values()):
            evaluate(manifests, paths.tokens(corpus, name), outputs, lineage)

    def _calibration(self, name: str) -> Path | None:
        """Return the windows of training text that variants of a model calibrate on, made where they are due."""
        from outlier_features.text.tokenize import calibrate

        windows = self._config.training_windows()
        if not windows:
            return None
        lineage = self._lineages.calibration(self._corpus, name)
        output = paths.of("calibration", self._corpus, name)["tokens"]
        if self._is_due("calibration", lineage, output):
            calibrate(paths.checkpoint(name), self._config.corpora[self._corpus], windows, output, lineage)
        return output

    def summarize(self) -> None:
        """Join the models of the experiment into one table."""
        from outlier_features.experiment.summary import summarize, write_summary

        lineage = self._lineages.summary(self._corpus)
        outputs = [*paths.of("summary", self._corpus).values()]
        if self._is_due("summary", lineage, *outputs):
            entries = [self._entry(name) for name in self._config.chosen.models]
            write_summary(*summarize(entries, self._corpus, lineage), *outputs)
        history.keep(outputs[0], self._config.experiment)

    def reproduce(self) -> None:
        """Set the summary beside the published table; it takes no time, so it is always done."""
        from outlier_features.artefacts.tables import read_table
        from outlier_features.experiment.reproduction_text import reproduce

        lineage, corpus = self._lineages.reproduction(self._corpus), self._corpus
        summary, _ = read_table(paths.summary(corpus), "summary", lineage["summary"])
        csv, markdown = paths.of("reproduction", corpus).values()
        reproduce(summary, shipped.published("arb8020_2025"), csv, markdown, corpus, lineage)
        self._say(f"made: {markdown}")

    def infer(self) -> None:
        """Say what follows: correlations, phase shifts, differences, and the answer in words."""
        from outlier_features.artefacts.tables import read_json
        from outlier_features.experiment.inference import infer

        lineage, corpus = self._lineages.inference(self._corpus), self._corpus
        table, text = paths.of("inference", corpus).values()
        if self._is_due("inference", lineage, table, text):
            models = self._config.chosen.models
            draws = {name: paths.table("draws", corpus, name) for name in models}
            perplexity = {name: paths.perplexity(corpus, name) for name in models}
            convergence = {name: paths.table("convergence", corpus, name) for name in models}
            infer(paths.summary(corpus), draws, perplexity, convergence, table, text, lineage)
        self._say(in_words(read_json(text, "inference", lineage["inference"])))

    def plot(self) -> None:
        """Draw every figure."""
        self._plot_experiment()
        for model in self._config.chosen.models:
            self.plot_model(model)
            self._plot_timings(model)

    def export(self) -> None:
        """Write what people who quantise and people who write papers take along."""
        from outlier_features.exports.export import export, export_summary

        config, corpus = self._config, self._corpus
        for name in config.chosen.models:
            lineage, folder = self._lineages.export(corpus, name), paths.export(corpus, name)
            if self._is_due("export", lineage, *paths.of("export", corpus, name).values()):
                export(self._entry(name), self._manifests(name), config.definitions, corpus, folder, lineage)
        lineage, (latex, markdown) = self._lineages.export_summary(corpus), paths.of("export_summary", corpus).values()
        export_summary(paths.summary(corpus), latex, markdown, config.definitions, corpus, lineage)
        self._say(f"made: {markdown}")

    def page(self) -> None:
        """Write the page of the run: the answer, every figure, the summary, the words, where all of it comes from."""
        from outlier_features.report.index import read_findings, write_page

        corpus, lineage = self._corpus, self._lineages.index(self._corpus)
        answers, perplexity = (
            [path(corpus, model) for model in self._config.chosen.models] for path in (paths.answer, paths.perplexity)
        )
        tables = paths.summary(corpus), paths.inference(corpus, "json")
        findings = read_findings(self._config, *tables, answers, perplexity, lineage)
        write_page(paths.index(), findings, provenance.record(lineage))
        self._say(f"made: {paths.index()}")

    def _plot_experiment(self) -> None:
        from outlier_features.artefacts.tables import read_table
        from outlier_features.figures import catalogue
        from outlier_features.figures.draw import draw_experiment
        from outlier_features.figures.tables import Sweep, read_published

        lineage = self._lineages.figure(self._corpus)
        summary, _ = read_table(paths.summary(self._corpus), "summary", lineage["summary"])
        trends, _ = read_table(paths.inference(self._corpus, "parquet"), "inference", lineage["inference"])
        sweep = Sweep(summary, trends, read_published(self._published()))
        for figure in catalogue.names("experiment") + catalogue.names("series") * bool(summary["series"].notna().any()):
            self._save(draw_experiment(figure, sweep), lineage, *paths.figures([figure]))

    def plot_model(self, model: str) -> None:
        """Draw the figures of one model."""
        from outlier_features.figures import catalogue
        from outlier_features.figures.draw import draw_model, save_of_mixture
        from outlier_features.figures.portraits import read_portrait

        lineage = self._lineages.model_figure(self._corpus, model)
        tables, published = self._tables(model, catalogue.MODEL_TABLES), self._published()
        portrait = read_portrait(self._config.label(model), tables, published, lineage)
        for figure in catalogue.names("model"):
            self._save(draw_model(figure, portrait), lineage, *paths.figures([figure], model))
        for figure in catalogue.names("mixture"):
            save_of_mixture(figure, portrait, paths.mixture_figure(figure, model), provenance.record(lineage))

    def _plot_timings(self, model: str) -> None:
        from outlier_features.figures.model.timings import draw
        from outlier_features.statistics import timings

        lineage = self._lineages.timings(self._corpus, model)
        passes = [timings.read(timings.path_of(m), lineage["statistics"]) for m in self._manifests(model)]
        drawn = draw(self._config.label(model), passes)
        self._save(drawn, lineage, *paths.of("timings", self._corpus, model).values())

    def _save(self, drawn: "Figure", lineage: Lineage, *paths: Path) -> None:
        from outlier_features.figures.draw import save

        for path in paths:
            save(drawn, path, provenance.record(lineage))

    def _entry(self, name: str) -> "Entry":
        from outlier_features.experiment.summary import entry

        tables = self._tables(name, ("outliers", "layers"))
        return entry(self._config.models, name, **tables, perplexity=paths.perplexity(self._corpus, name))

    def _published(self) -> list[Path]:
        return [shipped.published(name) for name in shipped.PUBLISHED]

    def _tables(self, model: str, names: Iterable[str]) -> dict[str, Path]:
        return {name: paths.table(name, self._corpus, model) for name in names}

    def _take_device(self) -> None:
        if not self._has_device:
            self._leave.enter_context(gpu_lock.device())
            self._has_device = True

    def _has_statistics(self, name: str) -> bool:
        return is_fresh("statistics", self._lineages.statistics(self._corpus, name), *self._manifests(name))

    def _manifests(self, name: str) -> list[Path]:
        return paths.manifests(self._corpus, name, self._config.capture.scatter)

    def _parts(self) -> list[str | None]:
        """Return the names of the parts to capture. Raises ConfigError."""
        found = parts.parts(self._config.capture.scatter)
        if self._part is None:
            return found
        if not 1 <= self._part <= len(found):
            raise ConfigError(f"--part {self._part}: capture.scatter is {len(found)}; give a part of 1 to {len(found)}")
        return [found[self._part - 1]]

    def _is_due(self, artefact: str, lineage: Lineage, *paths: Path) -> bool:
        fresh = is_fresh(artefact, lineage, *paths)
        self._say(f"{'up to date' if fresh and not self._force else 'making'}: {paths[0]}")
        return self._force or not fresh


EACH_MODEL: dict[str, Callable[[Stages, str, Model], None]] = {
    "fetch": Stages.fetch,
    "train": Stages.train,
    "tokenize": Stages.tokenize,
    "capture": Stages.capture,
    "reduce": Stages.reduce,
    "vary": Stages.vary,
}
WHOLE_EXPERIMENT: dict[str, Callable[[Stages], None]] = {
    "summarize": Stages.summarize,
    "infer": Stages.infer,
    "reproduce": Stages.reproduce,
    "plot": Stages.plot,
    "export": Stages.export,
    "page": Stages.page,
}


def in_words(found: Mapping[str, Any]) -> str:
    """Return the answer of an inference, and what can and cannot be concluded, a paragraph each."""
    paragraphs = (found["answer"], *(f"- {sentence}" for sentence in found["sentences"]))
    return "\n".join(textwrap.fill(paragraph, 120) for paragraph in paragraphs)
