"""Comparison: what moved between two runs, and whether by more than the choice of the text explains.

Takes two summaries with their provenance; no model, no configuration and no terminal. The intervals of a summary say
how a value would vary over other sequences. From those of both runs follows one of their difference (`difference`);
what moved is *beyond* when that interval leaves out 0.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from outlier_features.comparison.comparability import INTERVALS, are_windows_shared, differing, warnings
from outlier_features.comparison.provenance_changes import origins
from outlier_features.comparison.recorded_run import Models, Row, Run
from outlier_features.experiment.quantities import Quantity, named
from outlier_features.metrics.intervals import Estimate

ROUNDING = 1e-6
"""A difference of at most this share of the larger value is none: sums in float32 differ by as much between CPUs."""

COLUMNS = (
    "model",
    "label",
    "definition",
    "quantity",
    "value",
    "value_low",
    "value_high",
    "against",
    "against_low",
    "against_high",
    "difference",
    "difference_low",
    "difference_high",
    "verdict",
    "conditions",
)
"""Columns of a comparison, one row per model, definition and quantity.

`value` is of this run and `against` of the other, each with its 95 % interval; `difference` is the first less the
second. `definition` is blank where the quantity does not depend on one. `conditions` are those the two were not
measured under alike, joined by ", ".
"""


class Verdict(StrEnum):
    """What a comparison says of one quantity."""

    SAME = "same"
    """Equal but for rounding, or not known on either side."""
    WITHIN = "within"
    """Moved; the interval of the difference holds 0."""
    BEYOND = "beyond"
    """Moved; the interval of the difference leaves out 0."""
    NO_INTERVAL = "no interval"
    """Moved; the quantity has no interval on one side or both."""
    NOT_COMPARABLE = "not comparable"
    """Differs, and was measured under conditions that change what the number is."""
    NO_VALUE = "no value"
    """One of the runs could not give it, as a share of layers where there is no outlier feature."""
    ONE_SIDE = "one side only"
    """One of the runs does not have the model or the definition."""


QUANTITIES = named(
    "outlier_count",
    "distinct_channels",
    "stable_channels",
    "mean_layer_pct",
    "mean_position_pct",
    "perplexity",
    "bits_per_byte",
    "kurtosis_max",
    "massive_count",
)
"""What is compared."""


@dataclass(frozen=True)
class Comparison:
    """What moved between two runs."""

    rows: pd.DataFrame
    """See COLUMNS."""
    warnings: tuple[str, ...]
    """Sentences on what cannot be compared, or only with care."""
    origins: tuple[str, ...]
    """Sentences on what the runs were made from."""

    def count(self, verdict: Verdict) -> int:
        """Return how many rows have a verdict."""
        return int((self.rows["verdict"] == verdict).sum())


def compare(this: Run, other: Run) -> Comparison:
    """Join two runs by model and definition, and say of each quantity whether it moved.

    Raises ConfigError for a summary with two rows of one model and definition.
    """
    ours, theirs = this.rows("this run"), other.rows("the other run")
    table = pd.DataFrame([_compared(*each) for each in _pairs(ours, theirs)], columns=list(COLUMNS))
    words = list(origins(this.origin, other.origin, has_moved=bool((table["verdict"] != Verdict.SAME).any())))
    if are_windows_shared(ours, theirs):
        words.insert(0, "Both were measured on the same windows, so no difference is one of text.")
    return Comparison(table, tuple(warnings(ours, theirs)), tuple(words))


def difference(this: Estimate, other: Estimate) -> Estimate:
    """Return `this` less `other`, with the interval that follows from theirs; without one where either has none.

    MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693): the distances from each value to its ends are added in
    quadrature. That holds for independent samples of text. Two runs on the same windows vary together, as a rule
    upwards, so there the interval is too wide: what is beyond it moved, what is within may have moved too.
    """
    value = this.value - other.value
    below = math.hypot(this.value - this.low, other.high - other.value)
    above = math.hypot(this.high - this.value, other.value - other.low)
    if math.isnan(below) or math.isnan(above):
        return Estimate(value)
    return Estimate(value, value - below, value + above)


def _pairs(ours: Models, theirs: Models) -> Iterator[tuple[Quantity, Row | None, Row | None]]:
    """Yield what is compared: quantities of each model under each definition, then those without a definition."""
    for model in _union(ours, theirs):
        mine, other = ours.get(model, {}), theirs.get(model, {})
        for definition in _union(mine, other):
            for quantity in QUANTITIES:
                if quantity.by_definition:
                    yield quantity, mine.get(definition), other.get(definition)
        for quantity in QUANTITIES:
            if not quantity.by_definition:
                yield quantity, next(iter(mine.values()), None), next(iter(other.values()), None)


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _compared(quantity: Quantity, ours: Row | None, theirs: Row | None) -> dict[str, Any]:
    """Return a row of the comparison."""
    row = ours or theirs or {}
    mine, other = _estimate(ours, quantity), _estimate(theirs, quantity)
    moved, verdict, unlike = difference(mine, other), Verdict.ONE_SIDE, []
    if ours is not None and theirs is not None:
        unlike = differing(ours, theirs, with_definition=quantity.by_definition)
        verdict = _verdict(mine, other, moved, not any(each.forbids(quantity.column) for each in unlike))
    return {
        "model": row["model"],
        "label": row["label"],
        "definition": row["definition"] if quantity.by_definition else None,
        "quantity": quantity.column,
        **mine.columns("value"),
        **other.columns("against"),
        **moved.columns("difference"),
        "verdict": verdict,
        "conditions": ", ".join(each.words for each in unlike) or None,
    }


def _estimate(row: Row | None, quantity: Quantity) -> Estimate:
    """Return a quantity of a row with its interval, NaN where it is not known or, in an earlier summary, too narrow."""
    found = quantity.estimate(row or {})
    return found if row and INTERVALS in row else Estimate(found.value)


def _verdict(mine: Estimate, other: Estimate, moved: Estimate, is_comparable: bool) -> Verdict:
    unknown = math.isnan(mine.value) + math.isnan(other.value)
    if unknown == 1:
        return Verdict.NO_VALUE
    if unknown == 2 or math.isclose(mine.value, other.value, rel_tol=ROUNDING):
        return Verdict.SAME
    if not is_comparable:
        return Verdict.NOT_COMPARABLE
    if math.isnan(moved.low):
        return Verdict.NO_INTERVAL
    return Verdict.WITHIN if moved.low <= 0 <= moved.high else Verdict.BEYOND
