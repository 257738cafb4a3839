"""Inference: what follows from the summary of an experiment, with uncertainty.

Per definition, measure, group of models and axis: rank correlation; constant, line, smooth curve, levels of groups and
step against each other; position, width and size of a jump, and the jump that could have been shown; dense against
mixtures of experts at equal active parameters; how many windows the set of outlier channels needs. Sequences are
resampled as in every interval of the summary, models are taken as a sample.
"""

# Shapes: N model, B row of values: the estimates, then each bootstrap draw of the sequences.

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.artefacts import atomic, provenance
from outlier_features.artefacts.lineage import Lineage
from outlier_features.artefacts.tables import read_json, read_table, write_table
from outlier_features.experiment import answer, correlation, phase_shift
from outlier_features.experiment.correlation import Floats
from outlier_features.experiment.table_of_2025 import DEFINITION
from outlier_features.metrics.bootstrap import resampled, resampling_counts

MEASURES = {"mean_layer_pct": "mean_layer_pct", "mean_position_pct": "mean_position_pct", "distinct_pct": None}
GROUPS = {"all": ("dense", "moe"), "dense": ("dense",), "moe": ("moe",)}
AXES = ("total_params", "active_params", "sparsity", "perplexity", "bits_per_byte")
HEADLINE = {"definition": DEFINITION, "measure": "mean_layer_pct"}
"""What the answer is about, chosen before anything was measured: the definition and the measure of the 2025 sweep."""
ENOUGH = 0.95
"""Jaccard similarity to the set of all windows from which on fewer windows count as enough."""
NO_SPREAD = "all models have the same value"

TRENDS = {
    "definition": "string",
    "measure": "string",
    "group": "string",
    "axis": "string",
    "models": "int32",
    "x_low": "float64",
    "x_high": "float64",
    "spearman": "float64",
    "spearman_low": "float64",
    "spearman_high": "float64",
    "p_value": "float64",
    "p_adjusted": "float64",
    "spearman_within": "float64",
    "p_within": "float64",
    "p_within_adjusted": "float64",
    "aicc_constant": "float64",
    "aicc_linear": "float64",
    "aicc_smooth": "float64",
    "aicc_groups": "float64",
    "aicc_step": "float64",
    "weight_constant": "float64",
    "weight_linear": "float64",
    "weight_smooth": "float64",
    "weight_groups": "float64",
    "weight_step": "float64",
    "preferred": "string",
    "constant": "float64",
    "intercept": "float64",
    "slope": "float64",
    "slope_low": "float64",
    "slope_high": "float64",
    "smooth_shape": "string",
    "smooth_bend": "float64",
    "smooth_level": "float64",
    "smooth_slope": "float64",
    "smooth_size": "float64",
    "lower": "float64",
    "upper": "float64",
    "shift_position": "float64",
    "shift_position_low": "float64",
    "shift_position_high": "float64",
    "shift_decades": "float64",
    "shift_decades_low": "float64",
    "shift_decades_high": "float64",
    "shift_size": "float64",
    "shift_p_value": "float64",
    "shift_p_adjusted": "float64",
    "shift_tests": "Int32",
    "odd_model": "string",
    "found": "bool",
    "noise": "float64",
    "noise_low": "float64",
    "noise_high": "float64",
    "detectable_jump": "float64",
    "detectable_jump_low": "float64",
    "detectable_jump_high": "float64",
    "detectable_wide_jump": "float64",
    "detectable_wide_jump_low": "float64",
    "detectable_wide_jump_high": "float64",
    "detectable_early_jump": "float64",
    "detectable_early_jump_low": "float64",
    "detectable_early_jump_high": "float64",
    "detectable_early_wide_jump": "float64",
    "detectable_early_wide_jump_low": "float64",
    "detectable_early_wide_jump_high": "float64",
    "note": "string",
}
"""Columns of the table of trends, one row per definition, measure, group and axis.

Measures are in points (per cent): `distinct_pct` is the number of distinct channels in per cent of the hidden size.
Every axis is taken as its logarithm to base 10; `x_low`, `x_high` and `shift_position` are in its own units, `slope` is
in points a decade, `shift_decades` goes from 10 to 90 % of the step. `spearman_low` to `spearman_high` and `slope_low`
to `slope_high` are 95 % intervals; the ranges of `shift_position`, `shift_decades` and `noise` are not. `_within`: with
each kind's mean rank taken away, and permuted within kinds. `_adjusted` (Holm): correlations along the axes of the
question, within a group; steps over all tests of one answer (`shift_tests`: how many), equal axes counted once.
`preferred` has the least AICc: constant, linear, smooth (level + slope u + size times a shape of u, the share of the
range from `x_low` to `x_high` in logarithms), groups (a level for each kind, family, maker or architecture) or step.
`lower` and `upper` are the step's values at the first and the last model, `shift_size` their difference. `odd_model`:
without it, something else describes the others as well. `found`: preferred, `shift_p_adjusted` below 5 %, no
`odd_model`. `detectable_jump`: the smallest jump between the middle models that would have been found with 80 % power,
with the spread that models seem to have (`noise`) and with the smallest and the largest it may have; `wide`: over half
a decade; `early`: between the second and the third model; blank where not even one of 100 points would, and for axes
that the answer is not about. `note` says why something is blank.
"""


