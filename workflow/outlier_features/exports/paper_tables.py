"""Paper tables: rows of a summary as LaTeX (booktabs) and as Markdown, with a caption that says what was measured."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from outlier_features.artefacts import atomic
from outlier_features.artefacts.provenance import Provenance
from outlier_features.config.entries import Definition
from outlier_features.experiment.quantities import Quantity, named
from outlier_features.metrics.criteria import words
from outlier_features.thresholds import TWIN
from outlier_features.units import either

HEADLINE = "llm_int8"
"""The definition of the table of an experiment, where it is among those measured; else the first is."""

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        "≥": r"$\geq$",
        "\n": " ",
    }
)
"""How a character is written in LaTeX, where it is not written as itself."""


@dataclass(frozen=True)
class Cell:
    """A value as text, with its 95 % interval where it has one."""

    text: str
    low: str | None = None
    high: str | None = None

    def markdown(self) -> str:
        """Return it as `53.2 (52.2-54.3)`."""
        interval = "" if self.low is None else f" ({self.low}-{self.high})"
        return escape_markdown(self.text + interval)

    def latex(self) -> str:
        """Return it with the interval as subscript and superscript, which takes the least room."""
        if self.low is None:
            return "--" if self == MISSING else escape_latex(self.text)
        value, low, high = (part.replace(",", "{,}") for part in (self.text, self.low, str(self.high)))
        return f"${value}_{{{low}}}^{{{high}}}$"


MISSING = Cell("-")

ROUNDED = (
    "Models of unlike precision are compared with the activations of all rounded to bfloat16, the coarsest: |x| ≥ 6 is "
    "|x| ≥ 5.984375 before rounding. A threshold in RMS is not rounded."
)
MOST_COLUMNS = 6
"""A table of more columns goes across both columns of a page, in smaller letters."""


def _cell(quantity: Quantity, row: Mapping[Any, Any]) -> Cell:
    """Return the cell of a row of the summary; a dash where it has no value."""
    written = quantity.cell(row)
    return MISSING if written is None else Cell(*written)


@dataclass(frozen=True)
class PaperTable:
    """A table with a caption: the first column is text, the others are numbers."""

    name: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    footer: Sequence[tuple[str, Cell]]
    """Values that belong to all rows."""
    notes: Sequence[str]
    """Why cells are empty."""

    def markdown(self) -> str:
        """Return the table in GitHub's Markdown."""
        lines = [
            _bars(escape_markdown(heading) for heading in self.headings),
            "|---|" + "---:|" * (len(self.headings) - 1),
            *(_bars(cell.markdown() for cell in row) for row in self.rows),
        ]
        footer = "; ".join(f"{escape_markdown(name)} {cell.markdown()}" for name, cell in self.footer)
        interval = "In brackets: 95 % interval over sequences."
        parts = [f"{escape_markdown(self.caption)} {interval}", "\n".join(lines)]
        parts += [f"{footer}."] if footer else []
        return "\n\n".join([*parts, *map(escape_markdown, self.notes)]) + "\n"

    def latex(self) -> str:
        """Return the table as a LaTeX float; it needs the package booktabs."""
        last = len(self.headings)
        is_wide = last > MOST_COLUMNS
        place = "table*" if is_wide else "table"
        wide = rf"\multicolumn{{{last}}}{{@{{}}l@{{}}}}"
        footer = r"\quad ".join(f"{escape_latex(name)} {cell.latex()}" for name, cell in self.footer)
        interval = escape_latex("Subscript and superscript: 95 % interval over sequences.")
        notes = " ".join(map(escape_latex, self.notes))
        lines = [
            rf"\begin{{{place}}}[tb]",
            r"\centering",
            rf"\caption{{{' '.join(filter(None, [escape_latex(self.caption), interval, notes]))}}}",
            rf"\label{{tab:{self.name}}}",
            r"\scriptsize" if is_wide else r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            r"\renewcommand{\arraystretch}{1.4}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * (last - 1)}@{{}}}}",
            r"\toprule",
            _row(map(escape_latex, self.headings)),
            r"\midrule",
            *(_row(cell.latex() for cell in row) for row in self.rows),
            *([r"\midrule", rf"{wide}{{{footer}}} \\"] if footer else []),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{place}}}",
        ]
        return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return text as LaTeX shows it."""
    return text.translate(LATEX)


def escape_markdown(text: str) -> str:
    """Return text as Markdown shows it; an underscore inside a word needs no escape."""
    return re.sub(r"[\\|*`<\[\]]|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], text).replace("\n", " ")


BY_DEFINITION = named("outlier_count", "distinct_channels", "mean_layer_pct", "mean_position_pct")
OF_A_MODEL = named("perplexity", "bits_per_byte", "kurtosis_max")
SIZES = named("total_params", "active_params")

READING = " ".join(
    f"{quantity.heading.capitalize()}: {quantity.meaning}" for quantity in (*BY_DEFINITION, *named("kurtosis_max"))
)


def of_model(rows: pd.DataFrame, definitions: Mapping[str, Definition], corpus: str) -> PaperTable:
    """Return the table of one model, one row for each definition and scale-free twin.

    `rows` are its rows of the summary, `definitions` those of the configuration by name.
    """
    records = rows.to_dict("records")
    model, label = records[0]["model"], records[0]["label"]
    criteria = [f"{name}: {words(definition)}." for name, definition in definitions.items()]
    twins = f"Names that end in {TWIN}: the same with the threshold in RMS of the tensor."
    return PaperTable(
        name=f"outliers-{model}",
        caption=" ".join([f"Outlier features of {label}, {_measured(rows, corpus)}.", READING, *criteria, twins]),
        headings=("definition", *(quantity.titled for quantity in BY_DEFINITION)),
        rows=[[Cell(row["definition"]), *(_cell(quantity, row) for quantity in BY_DEFINITION)] for row in records],
        footer=[(quantity.titled, _cell(quantity, records[0])) for quantity in OF_A_MODEL],
        notes=_notes(rows, "definition"),
    )


def of_experiment(summary: pd.DataFrame, definitions: Mapping[str, Definition], corpus: str) -> PaperTable:
    """Return the table of an experiment, one row a model, under the definition HEADLINE or the first there is."""
    name = HEADLINE if HEADLINE in definitions else next(iter(definitions))
    rows = summary[summary["definition"] == name]
    shown = (*SIZES, *BY_DEFINITION, *OF_A_MODEL)
    criterion = f"Definition {name}: {words(definitions[name])}."
    return PaperTable(
        name="outliers",
        caption=" ".join([f"Outlier features of each model, {_measured(rows, corpus)}.", READING, criterion]),
        headings=("model", *(quantity.titled for quantity in shown)),
        rows=[[Cell(row["label"]), *(_cell(quantity, row) for quantity in shown)] for row in rows.to_dict("records")],
        footer=[],
        notes=_notes(rows, "label"),
    )


def write(table: PaperTable, latex: Path, markdown: Path, origin: Provenance) -> None:
    """Write a table twice, each with where it comes from in a comment."""
    lineage = ", ".join(f"{name} {digest}" for name, digest in origin["lineage"].items())
    made = f"made by outlier_features {origin['versions']['outlier_features']}; lineage: {lineage}"
    texts = {latex: f"% {made}\n% \\usepackage{{booktabs}}\n{table.latex()}"}
    texts |= {markdown: f"{table.markdown()}\n<!-- {made} -->\n"}
    for path, text in texts.items():
        with atomic.file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def _measured(rows: pd.DataFrame, corpus: str) -> str:
    """Return on what rows of the summary were measured."""
    sequences, length = (either(f"{n:,}" for n in rows[name]) for name in ("sequences", "length"))
    return (
        f"on {sequences} sequences of {length} tokens of the corpus {corpus} ({either(rows['windows'])} windows), "
        f"forward pass in {either(rows['dtype'])}"
    )


def _notes(rows: pd.DataFrame, subject: str) -> list[str]:
    """Return why cells or their intervals are empty."""
    notes = [f"{row[subject]}: {row['note']}." for row in rows.to_dict("records") if isinstance(row["note"], str)]
    if rows["dtype"].nunique() > 1 and "bfloat16" in set(rows.get("rounding", ())):
        notes.append(ROUNDED)
    if (rows["outlier_count"] == 0).any():
        notes.append("Where no outlier feature was found there is no mean share.")
    notes += [note for note in dict.fromkeys(rows.get("interval_note", ())) if isinstance(note, str)]
    if rows["perplexity"].isna().any():
        notes.append("Perplexity and bits per byte are missing where they were not measured.")
    return notes


def _bars(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
