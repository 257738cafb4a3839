"""Lineages: one hash that says what a result was made from, so a result is stale exactly when its lineage has moved.

The lineage of an artefact covers the script that makes it, every module of this library which that script reaches
through imports (as syntax trees, so comments, docstrings and formatting change nothing), its own slice of the
configuration in canonical form, and the lineages of what it is made from. File times play no part.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any

from outlier_features.config import Config

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parent / "scripts"
PAGE = PACKAGE.parent / "report" / "first_page"

WITHOUT_EFFECT = {
    "compiling",
    "config",
    "disk",
    "errors",
    "footprint",
    "hub",
    "layout",
    "leases",
    "lineage",
    "logs",
    "patience",
    "planning",
    "timings",
}
"""Modules from which no number follows: the configuration enters by value, what the hub sends is checked by its digest,
plans are estimates, the others carry words and paths."""

WITHOUT_EFFECT_ON_WEIGHTS = {"label", "dtype", "series", "step", "keep_weights"}
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
    """The lineage of every artefact of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: dict[tuple[str, ...], Lineage] = {}

    @_once
    def checkpoint(self, model: str) -> Lineage:
        """Return the lineage of a model's directory, fetched or trained."""
        entry = self._config.model(model)
        if entry.train is None:
            return _lineage("checkpoint", "fetch", entry.canonical(without=WITHOUT_EFFECT_ON_WEIGHTS))
        text = self._text(entry.train.corpus, "training")
        return _lineage("checkpoint", "train", {"recipe": entry.train.canonical(), "text": text})

    @_once
    def tokens(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the packed windows of token ids."""
        cut = self._config.corpora[corpus].canonical(without={"training"})
        return _lineage("tokens", "tokenize", cut, checkpoint=self.checkpoint(model))

    @_once
    def statistics(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the statistics shards. Thresholds of definitions are no part of it."""
        grids = {name: sorted(getattr(self._config.capture, name)) for name in ("thresholds", "rms_thresholds")}
        settings = {
            "capture": self._config.capture.canonical(without={"scatter", "memory_budget"}) | grids,
            "counted_sites": self._config.counted_sites,
            "coverages": self._config.coverages,
            "dtype": self._config.model(model).dtype,
        }
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
    def summary(self, corpus: str) -> Lineage:
        """Return the lineage of the summary of the chosen experiment."""
        models = self._config.chosen.models
        entries = {model: self._config.models[model] for model in models}
        names = {model: [self._config.label(model), e.hub, e.series, e.step] for model, e in entries.items()}
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
        """Return the lineage of the comparison with the published table, which itself is no part of it."""
        return _lineage("reproduction", "reproduce", {}, summary=self.summary(corpus))

    def figure(self, corpus: str) -> Lineage:
        """Return the lineage of the figures drawn from the summary."""
        upstream = {"summary": self.summary(corpus), "inference": self.inference(corpus)}
        return _lineage("figure", "plot", {}, **upstream)

    def model_figure(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the figures of one model."""
        label = self._config.label(model)
        return _lineage("model_figure", "plot_model", {"label": label}, reduction=self.reduction(corpus, model))

    def first_page(self, corpus: str) -> Lineage:
        """Return the lineage of the first page of the report, with its markup and style, which no import leads to."""
        upstream = {"summary": self.summary(corpus), "inference": self.inference(corpus), "figure": self.figure(corpus)}
        upstream |= {f"perplexity {model}": self.perplexity(corpus, model) for model in self._config.chosen.models}
        return _lineage("first_page", "first_page", {"page": _content(PAGE)}, **upstream)

    def timings(self, corpus: str, model: str) -> Lineage:
        """Return the lineage of the figure of timings, which themselves are no result and no part of it."""
        label = self._config.label(model)
        return _lineage("timings", "plot_timings", {"label": label}, statistics=self.statistics(corpus, model))

    def _text(self, corpus: str, part: str) -> dict[str, Any]:
        """Return the part of a corpus entry that says which text is read, without how it is cut."""
        cutting = {"sequences", "length", "stride", "bos", "windows"}
        other = {"training": "files", "files": "training"}[part]
        return self._config.corpora[corpus].canonical(without=cutting | {other})


def sources(script: Path) -> list[Path]:
    """Return a script and every module of this library that it imports, directly or not, sorted."""
    found: set[Path] = set()
    queue = [script]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            queue.extend(_imported(path))
    return sorted(found)


def _lineage(artefact: str, stage: str, settings: Any, **upstream: Lineage) -> Lineage:
    """Return the lineage of `artefact`, made by the script `stage` from `upstream`."""
    parents = {name: parent[name.partition(" ")[0]] for name, parent in upstream.items()}
    content = {"code": _code(stage), "settings": settings, "upstream": parents}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {artefact: digest[:16], **parents}


@cache
def _code(stage: str) -> str:
    digest = hashlib.sha256()
    for path in sources(SCRIPTS / f"{stage}.py"):
        digest.update(f"{path.relative_to(PACKAGE.parent).as_posix()}\n{_meaning(path)}\n".encode())
    return digest.hexdigest()


@cache
def _content(folder: Path) -> str:
    """Return a digest of the files in a folder, with their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(
            f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()


@cache
def _meaning(path: Path) -> str:
    """Return a module's code without comments, docstrings and formatting."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [s for s in node.body if not _is_docstring(s)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@cache
def _imported(path: Path) -> tuple[Path, ...]:
    names: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(file for name in names for file in _module_files(name))


def _module_files(name: str) -> Iterator[Path]:
    """Yield the files that importing `name` runs, as far as they belong to this library and affect results."""
    package, *parts = name.split(".")
    if package != PACKAGE.name or (parts[:1] and parts[0] in WITHOUT_EFFECT):
        return
    for depth in range(1, len(parts) + 1):  # the package itself holds nothing but its version
        base = PACKAGE.joinpath(*parts[:depth])
        yield from (path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file())


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
