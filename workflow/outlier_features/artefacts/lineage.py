"""Lineages: one hash that says what a result was made from, so a result is stale exactly when its lineage has moved.

The lineage of an artefact covers what the code of the script that makes it means (`code_hash`), its own slice of the
configuration in canonical form, the content of the local files it reads, and the lineages of what it is made from. File
times play no part.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal

from outlier_features import shipped
from outlier_features.artefacts import code_hash, local_files, packages, paths
from outlier_features.artefacts.digests import Digests, of_file
from outlier_features.artefacts.records import recorded
from outlier_features.config.config import Config
from outlier_features.config.entries import Model
from outlier_features.errors import SourceError

SCRIPTS = shipped.path("scripts")
PAGE = shipped.path("report") / "index"

WITHOUT_EFFECT_ON_WEIGHTS = {"label", "dtype", "experts_implementation", "series", "step", "keep_weights"}
"""Keys of a model's entry that leave its checkpoint as it is."""

Lineage = dict[str, Any]
"""The lineage of an artefact under its own name, and those of what it is made from under theirs."""


def _once(method: Callable[..., Lineage]) -> Callable[..., Lineage]:
    """Remember what a method of Lineages returns: each lineage is asked for by every one that is made from it."""

    @wraps(method)
    def remembered(self: "Lineages", *names: str) -> Lineage:
        key = (method.__name__, *names)
        if key not in self._found:
            self._found[key] = method(self, *names)
        return self._found[key]

    return remembered


