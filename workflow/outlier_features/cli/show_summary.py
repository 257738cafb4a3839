"""The summary of an experiment in a terminal: a table to read, CSV and JSON to pipe, a plot without a window.

Takes the summary as a pandas table, one row per model and definition, with shares in percent.
"""

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TextIO

import pandas as pd
import plotext
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from outlier_features.errors import ConfigError
from outlier_features.experiment.quantities import Quantity, named
from outlier_features.experiment.selection import Selection
from outlier_features.metrics.criteria import magnitudes
from outlier_features.metrics.intervals import GAPS
from outlier_features.thresholds import TWIN
from outlier_features.units import human

WIDTH = 120
"""Columns of the table where the stream is no terminal that knows its own."""
FORMATS = ("table", "csv", "json")
LEGEND = (
    " ".join(
        f"{quantity.heading}: {quantity.meaning[0].lower()}{quantity.meaning[1:]}"
        for quantity in named(
            "outlier_count", "distinct_channels", "stable_channels", "mean_layer_pct", "mean_position_pct"
        )
    )
    + f" In brackets: 95 % interval over sequences; {GAPS}."
)


def show(
    summary: pd.DataFrame,
    selection: Selection | None = None,
    *,
    format: Literal["table", "csv", "json"] = "table",
    plot: bool = False,
    stream: TextIO,
) -> None:
    """Write the selected rows to `stream`: a table per definition, or all columns as CSV or JSON records (blank, null).

    `plot` draws layers affected against active parameters under each table. Raises ConfigError, with the allowed
    values, for a format or selection that is not there, and for a plot in a format that is for machines.
    """
    check_format(format)
    if plot and format != "table":
        raise ConfigError(f"a plot cannot be part of {format}; leave one of the two out")
    selection = selection or Selection()
    rows = selection.of(summary)
    if format == "csv":
        rows.to_csv(stream, index=False)
    elif format == "json":
        stream.write(rows.to_json(orient="records", indent=2, force_ascii=False, double_precision=15) + "\n")
    elif rows.empty:
        wanted = f" of {selection.words}" if len(summary) else ""
        console(stream).print(f"The summary has no rows{wanted}.")
    else:
        _show_tables(rows, plot, console(stream))


def check_format(format: str) -> None:
    """Refuse a format that is none. Raises ConfigError."""
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; allowed: {', '.join(FORMATS)}")


def console(stream: TextIO) -> Console:
    """Return a console as wide as the terminal that `stream` is, or WIDTH where it is none."""
    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, markup=False)


def fits(table: Table, console: Console) -> bool:
    """Return whether a table has room for its longest cells."""
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width


def frame(title: str | None = None) -> Table:
    """Return a table without columns yet."""
    words = None if title is None else Text(title, style="bold")
    return Table(title=words, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")


def number(value: float, places: int = 0) -> str:
    """Return a number, or a dash for one that is not known."""
    return "-" if pd.isna(value) else f"{value:.{places}f}"


def _show_tables(rows: pd.DataFrame, plot: bool, console: Console) -> None:
    for definition in rows["definition"].unique():
        group = rows[rows["definition"] == definition]
        notes = list(dict.fromkeys(note for note in group["note"] if isinstance(note, str) and note))
        table = _table(definition, group, notes, WIDE)
        console.print(table if fits(table, console) else _table(definition, group, notes, NARROW))
        for i, note in enumerate(notes, start=1):
            console.print(f"[{i}] {note}")
        console.print()
        if plot:
            _show_plot(group, console)
    console.print(LEGEND)


def _table(definition: str, group: pd.DataFrame, notes: list[str], layout: "Layout") -> Table:
    """Return the table of one definition; a model with a note carries the note's number."""
    is_twin = definition.endswith(TWIN)
    asked = sorted(group["threshold"].dropna().unique())
    thresholds = "".join(f", {magnitudes(value, relative=is_twin)}" for value in asked)
    thresholds += "".join(f", rounded to {name}" for name in group.get("rounding", pd.Series()).dropna().unique())
    sequences = "".join(f", {value:g} sequences" for value in sorted(group["sequences"].dropna().unique()))
    table = frame(f"definition {definition}{thresholds}{sequences}")
    for i, header in enumerate(layout.headers):
        is_number = i > 0 and header != "kind"
        table.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for _, row in group.iterrows():
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] in notes else ""
        table.add_row(*(Text(cell) for cell in layout.cells(row, mark)))
    return table


SIZES, SHARES = named("total_params", "active_params"), named("mean_layer_pct", "mean_position_pct", "perplexity")
FEATURES, DISTINCT, STABLE = named("outlier_count", "distinct_channels", "stable_channels")


