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
INT8 = ("int8 per window\ndB", "int8 per token\ndB")
WORST = "worst format\ndB"
MAGNITUDES = ("largest |x|", "RMS", "kurtosis")


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

    What is predicted of formats is told where `damage` has rows of a model; else int8 is estimated from magnitudes.
    """
    paper = console(stream)
    for label, found in layers.items():
        inputs, predicted, word = found[found["int8_tensor_db"].notna()], (damage or {}).get(label), "estimated"
        if predicted is not None and len(predicted):
            estimates = ["int8_tensor_db", "int8_token_db"]
            inputs, word = (
                inputs.drop(columns=estimates).merge(_predicted(predicted), on=["block", "site"]),
                "predicted",
            )
        headings = ("block", "site", *INT8, *([WORST] if "worst" in inputs else []), *MAGNITUDES)
        table = frame(f"{label}: matrix inputs by what int8 would lose ({word}), of {len(inputs)} tensors")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "site" else "right")
        ordered = inputs.sort_values(["int8_tensor_db", "block"], kind="stable")
        for _, entry in ordered.head(rows or len(inputs)).iterrows():
            table.add_row(
                str(entry["block"]),
                entry["site"],
                number(entry["int8_tensor_db"], 1),
                number(entry["int8_token_db"], 1),
                *([entry["worst"]] if "worst" in entry else []),
                magnitude(entry["max_abs"]),
                f"{entry['rms']:.3g}",
                number(entry["kurtosis_neuron_rms"], 1),
            )
        paper.print(table)
        paper.print()


def _predicted(damage: pd.DataFrame) -> pd.DataFrame:
    """Return of each tensor the ratios of both kinds of int8, and the format of the lowest one with that."""
    ratios = damage.pivot_table("predicted_sqnr_db", ["block", "site"], "format", sort=False)
    worst = [
        f"{name} {number(ratio, 1)}" for name, ratio in zip(ratios.idxmin(axis=1), ratios.min(axis=1), strict=True)
    ]
    int8 = ratios.rename(columns={"absmax": "int8_tensor_db", "row_wise": "int8_token_db"})
    return int8[["int8_tensor_db", "int8_token_db"]].assign(worst=worst).reset_index()
