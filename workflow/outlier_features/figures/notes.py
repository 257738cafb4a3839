"""What was asked of the models of a figure, and what it cannot show of them, in sentences."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import pandas as pd

from outlier_features.figures.axes import INTERVAL, Axis
from outlier_features.figures.style import KINDS
from outlier_features.thresholds import TWIN

Thing = TypeVar("Thing", bound=Hashable)


def last_steps(summary: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return a summary with only the last step of each series, and a sentence for every series that has more."""
    is_shown, notes = summary["series"].isna(), []
    for name, rows in summary.groupby("series", sort=False):
        last, count = rows["step"].max(), rows["step"].nunique()
        is_shown |= (summary["series"] == name) & (summary["step"] == last)
        if count > 1:
            notes.append(f"Of the training run {name} only the last of {count} steps is shown ({last}).")
    return summary[is_shown], notes


def criterion(rows: pd.DataFrame, definition: str) -> str:
    """Return what was asked under a definition, as far as its rows tell."""
    unit = " times the RMS of the tensor" if definition.endswith(TWIN) else ""
    parts = [f"|x| ≥ {value:g}{unit}" for value in sorted(rows["threshold"].dropna().unique())]
    parts += [f"activations rounded to {name}" for name in unique(rows.get("rounding", pd.Series()).dropna())]
    parts += [f"{count:g} sequences" for count in sorted(rows["sequences"].dropna().unique())]
    return f"Definition {definition}{': ' if parts else ''}{', '.join(parts)}."


def gaps(
    summary: pd.DataFrame, rows: pd.DataFrame, definition: str, xs: Sequence[Axis], ys: Sequence[Axis]
) -> list[str]:
    """Say what panels of these quantities cannot show under a definition, one sentence each.

    `rows` are those of the summary under it, with `is_empty` for models without outlier feature.
    """
    if rows.empty:
        present = ", ".join(summary["definition"].unique())
        return [f"No model was measured under {definition}; the summary has {present or 'no rows'}."]
    no_row = summary[~summary["model"].isin(rows["model"])]["label"].unique()
    is_silent = ~rows["is_empty"] & rows[[axis.column for axis in ys]].isna().all(axis=1)
    known = rows[~is_silent]
    return [
        *(f"No {look.label} was measured." for kind, look in KINDS.items() if kind not in set(rows["kind"])),
        *([f"Not shown, for want of a row under {definition}: {', '.join(no_row)}."] if len(no_row) else []),
        *(f"Not shown: {row['label']} ({_reason(row)})." for _, row in rows[is_silent].iterrows()),
        *itertools.chain(
            *(_unknown(axis, known, known[axis.column].isna()) for axis in xs),
            *(_unknown(axis, known, known[axis.column].isna() & ~known["is_empty"]) for axis in ys),
        ),
        *_without_interval(known, [*ys, *xs]),
    ]


def _reason(row: pd.Series) -> str:
    """Return why a measured model has no value under a definition."""
    return row["note"] if isinstance(row["note"], str) and row["note"] else "its row has no value"


def _unknown(axis: Axis, rows: pd.DataFrame, is_unknown: "pd.Series[bool]") -> list[str]:
    """Say which models have no value along an axis."""
    if len(rows) and is_unknown.all():
        return [f"No value of any model measured here is known for: {axis.name}."]
    labels = ", ".join(rows[is_unknown]["label"])
    return [f"Not shown in a panel of {axis.name}, which is not known of them: {labels}."] if labels else []


def _without_interval(rows: pd.DataFrame, axes: Sequence[Axis]) -> list[str]:
    """Say which models lack an interval around a value."""
    lacks = pd.Series(False, index=rows.index)
    for axis in (axis for axis in axes if axis.ends and axis.bar == INTERVAL):
        lacks |= rows[axis.column].notna() & rows[list(axis.ends)].isna().any(axis=1)
    if not lacks.any():
        return []
    models = "every model" if lacks.all() else ", ".join(rows[lacks]["label"])
    return [f"A 95 % interval of some value is missing for {models}."]


def unique(things: Iterable[Thing]) -> list[Thing]:
    """Return things once each, in their order."""
    return list(dict.fromkeys(things))