@dataclass(frozen=True)
class Values:
    """A quantity of some models: the estimates in the first row, then one row a draw, where there are any."""

    models: list[str]
    values_BN: Floats

    def of(self, chosen: Iterable[str]) -> Floats:
        """Return the columns of some models."""
        return self.values_BN[:, [self.models.index(name) for name in chosen]]


def paired(x: Values, y: Values, chosen: Iterable[str]) -> tuple[Floats, Floats]:
    """Return x and y of some models, a row a draw of both, without the draws in which any of them has no value.

    The same row is the same draw of the sequences; where one of the two has no draws, its estimates stand in each.
    """
    names = list(chosen)
    x_BN, y_BN = x.of(names), y.of(names)
    rows = max(len(x_BN), len(y_BN))
    x_BN, y_BN = (np.repeat(each, rows, axis=0) if len(each) == 1 else each for each in (x_BN, y_BN))
    rows = min(len(x_BN), len(y_BN))
    is_known_B = np.asarray((np.isfinite(x_BN[:rows]) & np.isfinite(y_BN[:rows])).all(axis=1))
    is_known_B[0] = True
    return x_BN[:rows][is_known_B], y_BN[:rows][is_known_B]


def infer(
    summary: Path,
    draws: Mapping[str, Path],
    perplexity: Mapping[str, Path],
    convergence: Mapping[str, Path],
    parquet: Path,
    text: Path,
    lineage: Lineage,
) -> None:
    """Write what follows from a summary and the draws of its models: all trends, and the answer in words."""
    rows, _ = read_table(summary, "summary", lineage.get("summary"))
    drawn, converged = (
        {name: read_table(path, "reduction", lineage.get(f"reduction {name}"))[0] for name, path in paths.items()}
        for paths in (draws, convergence)
    )
    quality = {name: _perplexity_draws(path, lineage.get(f"perplexity {name}")) for name, path in perplexity.items()}
    found = conclusions(rows, drawn, quality, converged)
    origin = provenance.record(lineage)
    write_table(parquet, pd.DataFrame(found["trends"], columns=list(TRENDS)).astype(TRENDS), origin)
    atomic.write_json(text, {**found, "provenance": origin})


