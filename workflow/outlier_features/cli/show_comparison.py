"""The comparison of two runs in a terminal: what stands in its way, then what moved; CSV and JSON to pipe."""

import json
from collections.abc import Hashable, Mapping
from typing import Any, Literal, TextIO

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlier_features.artefacts import strict_json
from outlier_features.cli.show_summary import check_format, console, fits, frame
from outlier_features.comparison.compare import Comparison, Verdict
from outlier_features.experiment.quantities import QUANTITIES, Quantity
from outlier_features.metrics.intervals import GAPS, Estimate

LEGEND = (
    "difference: this run less the other. In brackets: 95 % intervals over sequences; that of the difference takes the "
    "two for independent samples. beyond: it leaves out 0. within: it does not. Runs on the same windows vary "
    "together, so there what is within may have moved as well. Where nothing moves but by chance, about one in twenty "
    f"is beyond. Kurtosis and massive activations have no interval; {GAPS}."
)
REMARKS = {
    Verdict.BEYOND: "beyond the interval",
    Verdict.WITHIN: "within the interval",
    Verdict.NO_INTERVAL: "without an interval",
    Verdict.NOT_COMPARABLE: "not comparable",
    Verdict.NO_VALUE: "without a value in one run",
}
"""How a sentence calls what has moved."""
ANY_DEFINITION = "under any definition"


def show_comparison(
    comparison: Comparison,
    *,
    against: str,
    format: Literal["table", "csv", "json"] = "table",
    stream: TextIO,
) -> None:
    """Write what moved to `stream`; `against` names the other run.

    A table lists what moved. CSV and JSON hold every row, moved or not, and JSON the sentences beside them. Raises
    ConfigError for an unknown format.
    """
    check_format(format)
    if format == "csv":
        comparison.rows.to_csv(stream, index=False)
    elif format == "json":
        rows = json.loads(comparison.rows.to_json(orient="records", double_precision=15))
        words = {"against": against, "warnings": comparison.warnings, "origins": comparison.origins}
        stream.write(strict_json.dumps({**words, "rows": rows}, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(comparison, against, console(stream))


def _show(comparison: Comparison, against: str, console: Console) -> None:
    console.print(Text(f"this run against {against}", style="bold"), soft_wrap=True)
    for sentences in (comparison.warnings, comparison.origins):
        _print_list(sentences, console)
    console.print()
    rows = comparison.rows
    moved = rows[rows["verdict"].isin(list(REMARKS))]
    console.print(_headline(comparison))
    if moved.empty:
        return
    table = _table(moved, " ")
    console.print(table if fits(table, console) else _table(moved, "\n"))
    console.print(LEGEND)


def _print_list(sentences: tuple[str, ...], console: Console) -> None:
    """Print sentences, each behind a dash and indented."""
    if sentences:
        grid = Table.grid(padding=(0, 1))
        for sentence in sentences:
            grid.add_row("-", Text(sentence))
        console.print()
        console.print(grid)


def _headline(comparison: Comparison) -> str:
    """Return how much moved, in a sentence."""
    compared = len(comparison.rows) - comparison.count(Verdict.ONE_SIDE)
    moved = compared - comparison.count(Verdict.SAME)
    if compared == 0:
        return "Nothing was compared."
    if moved == 0:
        return f"Nothing moved: all {compared} values are the same."
    counts = {words: comparison.count(verdict) for verdict, words in REMARKS.items()}
    parts = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"{moved} of {compared} values differ: {parts}."


def _table(moved: pd.DataFrame, separator: str) -> Table:
    """Return a table of what moved under each definition; `separator` stands between a value and its interval."""
    table = frame()
    table.add_column("definition, model,\nquantity", overflow="fold")
    for header in ("this run", "the other", "difference"):
        table.add_column(f"{header}\n(95 %)", justify="right", overflow="fold")
    table.add_column("verdict", overflow="fold")
    definitions = moved["definition"].fillna(ANY_DEFINITION)
    for definition in definitions.unique():
        table.add_row(Text(definition, style="bold"))
        for _, rows in moved[definitions == definition].groupby("model", sort=False):
            table.add_row(Text(f" {rows['label'].iloc[0]}"))
            for row in rows.to_dict("records"):
                table.add_row(*(Text(cell) for cell in _cells(row, separator)))
        table.add_section()
    return table


def _cells(row: Mapping[Hashable, Any], separator: str) -> list[str]:
    """Return what the table says of one quantity of a model."""
    quantity = QUANTITIES[row["quantity"]]
    places = quantity.decimals(np.nanmax(np.abs([row["value"], row["against"], 0.0])))
    values = [_value(quantity, row, name, places, separator) for name in ("value", "against")]
    verdict = row["verdict"].replace(" ", separator)
    return [f"  {quantity.label}", *values, _difference(row, places, separator), verdict]


def _value(quantity: Quantity, row: Mapping[Hashable, Any], name: str, places: int, separator: str) -> str:
    found = Estimate(*(row[f"{name}{end}"] for end in ("", "_low", "_high")))
    written = quantity.written(found, places)
    return "-" if written is None else written.joined(separator)


def _difference(row: Mapping[Hashable, Any], places: int, separator: str) -> str:
    """Return the difference with its interval; one that these decimals do not show has a digit that does."""
    value, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "-"
    text = f"{value:+.{places}f}" if abs(value) >= 10.0**-places / 2 else f"{value:+.1g}"
    return text if pd.isna(low) else f"{text}{separator}({low:.{places}f} to {high:.{places}f})"
