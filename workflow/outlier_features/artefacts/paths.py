"""Paths: where results lie, the same paths as in the rules, for those who run without Snakemake."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from outlier_features.config import parts

if TYPE_CHECKING:
    from outlier_features.config.config import Config

_results = [Path("results")]
"""The folder of all results, on top of those it was before; one for all threads, which a ContextVar is not."""

FORMATS = ("png", "svg")
"""The formats of a figure, as suffixes."""

TABLES = ("outliers", "channels", "layers", "draws", "convergence", "positions", "damage")
"""The tables of a model."""

CONSEQUENCES = ("quantization", "sqnr", "interventions")
"""The tables of a model's variants."""

VARIED = ("calibration", "variants", "consequences")
"""The artefacts that only a model with variants or interventions has."""

SCATTERED = ("statistics", "variants")
"""The artefacts that several jobs may share out."""

OF_MODEL = {
    "checkpoint": {"source": "checkpoints/{model}/source.json"},
    "tokens": {"tokens": "{corpus}/tokens/{model}.arrow"},
    "statistics": {"manifest": "{corpus}/statistics/{model}.json"},
    "reduction": {
        **{name: f"{{corpus}}/{name}/{{model}}.parquet" for name in TABLES},
        "answer": "{corpus}/answers/{model}.json",
    },
    "perplexity": {"perplexity": "{corpus}/perplexity/{model}.json"},
    "calibration": {"tokens": "{corpus}/calibration/{model}.arrow"},
    "variants": {"manifest": "{corpus}/variants/{model}.json"},
    "consequences": {name: f"{{corpus}}/{name}/{{model}}.parquet" for name in CONSEQUENCES},
    "timings": {"svg": "{corpus}/timings/{model}.svg"},
    "export": {
        "channels": "{corpus}/export/{model}/outlier_channels.json",
        "scales": "{corpus}/export/{model}/act_scales.safetensors",
        "scales_rest": "{corpus}/export/{model}/act_scales_rest.safetensors",
        "importance": "{corpus}/export/{model}/importance.safetensors",
        "input_scales": "{corpus}/export/{model}/input_scales.safetensors",
        "kv_scales": "{corpus}/export/{model}/kv_scales.safetensors",
        "calibration": "{corpus}/export/{model}/calibration.json",
        "latex": "{corpus}/export/{model}/table.tex",
        "markdown": "{corpus}/export/{model}/table.md",
    },
}
"""The files of each artefact of a model, by the names that its rule gives them; each after those it is made from."""

OF_EXPERIMENT = {
    "summary": {name: f"{{corpus}}/summary.{name}" for name in ("parquet", "csv", "json")},
    "inference": {name: f"{{corpus}}/inference.{name}" for name in ("parquet", "json")},
    "reproduction": {"csv": "{corpus}/reproduction.csv", "markdown": "{corpus}/reproduction.md"},
    "export_summary": {"latex": "{corpus}/export/summary.tex", "markdown": "{corpus}/export/summary.md"},
    "index": {"page": "index.html"},
}
"""The same of what is made of all models of an experiment."""


@contextmanager
def within(folder: Path) -> Iterator[None]:
    """Let results lie in another folder than `results`, as those of a model that is measured by itself do."""
    _results.append(Path(folder))
    try:
        yield
    finally:
        _results.pop()


def results() -> Path:
    """Return the folder of all results."""
    return _results[-1]


def of(artefact: str, corpus: str, model: str = "") -> dict[str, Path]:
    """Return the files of an artefact of OF_MODEL or OF_EXPERIMENT, by name. Figures have functions of their own."""
    files = OF_EXPERIMENT[artefact] if artefact in OF_EXPERIMENT else OF_MODEL[artefact]
    return {name: results() / file.format(corpus=corpus, model=model) for name, file in files.items()}


def checkpoint(model: str) -> Path:
    """Return the directory of a model: config, tokenizer, safetensors, source.json."""
    return results() / "checkpoints" / model


def source(model: str) -> Path:
    """Return the file that seals a checkpoint and says where it comes from."""
    return of("checkpoint", "", model)["source"]