def conclusions(
    summary: pd.DataFrame,
    draws: Mapping[str, pd.DataFrame],
    quality: Mapping[str, Mapping[str, Floats]],
    convergence: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Return trends, comparisons, windows needed and the answer, as plain values for JSON.

    `draws`, `quality` (perplexity and bits per byte) and `convergence` are by model; a model that is missing from them
    has its estimates only, and its sequences add nothing to the intervals. Of a training run the last step counts.
    """
    rows = _last_steps(summary)
    found: dict[str, list[dict[str, Any]]] = {"trends": [], "comparisons": []}
    for definition, own in rows.groupby("definition", sort=False):
        axes = {axis: _axis(own, axis, quality) for axis in AXES}
        for measure in MEASURES:
            y = _measure(own, str(definition), measure, draws)
            names = {"definition": definition, "measure": measure}
            found["trends"] += [names | row for row in _answered(own, axes, y)]
            found["comparisons"].append(names | _comparison(own, axes["active_params"], y))
    plain = {name: [_plain(row) for row in each] for name, each in found.items()}
    needed = [_plain(row) for name, table in convergence.items() for row in _windows_needed(name, table)]
    headline = HEADLINE if HEADLINE["definition"] in set(rows["definition"]) else _first(rows)
    models = rows.drop_duplicates("model")
    said = answer.compose(models, headline, plain["trends"], plain["comparisons"], needed)
    return {**said, "headline": headline, "models": len(models), **plain, "windows_needed": needed}


def _first(rows: pd.DataFrame) -> dict[str, str]:
    return HEADLINE | {"definition": str(next(iter(rows["definition"]), HEADLINE["definition"]))}


def _last_steps(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary without the steps of a training run that are not its last."""
    last = summary.groupby("series")["step"].transform("max")
    return summary[summary["series"].isna() | (summary["step"] == last)]


def _axis(own: pd.DataFrame, axis: str, quality: Mapping[str, Mapping[str, Floats]]) -> Values:
    """Return the logarithm of an axis; only what is measured has draws."""
    drawn = {name: values[axis] for name, values in quality.items() if axis in values}
    return _with_draws(own, np.log10(own[axis].to_numpy(float)), {n: np.log10(v) for n, v in drawn.items()})


def _measure(own: pd.DataFrame, definition: str, measure: str, draws: Mapping[str, pd.DataFrame]) -> Values:
    if measure != "distinct_pct":
        column, scale = measure, pd.Series(1.0, own["model"])
    else:
        column, scale = "distinct_channels", 100 / own.set_index("model")["hidden_size"].astype(float)
    drawn = {
        name: table.loc[table["definition"] == definition, column].to_numpy(float) * scale[name]
        for name, table in draws.items()
        if name in scale.index
    }
    return _with_draws(own, own[column].to_numpy(float) * scale.to_numpy(float), drawn)


def _with_draws(own: pd.DataFrame, estimates_N: Floats, drawn: Mapping[str, Floats]) -> Values:
    """Return estimates over the draws; a model without draws keeps its estimate in all of them."""
    models = list(own["model"])
    many = max((len(drawn[name]) for name in models if name in drawn), default=0)
    values_BN = np.repeat(estimates_N[None], 1 + many, axis=0)
    for column, name in enumerate(models):
        if many and len(drawn.get(name, ())) == many:
            values_BN[1:, column] = drawn[name]
    return Values(models, values_BN)


def _answered(own: pd.DataFrame, axes: Mapping[str, Values], y: Values) -> list[dict[str, Any]]:
    """Return the rows of one answer: a definition and a measure, all groups and axes, p-values adjusted."""
    rows = [_Trend.of(own, axes, y, group, axis) for group in GROUPS for axis in axes]
    asked = [row for row in rows if row.row["axis"] in answer.ASKED]
    _adjust_steps(asked, asked)
    _adjust_steps(rows, [row for row in rows if row not in asked])
    for group in GROUPS:
        _adjust_correlations([row for row in asked if row.row["group"] == group])
    for each in asked:
        each.row |= each.power()
    return [each.row for each in rows]


@dataclass(eq=False)
class _Trend:
    """A row of the table of trends, and what it was made from."""

    row: dict[str, Any]
    x_N: Floats
    y_N: Floats
    labels: list[list[str]]

    @classmethod
    def of(cls, own: pd.DataFrame, axes: Mapping[str, Values], y: Values, group: str, axis: str) -> "_Trend":
        x = axes[axis]
        members = own[own["kind"].isin(GROUPS[group])]
        has_value = [np.isfinite([x.of([name])[0, 0], y.of([name])[0, 0]]).all() for name in members["model"]]
        known = members[np.array(has_value, bool)]
        x_BN, y_BN = paired(x, y, known["model"])
        labels = groupings(known)
        row = {"group": group, "axis": axis} | _trend(x_BN, y_BN, known, labels, len(members) - len(known))
        return cls(row, x_BN[0], y_BN[0], labels)

    @property
    def key(self) -> tuple[bytes, bytes]:
        """The same for two rows that test the same thing."""
        return self.x_N.tobytes(), self.y_N.tobytes()

    def power(self) -> dict[str, float | None]:
        """Return the jumps that would have been found, in points, for the noise as it seems and as it may be."""
        if self.row.get("shift_tests") is None:
            return {}
        found: dict[str, float | None] = {}
        for name, (place, width) in phase_shift.PLACES.items():
            size = phase_shift.detectable(self.x_N, self.labels, place, width, self.row["shift_tests"])
            for end in ("", "_low", "_high"):
                jump = size * self.row[f"noise{end}"]
                found[name + end] = jump if jump <= 100 else None
        return found


def _adjust_steps(tests: Sequence[_Trend], rows: Sequence[_Trend]) -> None:
    """Adjust the p-values of steps of some rows for all tests of an answer; what is tested twice counts once."""
    p_values = {each.key: each.row["shift_p_value"] for each in tests if "shift_p_value" in each.row}
    adjusted = answer.holm(p_values)
    for each in rows:
        if each.key not in adjusted or "shift_p_value" not in each.row:
            continue
        p_value = adjusted[each.key]
        is_found = each.row["preferred"] == "step" and p_value < phase_shift.ALPHA and each.row["odd_model"] is None
        each.row |= {"shift_p_adjusted": p_value, "shift_tests": len(adjusted), "found": is_found}


def _adjust_correlations(rows: Sequence[_Trend]) -> None:
    for name, adjusted_name in (("p_value", "p_adjusted"), ("p_within", "p_within_adjusted")):
        p_values = {each.key: each.row[name] for each in rows if np.isfinite(each.row.get(name, np.nan))}
        adjusted = answer.holm(p_values)
        for each in rows:
            if each.key in adjusted:
                each.row[adjusted_name] = adjusted[each.key]


def groupings(models: pd.DataFrame) -> list[list[str]]:
    """Return what models have in common beside a size, a label a model: kind, maker, family and architecture.

    Dense models and mixtures of one family are two groups. Groupings that are alike count once, and so do not those of
    which every model is a group of its own, or all are one.
    """
    kinds = models["kind"].astype(str).tolist()
    found: list[list[str]] = [kinds]
    for labels in (_makers(models), _families(models), _column(models, "architecture")):
        found.append([f"{label} {kind}" for label, kind in zip(labels, kinds, strict=True)])
    different = {tuple(pd.factorize(np.array(labels))[0]): labels for labels in found}
    return [labels for labels in different.values() if 1 < len(set(labels)) < len(labels)]


def _column(models: pd.DataFrame, name: str) -> list[str]:
    if name not in models:
        return [""] * len(models)
    return models[name].fillna("").astype(str).tolist()


def _makers(models: pd.DataFrame) -> list[str]:
    """Return who publishes each model, which its name on the hub begins with; without one it is its own."""
    hubs, names = _column(models, "hub"), models["model"].astype(str)
    return [hub.split("/")[0] if "/" in hub else name for hub, name in zip(hubs, names, strict=True)]


def _families(models: pd.DataFrame) -> list[str]:
    """Return how the name of each model begins: what is before the first word with a digit in front, as sizes have."""
    names = models["label" if "label" in models else "model"].astype(str)
    return [re.split(r"[-_ /]+(?=\d)", name, maxsplit=1)[0] for name in names]


def _trend(
    x_BN: Floats, y_BN: Floats, models: pd.DataFrame, labels: Sequence[Sequence[str]], left_out: int
) -> dict[str, Any]:
    """Return the columns of TRENDS that follow from the models with a value; `left_out` counts those without."""
    count = len(models)
    row: dict[str, Any] = {"models": count, "found": False}
    without = f"{left_out} without a value left out" if left_out else ""
    if count < correlation.FEWEST:
        return row | {
            "note": _joined(f"{count} model{'s' * (count != 1)}, at least {correlation.FEWEST} are needed", without)
        }
    x_N, y_N = x_BN[0], y_BN[0]
    row |= {"x_low": 10 ** x_N.min(), "x_high": 10 ** x_N.max()}
    if np.ptp(x_N) == 0:
        return row | {"note": _joined("all models are at the same place", without)}
    row |= _correlation(correlation.correlation(x_BN, y_BN, models["kind"].tolist()))
    fitted = correlation.line(x_N, y_BN)
    row |= {name: getattr(fitted, name) for name in ("intercept", "slope", "slope_low", "slope_high")}
    row |= {"constant": y_N.mean()}
    if np.ptp(y_N) == 0:
        return row | {"note": _joined(NO_SPREAD, without)}
    if count < phase_shift.FEWEST:
        return row | {"note": _joined(f"{count} models, a phase shift needs {phase_shift.FEWEST}", without)}
    try:
        return row | _step(x_N, y_BN, models, labels) | {"note": _joined(without)}
    except ValueError as error:
        return row | {"note": _joined(str(error), without)}


def _joined(*parts: str) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _correlation(found: correlation.Correlation) -> dict[str, float]:
    return {
        "spearman": found.value,
        "spearman_low": found.low,
        "spearman_high": found.high,
        "p_value": found.p_value,
        "spearman_within": found.within,
        "p_within": found.p_within,
    }


def _step(x_N: Floats, y_BN: Floats, models: pd.DataFrame, labels: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return what describes the models best, the step among it, and the noise around it."""
    tested = phase_shift.step_test(x_N, y_BN[0], labels)
    best, smooth = phase_shift.step(x_N, y_BN), phase_shift.smooth(x_N, y_BN[0])
    noise = phase_shift.noise_around_best(x_N, y_BN[0], labels)
    places = {"": best.position, "_low": best.position_low, "_high": best.position_high}
    return {
        **_weights(tested.criteria),
        "preferred": tested.preferred,
        **{f"smooth_{name}": getattr(smooth, name) for name in ("shape", "bend", "level", "slope", "size")},
        "lower": best.lower,
        "upper": best.upper,
        **{f"shift_position{end}": 10**value for end, value in places.items()},
        "shift_decades": best.width,
        "shift_decades_low": best.width_low,
        "shift_decades_high": best.width_high,
        "shift_size": best.upper - best.lower,
        "shift_p_value": tested.p_value,
        "odd_model": None if tested.odd is None else str(_column(models, "label")[tested.odd]),
        **dict(zip(("noise", "noise_low", "noise_high"), noise, strict=True)),
    }


def _weights(criteria: Mapping[str, float]) -> dict[str, float]:
    """Return AICc and Akaike weights, without what has none."""
    known = {name: value for name, value in criteria.items() if np.isfinite(value)}
    likelihoods = {name: float(np.exp((min(known.values()) - value) / 2)) for name, value in known.items()}
    weights = {f"weight_{name}": value / sum(likelihoods.values()) for name, value in likelihoods.items()}
    return {f"aicc_{name}": value for name, value in known.items()} | weights


def _comparison(own: pd.DataFrame, x: Values, y: Values) -> dict[str, Any]:
    """Return by how many points mixtures of experts lie above dense models of the same active parameters."""
    rows = own.assign(x=x.values_BN[0], y=y.values_BN[0])
    rows = rows[np.isfinite(rows["x"].to_numpy(float)) & np.isfinite(rows["y"].to_numpy(float))]
    by_kind = {kind: rows.loc[rows["kind"] == kind, "x"] for kind in ("dense", "moe")}
    absent = [kind for kind, values in by_kind.items() if values.empty]
    if absent:
        return _incomparable(by_kind, f"no {' and no '.join(absent)} model has a value")
    low, high = max(v.min() for v in by_kind.values()), min(v.max() for v in by_kind.values())
    rows = rows[rows["x"].between(low, high)]
    counts = {kind: int((rows["kind"] == kind).sum()) for kind in by_kind}
    if min(counts.values()) < 3 or np.ptp(rows["x"]) == 0:
        return counts | {"note": "fewer than three of each kind within the range they share"}
    if np.ptp(rows["y"]) == 0:
        return counts | {"note": NO_SPREAD}
    x_BN, y_BN = paired(x, y, rows["model"])
    found = correlation.difference(x_BN[0], y_BN, (rows["kind"] == "moe").to_numpy())
    ends = {"range_low": 10**low, "range_high": 10**high}
    return counts | ends | {"difference": found.value, "low": found.low, "high": found.high, "p_value": found.p_value}


def _incomparable(by_kind: Mapping[str, pd.Series], note: str) -> dict[str, Any]:
    return {kind: len(values) for kind, values in by_kind.items()} | {"note": note}


def _windows_needed(model: str, table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield, per definition, how many windows give the set of outlier channels of all of them, nearly."""
    for definition, own in table.groupby("definition", sort=False):
        below = own.loc[own["jaccard"] < ENOUGH, "windows"]
        known = bool(own["jaccard"].notna().any())
        needed = int(below.max()) + 1 if len(below) else int(own["windows"].min())
        row = {"model": model, "definition": definition, "of": int(own["windows"].max())}
        yield row | {"windows": needed if known else None}


def _perplexity_draws(path: Path, expected: str | None) -> dict[str, Floats]:
    """Return perplexity and bits per byte in each bootstrap draw of the sequences."""
    each = read_json(path, "perplexity", expected)["per_sequence"]
    return resampled(each, resampling_counts(len(each["loss"])))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can hold it: no NumPy, no NaN, no infinity."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {n: None if isinstance(v, float) and not np.isfinite(v) else v for n, v in plain.items()}
