"""The answer for each model in a terminal: its outlier channels as a table, and what else is said of it."""

from collections.abc import Mapping
from typing import TextIO

import pandas as pd
from rich.padding import Padding
from rich.text import Text

from outlier_features.cli.show_summary import console, frame, number
from outlier_features.metrics.model_answer import Answer
from outlier_features.metrics.model_answer_words import HEADINGS, magnitude, row

DETAILED = 3
"""Of so many models all is said; of more, which channels."""
PREDICTED = ("absmax\ndB", "worst format\ndB")
LAYERS = ("block", "site", "int8 per window\ndB", "int8 per token\ndB", "largest |x|", "RMS", "kurtosis")


def show_answers(answers: Mapping[str, Answer], stream: TextIO) -> None:
    """Write the answer for every model, by its label."""
    paper = console(stream)
    for label, found in answers.items():
        lead, *others = found["sentences"]
        paper.print(Text.assemble((label, "bold"), f": {lead}"))
        if found["channels"] and len(answers) <= DETAILED:
            table = frame()
            for heading in HEADINGS:
                table.add_column(
                    heading, justify="right" if heading in ("channel", "largest") else "left", overflow="fold"
                )
            for entry in found["channels"]:
                table.add_row(*map(Text, row(entry)))
            paper.print(table)
        if len(answers) <= DETAILED:
            for sentence in others:
                paper.print(Padding(Text(f"- {sentence}"), (0, 0, 0, 2)))
            paper.print()


def show_layers(
    layers: Mapping[str, pd.DataFrame],
    stream: TextIO,
    rows: int | None = None,
    damage: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write the matrix inputs of every model, those that int8 would lose most at first, `rows` of them or all.

    Where `damage` has rows of a model, what is predicted for absmax and for its worst format stands beside.
    """
    paper = console(stream)
    for label, found in layers.items():
        inputs = found[found["int8_tensor_db"].notna()].sort_values(["int8_tensor_db", "block"], kind="stable")
        table = frame(f"{label}: matrix inputs by what int8 would lose (estimated), of {len(inputs)} tensors")
        predicted = _predicted((damage or {}).get(label))
        for heading in (*LAYERS, *(PREDICTED if predicted else ())):
            table.add_column(heading, justify="left" if heading == "site" else "right")
        for _, entry in inputs.head(rows or len(inputs)).iterrows():
            table.add_row(
                str(entry["block"]),
                entry["site"],
                number(entry["int8_tensor_db"], 1),
                number(entry["int8_token_db"], 1),
                magnitude(entry["max_abs"]),
                f"{entry['rms']:.3g}",
                number(entry["kurtosis_neuron_rms"], 1),
                *(predicted.get((entry["block"], entry["site"]), ("", "")) if predicted else ()),
            )
        paper.print(table)
        paper.print()


def _predicted(damage: pd.DataFrame | None) -> dict[tuple[int, str], tuple[str, str]]:
    """Return of each tensor the ratio predicted for absmax, and the format of the lowest one with that."""
    found = {}
    for _, rows in damage.groupby(["block", "site"]) if damage is not None else ():
        ratios = rows.set_index("format")["predicted_sqnr_db"]
        worst = str(ratios.idxmin())
        found[int(rows["block"].iloc[0]), str(rows["site"].iloc[0])] = (
            number(ratios["absmax"], 1),
            f"{worst} {number(ratios[worst], 1)}",
        )
    return found
