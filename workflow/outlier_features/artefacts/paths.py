"""Paths: where results lie, the same paths as in the rules, for those who run without Snakemake."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from outlier_features.config import parts
from outlier_features.config.config import Config

_results = [Path("results")]
"""The folder of all results, on top of those it was before; one for all threads, which a ContextVar is not."""


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


def checkpoint(model: str) -> Path:
    """Return the directory of a model: config, tokenizer, safetensors, source.json."""
    return results() / "checkpoints" / model


def source(model: str) -> Path:
    """Return the file that seals a checkpoint and says where it comes from."""
    return checkpoint(model) / "source.json"


def seal(config: Config, model: str) -> Path:
    """Return what stands for a checkpoint in the workflow: its seal, or its directory where the weights do not stay.

    Raises ConfigError where there is no such model.
    """
    return source(model) if config.model(model).keep_weights else checkpoint(model)


def benchmark(corpus: str, name: str) -> Path:
    """Return what Snakemake measures of a capture, whose time it compares too; `name` is that of the manifest."""
    return results() / "logs" / "capture" / corpus / f"{name}.benchmark.tsv"


def tokens(corpus: str, model: str) -> Path:
    """Return the file of packed windows of token ids."""
    return results() / corpus / "tokens" / f"{model}.arrow"


def manifest(corpus: str, model: str, part: str | None = None) -> Path:
    """Return the manifest of a model's statistics shards, which lie in the directory of its name beside it.

    `part`, as `2-of-4`, is that of one of several captures that share the windows out.
    """
    return results() / corpus / "statistics" / (f"{model}.json" if part is None else f"{model}.{part}.json")


def manifests(corpus: str, model: str, scatter: int) -> list[Path]:
    """Return the manifests of all statistics of a model whose windows so many captures share out."""
    return [manifest(corpus, model, part) for part in parts.parts(scatter)]


def table(name: str, corpus: str, model: str) -> Path:
    """Return a table of a model: `name` is one of TABLES."""
    return results().joinpath(corpus, name, f"{model}.parquet")


def perplexity(corpus: str, model: str) -> Path:
    """Return the file of perplexity and bits per byte."""
    return results() / corpus / "perplexity" / f"{model}.json"


def answer(corpus: str, model: str) -> Path:
    """Return the answer for one model: its outlier channels, in values and in words."""
    return results() / corpus / "answers" / f"{model}.json"


def summary(corpus: str, suffix: str) -> Path:
    """Return the summary of an experiment as `suffix`: parquet, csv or json."""
    return results() / corpus / f"summary.{suffix}"


def inference(corpus: str, suffix: str) -> Path:
    """Return what follows from the summary as `suffix`: parquet, or json with the answer in words."""
    return results() / corpus / f"inference.{suffix}"


def reproduction(corpus: str, suffix: str) -> Path:
    """Return the comparison with the published table as `suffix`: csv, or md to read."""
    return results() / corpus / f"reproduction.{suffix}"


def export(corpus: str, model: str, name: str = "") -> Path:
    """Return a file of a model's export, one of EXPORTS, or the folder that holds them."""
    return results().joinpath(corpus, "export", model, name)


def export_summary(corpus: str, suffix: str) -> Path:
    """Return the table of an experiment for a paper as `suffix`: tex or md."""
    return results() / corpus / "export" / f"summary.{suffix}"


def figure(name: str, suffix: str, model: str | None = None) -> Path:
    """Return a figure, of one model where one is named."""
    return results().joinpath("plots", f"{name}.{suffix}" if model is None else f"{name}/{model}.{suffix}")


def mixture_figure(name: str, model: str) -> Path:
    """Return the folder of a figure of a mixture of experts, in every format; that of a dense model is empty."""
    return results() / "plots" / name / model


def configuration() -> Path:
    """Return the configuration of a measurement, kept with its results."""
    return results() / "config.yaml"


def standard_input() -> Path:
    """Return where a text that came through standard input is kept."""
    return results() / "standard-input.txt"


def index() -> Path:
    """Return the page of a run."""
    return results() / "index.html"


def history() -> Path:
    """Return the folder of summaries that later runs have overwritten."""
    return results() / "history"


def timings(corpus: str, model: str) -> Path:
    """Return the figure of where the capture of a model spent its time."""
    return results() / corpus / "timings" / f"{model}.svg"


def digests() -> Path:
    """Return the folder that remembers what local texts and checkpoints hold."""
    return results() / ".digests"


def lineages_seen() -> Path:
    """Return the file that remembers which lineages results carry."""
    return results() / ".digests" / "lineages.json"


def mark() -> Path:
    """Return what Snakemake is told to take for a newer input of each result whose lineage has moved."""
    return results() / ".lineage-has-moved"


def of_model(corpus: str, model: str) -> dict[str, list[Path]]:
    """Return the files of each artefact that is made from the statistics of a model, by artefact."""
    return {
        "reduction": [*(table(name, corpus, model) for name in TABLES), answer(corpus, model)],
        "perplexity": [perplexity(corpus, model)],
        "timings": [timings(corpus, model)],
        "export": [export(corpus, model, name) for name in EXPORTS],
    }


def of_experiment(corpus: str) -> dict[str, list[Path]]:
    """Return the files of each artefact that is made from all models of an experiment, by artefact."""
    return {
        "summary": [summary(corpus, suffix) for suffix in ("parquet", "csv", "json")],
        "inference": [inference(corpus, suffix) for suffix in ("parquet", "json")],
        "reproduction": [reproduction(corpus, suffix) for suffix in ("csv", "md")],
        "export_summary": [export_summary(corpus, suffix) for suffix in ("tex", "md")],
    }


TABLES = ("outliers", "channels", "layers", "draws", "convergence", "positions")
"""The tables of a model."""

EXPORTS = (
    "outlier_channels.json",
    "act_scales.safetensors",
    "act_scales_rest.safetensors",
    "importance.safetensors",
    "table.tex",
    "table.md",
)
"""What the export of a model consists of."""

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
