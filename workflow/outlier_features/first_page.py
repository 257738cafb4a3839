"""First page: an experiment for a reader in a hurry, as one file of HTML that needs nothing beside it.

The question, the answer that the statistics write, the headline figure, the summary as a table, and where all of it
comes from. The same inputs give the same bytes. Every word that comes from a configuration or a table is escaped.
"""

import base64
import gzip
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from PIL import Image

from outlier_features import atomic, catalogue, contents, layout, provenance
from outlier_features.config import Config, Corpus, Definition
from outlier_features.counts import human
from outlier_features.errors import DamagedFile
from outlier_features.lineage import Lineage
from outlier_features.tables import read_json, read_table

TEMPLATES = Path(__file__).parents[1] / "report" / "first_page"
"""The page without its words: markup, style, behaviour and the library of tables. Part of the lineage by content."""

WIDEST = 1300
"""Pixels of a picture: the page is 76rem wide."""
TWIN = "_rms"
KINDS = {"dense": "dense", "moe": "mixture of experts"}
TABLES = {
    "outliers": "outlier features",
    "channels": "channels with a hit",
    "layers": "metrics by block and site",
    "draws": "bootstrap draws",
    "convergence": "convergence over windows",
    "positions": "positions of the window",
}
"""The tables of a model, and what is in a row."""


@dataclass(frozen=True)
class Findings:
    """What the page tells of an experiment."""

    experiment: str
    corpus: str
    text: Corpus
    definitions: Mapping[str, Definition]
    summary: pd.DataFrame
    """One row per model and definition."""
    inference: Mapping[str, Any]
    """`answer`, `sentences` and `headline`, as far as the statistics gave them."""
    origins: Mapping[str, provenance.Provenance]
    """How each model was measured, by its key in the configuration: source, precision, device, versions, lineage."""


def read_findings(
    config: Config, summary: Path, inference: Path, perplexity: Iterable[Path], lineage: Lineage
) -> Findings:
    """Read what the page tells. Raises DamagedFile, and StaleFile for what was made of something else."""
    table, _ = read_table(summary, "summary", lineage["summary"])
    answer = read_json(inference, "inference", lineage["inference"])
    corpus, models = config.chosen.corpus, config.chosen.models
    files = zip(models, perplexity, strict=True)
    found = {model: read_json(path, "perplexity", lineage[f"perplexity {model}"]) for model, path in files}
    origins = {model: each["provenance"].get("statistics", {}) for model, each in found.items()}  # how it was measured
    return Findings(config.experiment, corpus, config.corpora[corpus], config.definitions, table, answer, origins)