def _wide_cells(row: pd.Series, mark: str) -> list[str]:
    """Return what the table says of one model, in a line."""
    return [
        f"{row['label']}{mark}",
        row["kind"],
        *(cell(quantity, row) for quantity in (*SIZES, FEATURES)),
        _channels(row),
        *(cell(quantity, row) for quantity in SHARES),
    ]


def _narrow_cells(row: pd.Series, mark: str) -> list[str]:
    """Return the same in two lines."""
    return [
        f"{row['label']}{mark}\n{row['kind']}",
        "\n".join(cell(quantity, row) for quantity in SIZES),
        f"{cell(FEATURES, row)}\n{_channels(row)}",
        *(cell(quantity, row, "\n") for quantity in SHARES),
    ]


def cell(quantity: Quantity, row: pd.Series, separator: str = " ") -> str:
    """Return a value with its interval, as far as they are known: 32.1 (28.0-36.5); a dash for one that is not."""
    written = quantity.cell(row)
    return "-" if written is None else written.joined(separator)


def _channels(row: pd.Series) -> str:
    """Return the distinct channels and, in brackets where they are known, the stable ones."""
    stable = STABLE.cell(row)
    return cell(DISTINCT, row) + (f" ({stable.value})" if stable else "")


@dataclass(frozen=True)
class Layout:
    """How the table of a definition is set."""

    headers: tuple[str, ...]
    """The first is the model's."""
    cells: Callable[[pd.Series, str], list[str]]
    """From a row and the mark of its note to a cell for each header."""


WIDE = Layout(
    (
        "model",
        "kind",
        *(quantity.heading.replace(" ", "\n") for quantity in SIZES),
        FEATURES.heading,
        f"{DISTINCT.heading}\n({STABLE.heading})",
        *(f"{quantity.titled}\n(95 %)" for quantity in SHARES),
    ),
    _wide_cells,
)
NARROW = Layout(
    (
        "model\nkind",
        "\n".join([*(quantity.heading.removesuffix(" params") for quantity in SIZES), "params"]),
        f"{FEATURES.heading}\n{DISTINCT.heading}\n({STABLE.heading})",
        *("\n".join([quantity.heading, f"{quantity.unit} (95 %)".lstrip()]) for quantity in SHARES),
    ),
    _narrow_cells,
)


def _show_plot(group: pd.DataFrame, console: Console) -> None:
    """Draw layers affected against active parameters: a letter a model, capital for mixtures of experts."""
    drawn = group[group["mean_layer_pct"].notna() & group["active_params"].notna()]
    left_out = group[~group.index.isin(drawn.index)]["label"]
    if len(drawn):
        alphabets = [string.ascii_uppercase if kind == "moe" else string.ascii_lowercase for kind in drawn["kind"]]
        marks = [alphabet[i % 26] for i, alphabet in enumerate(alphabets)]
        drawing = _drawing(drawn, marks)
        console.print(drawing, soft_wrap=True)
        keys = [f"{mark} {label}" for mark, label in zip(marks, drawn["label"], strict=True)]
        console.print(f"Capital letters are mixtures of experts: {', '.join(keys)}.")
        inside = "".join(line for line in drawing.splitlines() if line.endswith("│"))
        hidden = [key for key, mark in zip(keys, marks, strict=True) if mark not in inside]
        if hidden:
            console.print(f"Hidden behind another letter: {', '.join(hidden)}.")
    if len(left_out):
        console.print(f"Not in the plot, without layers affected: {', '.join(left_out)}.")
    console.print()


def _drawing(drawn: pd.DataFrame, marks: list[str]) -> str:
    """Return the frame, the ticks and the marks. plotext has one figure for all: it is cleared before and after."""
    exponents = [math.log10(count) for count in drawn["active_params"]]
    ticks = range(math.floor(min(exponents)), max(math.ceil(max(exponents)), math.floor(min(exponents)) + 1) + 1)
    figure = plotext.figure
    figure.clear.all()
    figure.plot_size(78, 20)
    for exponent, share, mark in zip(exponents, drawn["mean_layer_pct"], marks, strict=True):
        figure.draw(figure.signal([exponent], [float(share)], marker=mark))
    figure.ruler("x", "lower").lim(ticks[0], ticks[-1]).ticks(list(ticks), [human(10.0**tick) for tick in ticks])
    figure.ruler("y", "left").lim(0, 100).ticks(list(range(0, 101, 20)))
    figure.title("layers affected (%) against active parameters")
    text: str = figure.build().string(colorless=True)
    figure.clear.all()
    return text
