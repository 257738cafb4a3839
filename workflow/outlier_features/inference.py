"""Inference: what follows from the summary of an experiment, with uncertainty. `trends` has the statistics.

Per definition, measure, group of models and axis: rank correlation, constant against line against logistic, position
and width of a phase shift, and the jump that could have been shown; dense against mixtures of experts at equal active
parameters; how many windows the set of outlier channels needs. Sequences are resampled as in every interval of the
summary, models are taken as a sample.
"""

# Shapes: N model, B row of values: the estimates, then each bootstrap draw of the sequences.

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from outlier_features import answer, atomic, provenance, trends
from outlier_features.bootstrap import resampling_counts
from outlier_features.lineage import Lineage
from outlier_features.perplexity import resampled
from outlier_features.tables import read_json, read_table, write_table
from outlier_features.trends import Floats

MEASURES = {"mean_layer_pct": "mean_layer_pct", "mean_position_pct": "mean_position_pct", "distinct_pct": None}
GROUPS = {"all": ("dense", "moe"), "dense": ("dense",), "moe": ("moe",)}
AXES = ("total_params", "active_params", "sparsity", "perplexity", "bits_per_byte")
HEADLINE = {"definition": "arb8020", "measure": "mean_layer_pct"}
"""What the answer is about, chosen before anything was measured: the definition and the measure of the 2025 sweep."""
ENOUGH = 0.95
"""Jaccard similarity to the set of all windows from which on fewer windows count as enough."""

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
    "aicc_constant": "float64",
    "aicc_linear": "float64",
    "aicc_logistic": "float64",
    "weight_constant": "float64",
    "weight_linear": "float64",
    "weight_logistic": "float64",
    "preferred": "string",
    "constant": "float64",
    "intercept": "float64",
    "slope": "float64",
    "slope_low": "float64",
    "slope_high": "float64",
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
    "found": "bool",
    "detectable_jump": "float64",
    "note": "string",
}
"""Columns of the table of trends, one row per definition, measure, group and axis.

Measures are in points (per cent): `distinct_pct` is the number of distinct channels in per cent of the hidden size.
Every axis is taken as its logarithm to base 10; `x_low`, `x_high` and `shift_position` are in its own units, `slope` is
in points a decade, `shift_decades` goes from 10 to 90 % of the step. `found`: the logistic has the smallest AICc and
passes the test at 5 %. `detectable_jump` is the smallest jump that would have been found with 80 % power; blank where
not even one of 100 points would. `note` says why something is blank.
"""


@dataclass(frozen=True)
class Values:
    """A quantity of some models: the estimates in the first row, then one row a draw, where there are any."""

    models: list[str]
    values_BN: Floats

    def of(self, chosen: Iterable[str]) -> Floats:
        """Return the columns of some models, without the draws in which one of them has no value."""
        values_BN = self.values_BN[:, [self.models.index(name) for name in chosen]]
        known_B = np.isfinite(values_BN[1:]).all(axis=1)
        return np.concatenate([values_BN[:1], values_BN[1:][known_B]])


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
            found["trends"] += [names | row for row in _trends(own, axes, y)]
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


def _trends(own: pd.DataFrame, axes: Mapping[str, Values], y: Values) -> Iterator[dict[str, Any]]:
    for group, kinds in GROUPS.items():
        members = list(own.loc[own["kind"].isin(kinds), "model"])
        for axis, x in axes.items():
            known = [name for name in members if np.isfinite([x.of([name])[0, 0], y.of([name])[0, 0]]).all()]
            left_out = len(members) - len(known)
            yield {"group": group, "axis": axis} | _trend(x.of(known), y.of(known), left_out)