class Lineages:
    """The lineage of every artefact of one configuration.

    The content of a local text, checkpoint or package is part of it under the name `content`. Where that is no longer
    there, it counts as what the result made from it says that it was.
    """

    def __init__(self, config: Config, digests: Digests | None = None) -> None:
        self._config, self._digests = config, digests or Digests(paths.digests())
        self._found: dict[tuple[str, ...], Lineage] = {}
        self._texts: dict[tuple[str, str], str] = {}

    @_once
    def checkpoint(self, model: str) -> Lineage:
        """Return the lineage of a model's directory, fetched or trained."""
        entry = self._config.model(model)
        if entry.train is None:
            content = None if entry.hub else _content(lambda: self._weights(entry), paths.source(model))
            return _lineage("checkpoint", "fetch", entry.canonical(without=WITHOUT_EFFECT_ON_WEIGHTS), content)
        text, content = self._text(entry.train.corpus, "training", paths.source(model))
        return _lineage("checkpoint", "train", {"recipe": entry.train.canonical(), "text": text}, content)

    @_once
    def tokens(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the packed windows of token ids."""
        cut = self._config.corpora[corpus].canonical(without={"training"})
        _, content = self._text(corpus, "files", paths.tokens(corpus, model))
        return _lineage("tokens", "tokenize", cut, content, checkpoint=self.checkpoint(model))

    @_once
    def statistics(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the statistics shards. Thresholds of definitions are no part of it."""
        entry = self._config.model(model)
        grids = {name: sorted(getattr(self._config.capture, name)) for name in ("thresholds", "rms_thresholds")}
        settings: dict[str, Any] = {
            "capture": self._config.capture.canonical(without={"scatter", "memory_budget"}) | grids,
            "counted_sites": self._config.counted_sites,
            "coverages": self._config.coverages,
            "dtype": entry.dtype,
        }
        if entry.experts_implementation is not None:
            settings["experts_implementation"] = entry.experts_implementation
        upstream = {"checkpoint": self.checkpoint(model), "tokens": self.tokens(corpus, model)}
        return _lineage("statistics", "capture", settings, **upstream)

    @_once
    def reduction(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the tables of outlier features, channels and layers."""
        definitions = {name: definition.canonical() for name, definition in self._config.definitions.items()}
        return _lineage("reduction", "reduce", definitions, statistics=self.statistics(corpus, model))

    @_once
    def perplexity(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the perplexity file."""
        upstream = {"statistics": self.statistics(corpus, model), "tokens": self.tokens(corpus, model)}
        return _lineage("perplexity", "perplexity", {}, **upstream)

    @_once
    def calibration(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the windows of training text that variants calibrate on."""
        cut = self._config.corpora[corpus].canonical(without={"files", "sequences"})
        _, content = self._text(corpus, "training", paths.of("calibration", corpus, model)["tokens"])
        settings = {"cut": cut, "windows": self._config.training_windows()}
        return _lineage("calibration", "calibrate", settings, content, checkpoint=self.checkpoint(model))

    @_once
    def variants(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of a pass with the variants and interventions of a model. A capture is no part of it."""
        config, entry = self._config, self._config.model(model)
        settings: dict[str, Any] = {
            "variants": {name: variant.result() for name, variant in config.variants_of(model).items()},
            "interventions": {name: each.result() for name, each in config.interventions_of(model).items()},
            "vary": config.vary.canonical(),
            "dtype": entry.dtype,
            "experts_implementation": entry.experts_implementation,
        }
        upstream = {"checkpoint": self.checkpoint(model), "tokens": self.tokens(corpus, model)}
        if config.training_windows():
            upstream["calibration"] = self.calibration(corpus, model)
        if config.needs_capture(model):
            upstream["reduction"] = self.reduction(corpus, model)
        return _lineage("variants", "vary", settings, **upstream)

    @_once
    def consequences(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the tables of quantisation, SQNR and interventions."""
        upstream = {"variants": self.variants(corpus, model), "tokens": self.tokens(corpus, model)}
        return _lineage("consequences", "evaluate_variants", {}, **upstream)

    @_once
    def summary(self, corpus: str) -> Lineage:
        """Return the lineage of the summary of the chosen experiment."""
        models = self._config.chosen.models
        entries = {model: self._config.models[model] for model in models}
        names = {model: [self._config.label(model), e.source, e.hub, e.series, e.step] for model, e in entries.items()}
        upstream = {f"reduction {model}": self.reduction(corpus, model) for model in models}
        upstream |= {f"perplexity {model}": self.perplexity(corpus, model) for model in models}
        settings = {"corpus": corpus, "models": list(models), "names": names}
        return _lineage("summary", "summarize", settings, **upstream)

    @_once
    def inference(self, corpus: str) -> Lineage:
        """Return the lineage of what follows from the summary, and from the draws of its models."""
        upstream = {"summary": self.summary(corpus)}
        for model in self._config.chosen.models:
            upstream[f"reduction {model}"] = self.reduction(corpus, model)
            upstream[f"perplexity {model}"] = self.perplexity(corpus, model)
        return _lineage("inference", "infer", {}, **upstream)

    @_once
    def export(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of what a model gives to those who quantise and who write papers."""
        upstream = {"statistics": self.statistics(corpus, model)}
        upstream |= {f"reduction {model}": self.reduction(corpus, model)}
        upstream |= {f"perplexity {model}": self.perplexity(corpus, model)}
        return _lineage("export", "export", {"label": self._config.label(model)}, **upstream)

    def export_summary(self, corpus: str) -> Lineage:
        """Return the lineage of the table of an experiment for a paper."""
        return _lineage("export_summary", "export_summary", {}, summary=self.summary(corpus))

    def reproduction(self, corpus: str) -> Lineage:
        """Return the lineage of the comparison with the published table."""
        settings = {"published": _published(shipped.PUBLISHED[:1])}
        return _lineage("reproduction", "reproduce", settings, summary=self.summary(corpus))

    def figure(self, corpus: str) -> Lineage:
        """Return the lineage of the figures drawn from the summary and the published tables."""
        upstream = {"summary": self.summary(corpus), "inference": self.inference(corpus)}
        return _lineage("figure", "plot", {"published": _published(shipped.PUBLISHED)}, **upstream)

    def model_figure(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the figures of one model."""
        settings = {"label": self._config.label(model), "published": _published(shipped.PUBLISHED)}
        return _lineage("model_figure", "plot_model", settings, reduction=self.reduction(corpus, model))

    def index(self, corpus: str) -> Lineage:
        """Return the lineage of the page of the run, with its title, and markup and style, which no import leads to."""
        upstream = {"summary": self.summary(corpus), "inference": self.inference(corpus), "figure": self.figure(corpus)}
        for model in self._config.chosen.models:
            upstream[f"perplexity {model}"] = self.perplexity(corpus, model)
            upstream[f"reduction {model}"] = self.reduction(corpus, model)
            upstream[f"model_figure {model}"] = self.model_figure(corpus, model)
        settings = {"experiment": self._config.experiment, "page": _folder(PAGE)}
        return _lineage("index", "index", settings, **upstream)

    def timings(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the figure of timings, which themselves are no result and no part of it."""
        label = self._config.label(model)
        return _lineage("timings", "plot_timings", {"label": label}, statistics=self.statistics(corpus, model))

    def _text(self, name: str, part: Literal["files", "training"], made: Path) -> tuple[dict[str, Any], str | None]:
        """Return the part of a corpus entry that says which text is read, without how it is cut, and what that holds.

        None for a text of the hub. `made` is what was made from it.
        """
        cutting = {"sequences", "length", "stride", "bos", "windows"}
        other = {"training": "files", "files": "training"}[part]
        corpus = self._config.corpora[name]
        settings = corpus.canonical(without=cutting | {other})
        if corpus.hub:
            return settings, None
        if (name, part) not in self._texts:
            self._texts[name, part] = _content(lambda: self._held(*local_files.of_text(corpus, part)))
        return settings, self._texts[name, part] or recorded(made, "content") or ""

    def _weights(self, entry: Model) -> str:
        """Return the digest of what a model of a local directory or of a package is made from."""
        if entry.package is not None:
            return self._held(packages.directory(entry.package), [str(entry.file)])
        directory = Path(str(entry.path))
        return self._held(directory, local_files.of_checkpoint(directory))

    def _held(self, root: Path, names: list[str]) -> str:
        return self._digests.of(root, names) if names else ""


def _lineage(artefact: str, stage: str, settings: Any, content: str | None = None, /, **upstream: Lineage) -> Lineage:
    """Return the lineage of `artefact`, made by the script `stage` from `upstream` and from files of that `content`."""
    own = {} if content is None else {"content": content}
    parents = {name: parent[name.partition(" ")[0]] for name, parent in upstream.items()}
    made_from = {"code": code_hash.of_script(SCRIPTS / f"{stage}.py"), "settings": settings, "upstream": parents, **own}
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return {artefact: digest[:16], **own, **parents}


def _content(read: Callable[[], str], made: Path | None = None) -> str:
    """Return what `read` finds; where that is not to be read, what the result `made` says it was made from."""
    try:
        found = read()
    except (SourceError, OSError):
        found = ""
    return found or (recorded(made, "content") if made else None) or ""


@cache
def _published(names: tuple[str, ...]) -> list[str]:
    """Return the digests of published tables."""
    return [of_file(shipped.published(name)) for name in names]


@cache
def _folder(folder: Path) -> str:
    """Return a digest of the files in a folder, with their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {of_file(path)}\n".encode())
    return digest.hexdigest()