def seal(config: "Config", model: str) -> Path:
    """Return what stands for a checkpoint in the workflow: its seal, or its directory where the weights do not stay.

    Raises ConfigError where there is no such model.
    """
    return source(model) if config.model(model).keep_weights else checkpoint(model)


def benchmark(corpus: str, name: str) -> Path:
    """Return what Snakemake measures of a capture, whose time it compares too; `name` is that of the manifest."""
    return results() / "logs" / "capture" / corpus / f"{name}.benchmark.tsv"


def tokens(corpus: str, model: str) -> Path:
    """Return the file of packed windows of token ids."""
    return of("tokens", corpus, model)["tokens"]


def manifest(corpus: str, model: str, part: str | None = None, artefact: str = "statistics") -> Path:
    """Return the manifest of a model's shards, by default statistics, which lie in the directory of its name beside it.

    `part`, as `2-of-4`, is that of one of several captures that share the windows out.
    """
    return of(artefact, corpus, model if part is None else f"{model}.{part}")["manifest"]


def manifests(corpus: str, model: str, scatter: int, artefact: str = "statistics") -> list[Path]:
    """Return the manifests of one of SCATTERED of a model whose windows so many jobs share out."""
    return [manifest(corpus, model, part, artefact) for part in parts.parts(scatter)]


def table(name: str, corpus: str, model: str) -> Path:
    """Return a table of a model: `name` is one of TABLES."""
    return of("reduction", corpus, model)[name]


def perplexity(corpus: str, model: str) -> Path:
    """Return the file of perplexity and bits per byte."""
    return of("perplexity", corpus, model)["perplexity"]


def answer(corpus: str, model: str) -> Path:
    """Return the answer for one model: its outlier channels, in values and in words."""
    return of("reduction", corpus, model)["answer"]


def summary(corpus: str) -> Path:
    """Return the summary of an experiment as a table."""
    return of("summary", corpus)["parquet"]


def inference(corpus: str, form: str) -> Path:
    """Return what follows from the summary as `form`: parquet, or json with the answer in words."""
    return of("inference", corpus)[form]


def export(corpus: str, model: str) -> Path:
    """Return the folder that holds a model's export."""
    return of("export", corpus, model)["channels"].parent


def index() -> Path:
    """Return the page of a run."""
    return of("index", "")["page"]


def figure(name: str, suffix: str, model: str | None = None) -> Path:
    """Return a figure, of one model where one is named, as one of FORMATS."""
    return results().joinpath("plots", f"{name}.{suffix}" if model is None else f"{name}/{model}.{suffix}")


def figures(names: Iterable[str], model: str | None = None) -> list[Path]:
    """Return figures, of one model where one is named, each in every format."""
    return [figure(name, suffix, model) for name in names for suffix in FORMATS]


def mixture_figure(name: str, model: str) -> Path:
    """Return the folder of a figure of a mixture of experts, in every format; that of a dense model is empty."""
    return results() / "plots" / name / model


def configuration() -> Path:
    """Return the configuration of a measurement, kept with its results."""
    return results() / "config.yaml"


def standard_input() -> Path:
    """Return where a text that came through standard input is kept."""
    return results() / "standard-input.txt"


def history() -> Path:
    """Return the folder of summaries that later runs have overwritten."""
    return results() / "history"


def digests() -> Path:
    """Return the folder that remembers what local texts and checkpoints hold."""
    return results() / ".digests"


def lineages_seen() -> Path:
    """Return the file that remembers which lineages results carry."""
    return results() / ".digests" / "lineages.json"


def mark() -> Path:
    """Return what Snakemake is told to take for a newer input of each result whose lineage has moved."""
    return results() / ".lineage-has-moved"


MODEL = "[^/]+"
"""The wildcard constraint of a model. It lists none: every job of a rule would be matched against all of them."""

WHOLE = rf"(?![^/]*{parts.PART}\.json)[^/]+"
"""The same, where the manifest of a part must not be taken for that of a model."""


def one_of(names: Iterable[str]) -> str:
    """Return the wildcard constraint that allows just these names, and nothing where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def none_of(names: Iterable[str]) -> str:
    """Return the wildcard constraint that allows the name of any folder but these."""
    return f"(?!(?:{one_of(names)})/)[^/]+"