def _trend(x_BN: Floats, y_BN: Floats, left_out: int) -> dict[str, Any]:
    """Return the columns of TRENDS that follow from the models with a value; `left_out` counts those without."""
    draws = min(len(x_BN), len(y_BN)) if len(x_BN) > 1 else len(y_BN)
    x_BN = x_BN[:draws] if len(x_BN) > 1 else np.repeat(x_BN, draws, axis=0)
    y_BN, models = y_BN[:draws], x_BN.shape[1]
    row: dict[str, Any] = {"models": models, "found": False}
    without = f"{left_out} without a value left out" if left_out else ""
    if models < trends.FEWEST:
        return row | {
            "note": _joined(f"{models} model{'s' * (models != 1)}, at least {trends.FEWEST} are needed", without)
        }
    x_N, y_N = x_BN[0], y_BN[0]
    row |= {"x_low": 10 ** x_N.min(), "x_high": 10 ** x_N.max()}
    if np.ptp(x_N) == 0:
        return row | {"note": _joined("all models are at the same place", without)}
    row |= _named(trends.correlation(x_BN, y_BN))
    fitted = trends.line(x_N, y_BN)
    row |= {name: getattr(fitted, name) for name in ("intercept", "slope", "slope_low", "slope_high")}
    row |= {"constant": y_N.mean()}
    squares = {"constant": float(((y_N - y_N.mean()) ** 2).sum()), "linear": fitted.squares}
    note, spread = "", np.sqrt(fitted.squares / (models - 2))
    if models < trends.FEWEST_FOR_A_SHIFT:
        note = f"{models} models, a phase shift needs {trends.FEWEST_FOR_A_SHIFT}"
    else:
        try:
            best = trends.shift(x_N, y_BN)
            row |= _shift(best) | {"shift_p_value": trends.shift_p_value(x_N, y_N)}
            squares["logistic"] = best.squares
            spread = min(spread, np.sqrt(best.squares / (models - 4)))
            jump = trends.detectable_jump(x_N, float(spread))
            row |= {"detectable_jump": jump if jump <= 100 else None}
        except ValueError as error:
            note = str(error)
    row |= _preference(squares, models)
    row["found"] = bool(row["preferred"] == "logistic" and row["shift_p_value"] < trends.ALPHA)
    return row | {"note": _joined(note, without)}


def _joined(*parts: str) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _named(found: trends.Correlation) -> dict[str, float]:
    return {
        "spearman": found.value,
        "spearman_low": found.low,
        "spearman_high": found.high,
        "p_value": found.p_value,
    }


def _shift(best: trends.Shift) -> dict[str, float]:
    places = {
        "shift_position": best.position,
        "shift_position_low": best.position_low,
        "shift_position_high": best.position_high,
    }
    return {
        "lower": best.lower,
        "upper": best.upper,
        **{name: 10**value for name, value in places.items()},
        "shift_decades": best.width,
        "shift_decades_low": best.width_low,
        "shift_decades_high": best.width_high,
        "shift_size": best.upper - best.lower,
    }


def _preference(squares: Mapping[str, float], models: int) -> dict[str, Any]:
    """Return AICc and Akaike weights of the fits, and the one that is preferred."""
    parameters = {"constant": 2, "linear": 3, "logistic": 5}
    criteria = {name: float(trends.aicc(value, models, parameters[name])) for name, value in squares.items()}
    known = {name: value for name, value in criteria.items() if np.isfinite(value)}
    best = min(known, key=lambda name: known[name])
    likelihoods = {name: float(np.exp((known[best] - value) / 2)) for name, value in known.items()}
    weights = {f"weight_{name}": value / sum(likelihoods.values()) for name, value in likelihoods.items()}
    return {f"aicc_{name}": value for name, value in known.items()} | weights | {"preferred": best}


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
    if min(counts.values()) < 2 or len(rows) < 5 or np.ptp(rows["x"]) == 0:
        return counts | {"note": "fewer than two of each kind and five in all within the range they share"}
    names = list(rows["model"])
    found = trends.difference(x.of(names)[0], y.of(names), (rows["kind"] == "moe").to_numpy())
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