def write_first_page(
    path: Path, findings: Findings, pictures: Mapping[str, Path], origin: provenance.Provenance
) -> None:
    """Write the page atomically; `pictures` are the PNG of contents.PICTURES, `origin` the provenance of the page."""
    page = render(findings, {name: _smaller(picture) for name, picture in pictures.items()}, origin)
    with atomic.file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def _smaller(figure: Path) -> bytes:
    """Return a PNG as wide as the page and in 256 colours: browsers open no more than 2 MB inside a report."""
    try:
        with Image.open(figure) as image:
            fitting = image.convert("RGB")
            fitting.thumbnail((WIDEST, WIDEST * fitting.height // fitting.width), Image.Resampling.LANCZOS)
            fewer = fitting.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    except OSError as error:
        raise DamagedFile(f"{figure}: not a readable PNG; delete it and run snakemake again.") from error
    written = io.BytesIO()
    fewer.save(written, "PNG", optimize=True)
    return written.getvalue()


def render(findings: Findings, pictures: Mapping[str, bytes], origin: provenance.Provenance) -> str:
    """Return the page as HTML; `pictures` are PNG by the names of their figures."""
    summary, inference = findings.summary, findings.inference
    definitions = list(dict.fromkeys(summary["definition"]))
    headline = (inference.get("headline") or {}).get("definition")
    template = _templates().get_template("page.html")
    return template.render(
        experiment=findings.experiment,
        answer=inference.get("answer"),
        sentences=inference.get("sentences") or [],
        missing=list(_missing(summary)),
        pictures={name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in pictures.items()},
        explanation=catalogue.FIGURES[contents.EXPLANATION],
        figure=catalogue.FIGURES[contents.HEADLINE],
        columns=COLUMNS,
        rows=[_row(row) for row in summary.to_dict("records")],
        kinds={kind: KINDS.get(kind, kind) for kind in dict.fromkeys(summary["kind"])},
        definitions={name: _definition_words(name, findings.definitions) for name in definitions},
        headline=headline if headline in definitions else "",
        csv={"name": f"summary-{findings.experiment}.csv", "packed": _packed(summary.to_csv(index=False))},
        corpus=_corpus_words(findings.corpus, findings.text),
        models=[_model(findings, model) for model in findings.origins],
        files=_files(findings.corpus),
        tables=TABLES,
        origin=origin,
    )


def _packed(text: str) -> str:
    """Return a text for the page to unpack: gzip in base64, the same each day."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["verbatim"] = lambda name: (TEMPLATES / name).read_text(encoding="utf-8")
    return environment


@dataclass(frozen=True)
class Column:
    """A quantity of the table."""

    name: str
    """Its column in the summary; the interval, where there is one, in `{name}_low` and `{name}_high`."""
    heading: str
    words: str
    written: Callable[[float], str]


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _tenths(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 999.95 else f"{value:.0f}"


def _thousandths(value: float) -> str:
    return f"{value:.3f}"


COLUMNS = (
    Column("total_params", "Total parameters", "All parameters of the model.", human),
    Column(
        "active_params",
        "Active parameters",
        "Those that one token passes through: all but the experts it is not routed to, with embedding and head.",
        human,
    ),
    Column(
        "outlier_count",
        "Outlier features",
        "Outlier features as the definition counts them: distinct channels, or the sum over sequences, which can "
        "exceed the hidden size.",
        _whole,
    ),
    Column("distinct_channels", "Distinct channels", "Channels that are an outlier feature anywhere.", _whole),
    Column("stable_channels", "Stable channels", "Those that qualify in at least half of the sequences.", _whole),
    Column(
        "mean_layer_pct",
        "Layers, %",
        "Share of the tensors that an outlier feature hits, in percent: the mean over the outlier features.",
        _tenths,
    ),
    Column(
        "mean_position_pct",
        "Positions, %",
        "Share of the positions at which it hits any tensor, in percent: the mean over the outlier features.",
        _tenths,
    ),
    Column(
        "perplexity",
        "Perplexity",
        "exp of the mean loss per predicted token (natural logarithm). Not comparable between tokenizers.",
        _tenths,
    ),
    Column(
        "bits_per_byte",
        "Bits per byte",
        "The loss per byte of text, in bits: comparable between tokenizers.",
        _thousandths,
    ),
)


@dataclass(frozen=True)
class Cell:
    """A value of the table: to read, and to sort by. None where it is not known."""

    text: str | None
    order: float | None
    interval: str | None


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    note = row.get("note")
    cells = [_cell(row, column) for column in COLUMNS]
    texts = {"label": row["label"], "kind": row["kind"], "definition": row["definition"]}
    return {**texts, "note": note if isinstance(note, str) else None, "cells": cells}


def _cell(row: Mapping[Any, Any], column: Column) -> Cell:
    value, low, high = (_known(row.get(f"{column.name}{end}")) for end in ("", "_low", "_high"))
    if value is None:
        return Cell(None, None, None)
    has_interval = low is not None and high is not None
    interval = f"{column.written(low)}\N{EN DASH}{column.written(high)}" if has_interval else None  # type: ignore[arg-type]
    return Cell(column.written(value), value, interval)


def _known(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _missing(summary: pd.DataFrame) -> Iterator[str]:
    """Say what the table lacks for the question to be answered."""
    if summary.empty:
        yield "The summary has no rows: no model has been measured."
        return
    models = summary.drop_duplicates("model")
    if len(models) == 1:
        yield "There is one model only, so nothing can be compared."
    for kind, words in KINDS.items():
        if kind not in set(models["kind"]):
            yield f"There is no {words}{' model' if kind == 'dense' else ''} in this experiment."
    if not summary["outlier_count"].fillna(0).any():
        yield "No model has an outlier feature, by any definition."
    unknown = models.loc[models["perplexity"].isna(), "label"]
    if len(unknown):
        yield f"Perplexity is not known for {', '.join(unknown)}."


def _definition_words(name: str, definitions: Mapping[str, Definition]) -> str:
    """Say in words what a definition, or the scale-free twin of one, calls an outlier feature."""
    base = name.removesuffix(TWIN)
    if name not in definitions and base in definitions:
        return (
            f"As {base}, with the threshold in units of each tensor's RMS: |x| ≥ {definitions[base].threshold:g} x RMS."
        )
    if name not in definitions:
        return "Not among the definitions of the configuration."
    found = definitions[name]
    tensors = f"{100 * found.min_layers:g} % of the tensors ({', '.join(found.sites)} of every block)"
    positions = f"{100 * found.min_positions:g} % of the positions"
    words = f"|x| ≥ {found.threshold:g} in at least {tensors} and at {positions}"
    if found.scope == "sequence":
        words += ", in each sequence by itself; the count is the sum over sequences."
    else:
        words += " of all sequences together; the count is that of distinct channels."
    return words + (f" Activations are rounded to {found.rounding} first." if found.rounding else "")


def _corpus_words(name: str, text: Corpus) -> str:
    of_hub = (text.hub, text.name, f"split {text.split}") if text.hub else ()
    source = ", ".join(part for part in of_hub or (text.package, text.path) if part)
    commit = f" at commit {text.revision}" if text.revision else ""
    windows = " that overlap by half, as in 2025" if text.windows == "arb8020" else ""
    return f"{name}: {source}{commit}; {text.sequences} sequences of {text.length} tokens{windows}."


def _model(findings: Findings, model: str) -> dict[str, Any]:
    """Return what the page says of how one model was measured, and the links to its tables."""
    origin, summary = findings.origins[model], findings.summary
    labels = summary.loc[summary["model"] == model, "label"]
    versions = origin.get("versions", {})
    return {
        "label": labels.iloc[0] if len(labels) else model,
        "source": _source_words(origin.get("source", {})),
        "dtype": origin.get("dtype"),
        "device": origin.get("device"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "lineage": origin.get("lineage", {}).get("statistics"),
        "files": {name: _link(layout.table(name, findings.corpus, model)) for name in TABLES},
    }


def _source_words(source: Mapping[str, Any]) -> str | None:
    """Say where a checkpoint comes from, as exactly as its seal does."""
    if "hub" in source:
        commit = source.get("commit") or source.get("revision")
        return source["hub"] + (f" at commit {commit}" if commit else "")
    if "package" in source:
        return f"{source.get('file')} of the Python package {source['package']}, sha256 {source.get('sha256')}"
    if "path" in source:
        return f"local directory {source['path']}"
    if "train" in source:
        recipe = source["train"]
        return f"trained here on {recipe.get('corpus')}: {recipe.get('steps')} steps, seed {source.get('seed')}"
    return None


def _files(corpus: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the tables of all models: what is in them, and their formats with links."""
    groups: list[tuple[str, Callable[[str, str], Path], tuple[str, ...]]] = [
        ("Summary: the table above with every column", layout.summary, ("parquet", "csv", "json")),
        ("Inference: trends, phase shifts and comparisons", layout.inference, ("parquet", "json")),
        ("Beside the table published in 2025", layout.reproduction, ("csv", "md")),
    ]
    return [(words, [(end, _link(path(corpus, end))) for end in ends]) for words, path, ends in groups]


def _link(path: Path) -> str:
    """Return a result as seen from the page, which lies at the top of the results."""
    return quote(path.relative_to(layout.RESULTS).as_posix())
