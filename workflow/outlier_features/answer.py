"""Answer: what an inference says, in words that claim no more than it allows."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from outlier_features import trends
from outlier_features.counts import human

AXES = {
    "total_params": "total parameters",
    "active_params": "active parameters",
    "sparsity": "sparsity",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
}
MEASURES = {
    "mean_layer_pct": "the share of layers that an outlier feature reaches",
    "mean_position_pct": "the share of positions that an outlier feature reaches",
    "distinct_pct": "the share of channels that are outlier features",
}
ASKED = ("total_params", "active_params", "perplexity")
"""The axes of the question; their tests of a shift share an error of 5 % (Holm 1979)."""

Row = Mapping[str, Any]


def compose(
    models: pd.DataFrame, headline: Row, found: Sequence[Row], comparisons: Sequence[Row], needed: Sequence[Row]
) -> dict[str, Any]:
    """Return `answer`, one paragraph, and `sentences`, each something that can or cannot be concluded.

    `models` has a row per model, `found` are trends, `comparisons` and `needed` the other rows of an inference.
    """
    own = [row for row in found if _is_about(row, headline) and row["axis"] in ASKED]
    everyone = {row["axis"]: row for row in own if row["group"] == "all"}
    measure = MEASURES[headline["measure"]]
    subject = f"{_models(models)}, definition {headline['definition']}"
    if max((row["models"] for row in everyone.values()), default=0) < trends.FEWEST:
        return {"answer": _nothing(subject, measure, everyone), "sentences": _limits(own, needed, headline)}
    comparison = next((row for row in comparisons if _is_about(row, headline)), {})
    parts = [_shift_in_words(everyone, measure), _trend_in_words(everyone), _difference_in_words(comparison)]
    return {
        "answer": f"{subject}: {' '.join(part for part in parts if part)}",
        "sentences": [_group_in_words(own, group) for group in ("dense", "moe")] + _limits(own, needed, headline),
    }


def _is_about(row: Row, headline: Row) -> bool:
    return all(row[name] == headline[name] for name in ("definition", "measure"))


def _models(models: pd.DataFrame) -> str:
    kinds = models["kind"].value_counts()
    count = f"{len(models)} model{'s' * (len(models) != 1)}"
    return f"{count} ({kinds.get('dense', 0)} dense, {kinds.get('moe', 0)} mixture of experts)"


def _nothing(subject: str, measure: str, everyone: Mapping[str, Row]) -> str:
    with_value = max((row["models"] for row in everyone.values()), default=0)
    return (
        f"{subject}: nothing can be concluded about a phase shift. {measure[0].upper()}{measure[1:]} is known of "
        f"{with_value}; a trend needs at least {trends.FEWEST} models and a phase shift {trends.FEWEST_FOR_A_SHIFT}."
    )


def _shift_in_words(everyone: Mapping[str, Row], measure: str) -> str:
    """Say whether the measure jumps along the axes of the question, and what jump could have been seen."""
    tested = {axis: row for axis, row in everyone.items() if row.get("shift_p_value") is not None}
    if not tested:
        return f"Whether {measure} jumps cannot be said: {_reasons(everyone)}."
    adjusted = holm({axis: row["shift_p_value"] for axis, row in tested.items()})
    jumps = [axis for axis, row in tested.items() if row["preferred"] == "logistic" and adjusted[axis] < trends.ALPHA]
    said = [f"{measure} jumps {_place(axis, tested[axis], adjusted[axis])}." for axis in jumps]
    quiet = [axis for axis in tested if axis not in jumps]
    if quiet:
        said.append(
            f"no jump of {measure if not jumps else 'it'} is found along {_listed(quiet)}{_power(tested, quiet)}."
        )
    untested = [axis for axis in everyone if axis not in tested]
    if untested:
        said.append(f"along {_listed(untested)} it cannot be tested.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in said)


def _place(axis: str, row: Row, p_value: float) -> str:
    position, low, high = (quantity(axis, row[f"shift_position{end}"]) for end in ("", "_low", "_high"))
    size = f"{row['shift_size']:+.0f} points"
    width = f"within {row['shift_decades']:.2g} decades" if row["shift_decades"] >= 0.01 else "sharply"
    return f"by {size} at {position} {AXES[axis]} (95 % {low} to {high}), {width} ({_p(p_value)})"


def _power(tested: Mapping[str, Row], axes: Sequence[str]) -> str:
    jumps = [tested[axis].get("detectable_jump") for axis in axes]
    if any(jump is None for jump in jumps):
        return ", but so few models could not have shown even a jump of 100 points along every one of them"
    low, high = min(jumps), max(jumps)  # type: ignore[type-var]
    several = f"{low:.0f} to {high:.0f}" if f"{low:.0f}" != f"{high:.0f}" else f"{low:.0f}"
    return f"; a jump of {several} points or more would have been found (80 % power), a smaller one could be there"


def _trend_in_words(everyone: Mapping[str, Row]) -> str:
    said = [
        f"{row['spearman']:+.2f} with {AXES[axis]} ({row['spearman_low']:+.2f} to {row['spearman_high']:+.2f}, "
        f"{_p(row['p_value'])})"
        for axis, row in everyone.items()
        if row.get("spearman") is not None
    ]
    return f"Rank correlation (95 %): {', '.join(said)}." if said else ""


def _difference_in_words(comparison: Row) -> str:
    if comparison.get("difference") is None:
        reason = comparison.get("note") or "it was not computed"
        return f"Dense models and mixtures of experts of equal active parameters cannot be compared: {reason}."
    low, high = (quantity("active_params", comparison[name]) for name in ("range_low", "range_high"))
    return (
        f"At equal active parameters ({low} to {high}; {comparison['dense']} dense, {comparison['moe']} mixture of "
        f"experts) mixtures of experts differ by {comparison['difference']:+.0f} points (95 % {comparison['low']:+.0f} "
        f"to {comparison['high']:+.0f}, {_p(comparison['p_value'])})."
    )


def _group_in_words(own: Sequence[Row], group: str) -> str:
    name = {"dense": "Dense models", "moe": "Mixtures of experts"}[group]
    rows = {row["axis"]: row for row in own if row["group"] == group}
    models = max((row["models"] for row in rows.values()), default=0)
    if models < trends.FEWEST:
        return f"{name} alone: {models} of them have a value, so nothing can be concluded."
    correlations = _trend_in_words(rows)
    shifts = [axis for axis, row in rows.items() if row["found"]]
    if shifts:
        return f"{name} alone ({models}): a jump is found along {_listed(shifts)}. {correlations}"
    jumps = [row.get("detectable_jump") for row in rows.values() if row.get("shift_p_value") is not None]
    if not jumps:
        return f"{name} alone ({models}): too few to test for a jump. {correlations}"
    smallest = [jump for jump in jumps if jump is not None]
    power = (
        f"; one of {min(smallest):.0f} points would have been" if smallest else "; not even one of 100 points would be"
    )
    return f"{name} alone ({models}): no jump is found{power}. {correlations}"


def _limits(own: Sequence[Row], needed: Sequence[Row], headline: Row) -> list[str]:
    """Say what stands on few windows, on left-out models and on one sample of models."""
    noted: dict[str, list[str]] = {}
    for row in own:
        if row["group"] == "all" and row.get("note"):
            noted.setdefault(row["note"], []).append(AXES[row["axis"]])
    said = [
        f"{axes[0].capitalize()}{''.join(f', {axis}' for axis in axes[1:])}: {note}." for note, axes in noted.items()
    ]
    windows = [row for row in needed if row["definition"] == headline["definition"] and row["windows"] is not None]
    if windows:
        most = max(windows, key=lambda row: row["windows"] / row["of"])
        said.append(
            f"The set of outlier channels is that of all {most['of']} windows (Jaccard similarity 0.95 or more) from "
            f"{most['windows']} windows on at the latest ({most['model']})."
        )
    return [
        *said,
        "Models are not a random sample: families share data and design, so intervals over models are too narrow, and "
        "a correlation with size is not an effect of size.",
    ]


def _reasons(rows: Mapping[str, Row]) -> str:
    return "; ".join(sorted({row["note"] for row in rows.values() if row.get("note")})) or "no model has a value"


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for being several (Holm 1979)."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def quantity(axis: str, value: float) -> str:
    """Return a value of an axis as people say it: 6.7B, 0.31, 13.4."""
    if not axis.endswith("_params"):
        return f"{value:.3g}"
    return human(value, digits=3)


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"


def _listed(axes: Sequence[str]) -> str:
    words = [AXES[axis] for axis in axes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
