"""Answer: what an inference says, in words that claim no more than it allows."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from outlier_features.experiment import correlation, phase_shift
from outlier_features.experiment.quantities import QUANTITIES
from outlier_features.units import human

AXES = {
    name: QUANTITIES[name].words
    for name in ("total_params", "active_params", "sparsity", "perplexity", "bits_per_byte")
}
MEASURES = {name: QUANTITIES[name].phrase for name in ("mean_layer_pct", "mean_position_pct")} | {
    "distinct_pct": "the share of channels that are outlier features"
}
ASKED = ("total_params", "active_params", "perplexity")
"""The axes of the question; the tests of one answer share an error of 5 % (Holm 1979)."""

MOSTLY = 0.9
"""Share of the way of a fitted curve that goes up where it rises: the end of a parabola may turn a little."""

Row = Mapping[Any, Any]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Axis:
    """An axis along which something was found, or several of which every model has the same values: one finding."""

    names: tuple[str, ...]
    row: Row

    @property
    def words(self) -> str:
        """How a sentence calls it."""
        if self.names[:2] == ("total_params", "active_params"):
            return "parameters (total and active are the same)"
        return AXES[self.names[0]]

    @property
    def unit(self) -> str:
        """What a value of it counts."""
        return "parameters" if len(self.names) > 1 else AXES[self.names[0]]

    @property
    def is_tested(self) -> bool:
        """Whether it was tested for a jump."""
        return self.row.get("shift_p_adjusted") is not None

    @property
    def has_trend(self) -> bool:
        """Whether its rank correlation is shown, over all models and within kinds."""
        p_values = [self.row.get(name) for name in ("p_adjusted", "p_within_adjusted")]
        return all(p_value is not None and p_value < phase_shift.ALPHA for p_value in p_values)


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
    if max((row["models"] for row in everyone.values()), default=0) < correlation.FEWEST:
        return {"answer": _nothing(subject, measure, everyone), "sentences": _limits(own, needed, headline)}
    comparison = next((row for row in comparisons if _is_about(row, headline)), {})
    axes = _axes(everyone)
    parts = [_shift_in_words(axes, measure), _power(axes), _trend_in_words(axes), _difference_in_words(comparison)]
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
        f"{with_value}; a trend needs at least {correlation.FEWEST} models and a phase shift {phase_shift.FEWEST}."
    )


def _axes(rows: Mapping[str, Row]) -> list[Axis]:
    """Return the axes of some rows, those with the same values as one."""
    found: dict[Hashable, Axis] = {}
    for name, row in rows.items():
        values = [row.get(column) for column in ("x_low", "x_high", "intercept", "slope", "spearman")]
        key: Hashable = name if None in values else tuple(values)
        found[key] = Axis((*found[key].names, name) if key in found else (name,), row)
    return list(found.values())


def _shift_in_words(axes: Sequence[Axis], measure: str) -> str:
    """Say along which axes of the question the measure jumps, or rises steadily, or neither."""
    tested = [axis for axis in axes if axis.is_tested]
    if not tested:
        return f"Whether {measure} jumps cannot be said: {_reasons(axes)}."
    said = [f"{measure} jumps {_place(axis)}." for axis in tested if axis.row["found"]]
    quiet = [axis for axis in tested if not axis.row["found"]]
    if quiet:
        said.append(f"no jump of {'it' if said else measure} is shown along {_listed(quiet)}.")
    said += [
        f"along {axis.words} a step describes it best, but {_doubt(axis.row)}." for axis in quiet if _is_step(axis)
    ]
    for way in ("rises steadily", "falls steadily", "changes smoothly"):
        along = [axis for axis in quiet if _way(axis) == way]
        if along:
            said.append(f"it {way} along {_listed(along, 'and')}.")
    untested = [axis for axis in axes if not axis.is_tested]
    if untested:
        said.append(f"along {_listed(untested)} a jump cannot be tested for.")
    return " ".join(_sentence(each) for each in said)


def _is_step(axis: Axis) -> bool:
    return bool(axis.row["preferred"] == "step")


def _doubt(row: Row) -> str:
    if row["odd_model"] is not None:
        return f"no longer without {row['odd_model']}"
    return f"noise looks like one too ({_p(row['shift_p_adjusted'])})"


def _way(axis: Axis) -> str | None:
    """Return how the measure goes along an axis that shows a trend and that a line or a smooth curve describes best."""
    row = axis.row
    if row["preferred"] not in ("linear", "smooth") or not axis.has_trend:
        return None
    rises = np.diff(curve(row, row["preferred"], np.linspace(0, 1, 50)))
    up = rises[rises > 0].sum() / np.abs(rises).sum()
    if up >= MOSTLY:
        return "rises steadily"
    return "falls steadily" if up <= 1 - MOSTLY else "changes smoothly"


def curve(row: Row, name: str, u: correlation.Floats) -> correlation.Floats:
    """Return the values of a fit (constant, linear, smooth or step) of a row of trends.

    `u` is the share of the range from `x_low` to `x_high`, in logarithms.
    """
    low, high = (np.log10(row[f"x_{end}"]) for end in ("low", "high"))
    if name == "constant":
        return np.full_like(u, row["constant"])
    if name == "linear":
        return np.asarray(row["intercept"] + row["slope"] * (low + u * (high - low)))
    if name == "smooth":
        bent = phase_shift.bent(row["smooth_shape"], row["smooth_bend"], u)
        return np.asarray(row["smooth_level"] + row["smooth_slope"] * u + row["smooth_size"] * bent)
    position, width = np.array([np.log10(row["shift_position"])]), np.array([row["shift_decades"]])
    first, last, *between = phase_shift.rise(np.array([low, high, *(low + u * (high - low))]), position, width)[0]
    return np.asarray(row["lower"] + row["shift_size"] * (np.array(between) - first) / (last - first))


def _place(axis: Axis) -> str:
    row = axis.row
    size, width = f"{row['shift_size']:+.0f} points", row["shift_decades"]
    how = "sharply" if width <= phase_shift.SHARP else f"within {width:.2g} decades"
    at = f"{quantity(axis.names[0], row['shift_position'])} {axis.unit} ({place_range(axis.names[0], row)})"
    return f"by {size} at {at}, {how} ({_p(row['shift_p_adjusted'])})"


def place_range(axis: str, row: Row) -> str:
    """Say between which values of an axis a jump lies, and whether it may lie beyond the models."""
    low, high = (quantity(axis, row[f"shift_position_{end}"]) for end in ("low", "high"))
    below = " or below" if row["shift_position_low"] <= row["x_low"] * (1 + 1e-9) else ""
    beyond = " or beyond" if row["shift_position_high"] >= row["x_high"] * (1 - 1e-9) else ""
    return f"between {low}{below} and {high}{beyond}"


def _power(axes: Sequence[Axis]) -> str:
    """Say which jumps would have been found along the axes on which none was."""
    rows = [axis.row for axis in axes if axis.is_tested and not axis.row["found"]]
    if not rows:
        return ""
    middle, wide, early, _ = (
        _sizes([row.get(f"{name}_low") for row in rows], [row.get(f"{name}_high") for row in rows])
        for name in phase_shift.PLACES
    )
    if {middle, wide, early} == {NOT_EVEN}:
        return "So few models, or so unlike ones, could not have shown even a jump of 100 points."
    noise = f"{min(row['noise_low'] for row in rows):.0f} to {max(row['noise_high'] for row in rows):.0f} points"
    return (
        f"Four times in five these models would have shown a sharp jump between the middle ones {middle}, one over "
        f"half a decade {wide} and a sharp one between the second and the third {early}, depending on how much models "
        f"of a size differ ({noise}, as far as these tell). Smaller ones may be there."
    )


NOT_EVEN = "not even of 100 points"


def _sizes(low: Sequence[float | None], high: Sequence[float | None]) -> str:
    """Say from which size on a jump would have been found; None stands for more than 100 points."""
    least = min((size for size in low if size is not None), default=None)
    if least is None:
        return NOT_EVEN
    if None in high:
        return f"of {least:.0f} to more than 100 points"
    most = max(size for size in high if size is not None)
    return f"of {least:.0f} to {most:.0f} points" if f"{least:.0f}" != f"{most:.0f}" else f"of {least:.0f} points"


def _trend_in_words(axes: Sequence[Axis]) -> str:
    """Give the rank correlations along the axes of the question, and say which of them are shown."""
    known = [axis for axis in axes if axis.row.get("p_adjusted") is not None]
    if not known:
        return ""
    adjusted = f", p-values adjusted for {len(known)} tests" if len(known) > 1 else ""
    shown = [axis for axis in known if axis.has_trend]
    if not shown:
        verdict = "None is shown."
    elif len(shown) == len(known) == 1:
        verdict = "It is shown."
    else:
        verdict = f"Shown: with {_listed(shown, 'and')}."
    return f"Rank correlations{adjusted}: {', '.join(_correlation(axis) for axis in known)}. {verdict}"


def _correlation(axis: Axis) -> str:
    row = axis.row
    interval = row.get("spearman_low")
    said = [] if interval is None else [f"95 % {interval:+.2f} to {row['spearman_high']:+.2f}"]
    said.append(_p(row["p_adjusted"]))
    if row.get("p_within_adjusted") is not None and row["p_within"] != row["p_value"]:
        said.append(f"within kinds {row['spearman_within']:+.2f}, {_p(row['p_within_adjusted'])}")
    return f"{row['spearman']:+.2f} with {axis.words} ({'; '.join(said)})"


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
    if models < correlation.FEWEST:
        return f"{name} alone: {models} of them have a value, so nothing can be concluded."
    axes = _axes(rows)
    tested = [axis for axis in axes if axis.is_tested]
    jumps = [axis for axis in tested if axis.row["found"]]
    if jumps:
        found = f"a jump {' and one '.join(_place(axis) for axis in jumps)}"
    else:
        found = "no jump is shown" if tested else "too few to test for a jump"
    return " ".join(
        part for part in (f"{name} alone ({models}): {found}.", _power(axes), _trend_in_words(axes)) if part
    )


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
            f"From {most['windows']} windows on at the latest ({most['model']}), the set of outlier channels agrees "
            f"with that of all {most['of']} (Jaccard similarity 0.95 or more); more windows than these could change it."
        )
    return [
        *said,
        "Models are not a random sample: families share data and design, so intervals over models are too narrow, and "
        "a correlation with size is not an effect of size. Families that come one after another in size can look like "
        "a jump where no name, maker or architecture tells them.",
    ]


def _reasons(axes: Sequence[Axis]) -> str:
    return "; ".join(sorted({axis.row["note"] for axis in axes if axis.row.get("note")})) or "no model has a value"


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
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


def _listed(axes: Sequence[Axis], last: str = "or") -> str:
    words = [axis.words for axis in axes]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]
