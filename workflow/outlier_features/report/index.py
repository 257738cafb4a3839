"""Index: the page of a run, one file of HTML that needs nothing beside it.

The answer for each model, what follows from all of them, every figure with its caption, the summary as a table, the
words, and where all of it comes from. The same inputs give the same bytes. Every word that comes from a configuration
or a table is escaped.
"""

import base64
import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from outlier_features import shipped
from outlier_features.artefacts import atomic, paths, provenance, remedies
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_json, read_table
from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus, Definition
from outlier_features.experiment import phase_shift, quantities
from outlier_features.experiment.quantities import Quantity
from outlier_features.figures import catalogue
from outlier_features.metrics import criteria, model_answer_words
from outlier_features.report import tour
from outlier_features.thresholds import TWIN

TEMPLATES = shipped.path("report") / "index"
"""The page without its words: markup, style, behaviour and the library of tables. Part of the lineage by content."""

EXPLAINING = "residual_stream"
"""The figure that shows what an outlier feature is: the first picture."""
INLINE = 4
"""Models whose own figures are inside the page; those of more are read from beside it."""
WIDEST, COLOURS = 1200, 64
"""Pixels and colours of a figure inside the page: it stays small, and the SVG beside it is exact."""
KINDS = {"dense": "dense", "moe": "mixture of experts"}
TABLES = {
    "outliers": "outlier features",
    "channels": "channels with a hit",
    "layers": "metrics by block and site",
    "draws": "bootstrap draws",
    "convergence": "agreement over windows",
    "positions": "positions of the window",
    "damage": "predicted loss by format",
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
    answers: Mapping[str, Mapping[str, Any]]
    """The answer for each model, by its key in the configuration, as `model_answer` writes it."""
    origins: Mapping[str, provenance.Provenance]
    """How each model was measured, by its key in the configuration: source, precision, device, versions, lineage."""


def read_findings(
    config: Config,
    summary: Path,
    inference: Path,
    answers: Iterable[Path],
    perplexity: Iterable[Path],
    lineage: Lineage,
) -> Findings:
    """Read what the page tells. Raises DamagedFile, and StaleFile for what was made of something else."""
    table, _ = read_table(summary, "summary", lineage["summary"])
    answer = read_json(inference, "inference", lineage["inference"])
    corpus, models = config.chosen.corpus, config.chosen.models
    files = zip(models, perplexity, strict=True)
    found = {model: read_json(path, "perplexity", lineage[f"perplexity {model}"]) for model, path in files}
    origins = {model: each["provenance"].get("statistics", {}) for model, each in found.items()}  # how it was measured
    each = {
        model: read_json(path, "reduction", lineage[f"reduction {model}"])
        for model, path in zip(models, answers, strict=True)
    }
    return Findings(config.experiment, corpus, config.corpora[corpus], config.definitions, table, answer, each, origins)


def write_page(path: Path, findings: Findings, origin: provenance.Provenance) -> None:
    """Write the page atomically, with the figures that lie where `paths` says; `origin` is its provenance."""
    page = render(findings, pictures(findings), origin)
    with atomic.file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    figure: catalogue.Figure
    model: str | None
    """The name of the model it is of; None for one of the whole experiment."""
    source: str
    """The picture itself, or a link to it."""
    exact: str
    """A link to the same as SVG."""


def pictures(findings: Findings) -> list[Picture]:
    """Return every figure that is there, the explaining one first, then by topic, then model by model."""
    explaining = [EXPLAINING] if EXPLAINING in catalogue.FIGURES else []
    names = [*explaining, *(name for name in catalogue.names("experiment", "series") if name not in explaining)]
    found = [_picture(name, None, None, is_inline=True) for name in names]
    labels = dict(zip(findings.summary["model"], findings.summary["label"], strict=True))
    for model, label in labels.items():
        is_inline = len(labels) <= INLINE
        found += [_picture(name, model, label, is_inline=is_inline) for name in catalogue.names("model", "mixture")]
    return [picture for picture in found if picture is not None]


def _picture(name: str, model: str | None, label: str | None, *, is_inline: bool) -> Picture | None:
    path = _path(name, model, "png")
    if not path.is_file():
        return None
    source = "data:image/png;base64," + base64.b64encode(_smaller(path)).decode() if is_inline else _link(path)
    return Picture(catalogue.FIGURES[name], label, source, _link(_path(name, model, "svg")))


def _path(name: str, model: str | None, suffix: str) -> Path:
    if model is not None and catalogue.FIGURES[name].scope == "mixture":
        return paths.mixture_figure(name, model) / f"{name}.{suffix}"
    return paths.figure(name, suffix, model)


def _smaller(figure: Path) -> bytes:
    """Return a PNG of at most WIDEST pixels across in few colours."""
    try:
        with Image.open(figure) as image:
            plain = image.convert("RGB")
            if plain.width > WIDEST:
                plain = plain.resize(
                    (WIDEST, round(plain.height * WIDEST / plain.width)), Image.Resampling.LANCZOS, reducing_gap=1.5
                )
    except OSError as error:
        raise remedies.unusable(figure, "PNG", error) from error
    written = io.BytesIO()
    _in_few_colours(plain).save(written, "PNG")
    return written.getvalue()


def _in_few_colours(plain: Image.Image) -> Image.Image:
    """Return a picture in COLOURS of its own: each stands for those near it and is the most frequent of them.

    A palette of means would tint areas of one colour, and colours mean something in a figure.
    """
    fewer = plain.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    red, green, blue = np.moveaxis(np.asarray(plain, np.int64), 2, 0)
    seen, counts = np.unique(np.asarray(fewer, np.int64) << 24 | red << 16 | green << 8 | blue, return_counts=True)
    seen = seen[np.argsort(counts, kind="stable")]
    palette = np.zeros((COLOURS, 3), np.uint8)
    palette[seen >> 24] = np.stack([seen >> 16 & 255, seen >> 8 & 255, seen & 255], axis=1)  # the most frequent is last
    fewer.putpalette(palette.ravel().tolist())
    return fewer


def render(findings: Findings, shown: Sequence[Picture], origin: provenance.Provenance) -> str:
    """Return the page as HTML."""
    summary, inference = findings.summary, findings.inference
    definitions = list(dict.fromkeys(summary["definition"]))
    labels = dict(zip(summary["model"], summary["label"], strict=True))
    template = _templates().get_template("page.html")
    return template.render(
        experiment=findings.experiment,
        title=_listed(list(labels.values())) or findings.experiment,
        answers={labels.get(model, model): _answer(found) for model, found in findings.answers.items()},
        headings=model_answer_words.HEADINGS,
        is_sweep=len(labels) >= phase_shift.FEWEST,
        answer=inference.get("answer"),
        sentences=inference.get("sentences") or [],
        missing=list(_missing(summary)),
        pictures=_by_topic(shown),
        columns=COLUMNS,
        rows=[_row(row) for row in summary.to_dict("records")],
        kinds={kind: KINDS.get(kind, kind) for kind in dict.fromkeys(summary["kind"])},
        definitions={name: _definition_words(name, findings.definitions) for name in definitions},
        headline=_named(findings, definitions),
        csv={"name": f"summary-{findings.experiment}.csv", "packed": _packed(summary.to_csv(index=False))},
        words=tour.WORDS,
        corpus=_corpus_words(findings.corpus, findings.text),
        models=[_model(findings, model) for model in findings.origins],
        files=_files(findings.corpus),
        tables=TABLES,
        origin=origin,
    )


def _listed(labels: Sequence[str]) -> str:
    """Return a few names, or how many there are."""
    if len(labels) > INLINE:
        return f"{len(labels)} models"
    return labels[0] if len(labels) == 1 else " and ".join([", ".join(labels[:-1]), *labels[-1:]]) if labels else ""


def _answer(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says of one model."""
    lead, *others = found["sentences"]
    return {"lead": lead, "others": others, "rows": [model_answer_words.row(entry) for entry in found["channels"]]}


def _by_topic(shown: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Return figures under their headings; those of a model under its name."""
    groups: dict[str, list[Picture]] = {}
    for picture in shown:
        groups.setdefault(picture.model or picture.figure.topic, []).append(picture)
    return groups


def _named(findings: Findings, definitions: Sequence[str]) -> str:
    """Return the definition that the table begins with: the one the answer speaks of."""
    spoken = [found["criterion"]["name"] for found in findings.answers.values()]
    headline = (findings.inference.get("headline") or {}).get("definition")
    return next((name for name in (*spoken, headline) if name in definitions), "")


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


COLUMNS = quantities.named(
    "total_params",
    "active_params",
    "outlier_count",
    "distinct_channels",
    "stable_channels",
    "mean_layer_pct",
    "mean_position_pct",
    "perplexity",
    "bits_per_byte",
)
"""The columns of numbers of the table."""


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


def _cell(row: Mapping[Any, Any], quantity: Quantity) -> Cell:
    found = quantity.estimate(row)
    written = quantity.written(found)
    if written is None:
        return Cell(None, None, None)
    return Cell(written.value, found.value, None if written.low is None else f"{written.low}\N{EN DASH}{written.high}")


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
    if name in definitions:
        return f"{criteria.words(definitions[name])}."
    if base not in definitions:
        return "Not among the definitions of the configuration."
    hits = criteria.magnitudes(definitions[base].threshold, relative=True)
    return f"As {base}, with the threshold in units of each tensor's RMS: {hits}."


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
        "files": {name: _link(paths.table(name, findings.corpus, model)) for name in TABLES},
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
    groups = {
        "Summary: the table above with every column": paths.of("summary", corpus),
        "Inference: trends, phase shifts and comparisons": paths.of("inference", corpus),
        "Beside the table published in 2025": paths.of("reproduction", corpus),
    }
    return [
        (words, [(path.suffix.removeprefix("."), _link(path)) for path in files.values()])
        for words, files in groups.items()
    ]


def _link(path: Path) -> str:
    """Return a result as seen from the page, which lies at the top of the results."""
    return quote(path.relative_to(paths.results()).as_posix())
