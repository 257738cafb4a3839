"""Intervention table: what changes when channels or experts are replaced, beside both controls."""

# Shapes: S sequence (window), E expert.

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics.entropy import entropy
from outlier_features.text.windows import TokenWindows
from outlier_features.variants.results import Results
from outlier_features.variants.runs import EQUAL_SIZE, PLAIN, RANDOM, REAL

MEASURES = ("attention_top1", "attention_entropy", "attention_sink", "jaccard", "routing_kl", "load_entropy")
EFFECTS = ("delta_nll", *MEASURES)
CONTROLS = (RANDOM, EQUAL_SIZE)
INTERVENTION_COLUMNS = {
    "intervention": "string",
    "kind": "string",
    "draw": "Int32",
    "set_to": "string",
    "at": "string",
    "channels": "object",
    "experts": "string",
    **dict.fromkeys(EFFECTS, "float64"),
    "p": "float64",
    **{f"p_{control}{'' if e == EFFECTS[0] else f'_{e}'}": "float64" for control in CONTROLS for e in EFFECTS},
}
"""One row per run: the plain model, each intervention as it was asked for (`real`), and each draw of its controls.

`delta_nll` is in nats per predicted token. Attention is the mean over blocks and windows; `jaccard` (with the plain
model's choice of experts) and `routing_kl` (nats, from the plain model's probabilities) the mean over positions and
blocks; `load_entropy`, in bits, of how tokens share experts out, over blocks. Null where a model has no such thing.
`p_random…` and `p_equal_size…` are (1 + draws at least as strong) / (1 + draws) of the distance from the plain model;
those without the name of an effect are of `delta_nll`. `p` is the larger of the two: an effect is claimed only against
both controls, and null where one was not drawn.
"""


def interventions(results: Results, text: TokenWindows) -> pd.DataFrame:
    """Return every intervention and draw, with INTERVENTION_COLUMNS."""
    kinds = (PLAIN, REAL, *CONTROLS)
    numbers = [number for number, run in enumerate(results.runs) if run["kind"] in kinds]
    losses, tokens_S = results.losses(text)
    measured = _measured(results.effects())
    rows = []
    for number in numbers:
        run = results.runs[number]
        delta = float((losses[number] - losses[0]).sum() / tokens_S.sum())
        rows.append(_named(run) | {"delta_nll": delta} | measured.get(number, {}))
    for row in rows:
        if row["kind"] == REAL:
            row |= _p_values(row, rows)
    return pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS)).astype(INTERVENTION_COLUMNS)


def p_value(real: float, drawn: Sequence[float]) -> float:
    """Return (1 + draws at least as strong) / (1 + draws); NaN without a draw."""
    drawn = [each for each in drawn if np.isfinite(each)]
    if not drawn or not np.isfinite(real):
        return np.nan
    return (1 + sum(each >= real for each in drawn)) / (1 + len(drawn))


def _named(run: dict[str, Any]) -> dict[str, Any]:
    experts = "; ".join(f"{block}: {', '.join(map(str, each))}" for block, each in run.get("experts", {}).items())
    return {
        "intervention": run["name"],
        "kind": run["kind"],
        "draw": run["draw"],
        "set_to": run.get("set_to", ""),
        "at": run.get("at", ""),
        "channels": run.get("channels", []),
        "experts": experts,
    }


def _measured(effects: pd.DataFrame) -> dict[int, dict[str, float]]:
    """Return the measures of each run."""
    found: dict[int, dict[str, float]] = {}
    for run, own in effects.groupby("run"):
        means = {name: own[name].mean() for name in MEASURES[:3]}
        routed = own[own["jaccard"].notna()]
        if len(routed):
            means |= {name: routed[name].sum() / routed["tokens"].sum() for name in ("jaccard", "routing_kl")}
            if routed["routing_kl"].isna().any():
                means["routing_kl"] = np.nan
            loads = [np.sum([*block["load"]], axis=0) for _, block in routed.groupby("block")]
            means["load_entropy"] = float(np.mean([entropy(load_E) for load_E in loads]))
        found[run] = means  # type: ignore[index]
    return found


def _p_values(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for control in CONTROLS:
        drawn = [
            each
            for each in rows
            if each["kind"] == control
            and (each["intervention"], each["set_to"]) == (row["intervention"], row["set_to"])
        ]
        for effect in EFFECTS:
            name = f"p_{control}" if effect == EFFECTS[0] else f"p_{control}_{effect}"
            found[name] = p_value(_strength(effect, row, rows[0]), [_strength(effect, each, rows[0]) for each in drawn])
    both = [found[f"p_{control}"] for control in CONTROLS]
    return found | {"p": max(both) if np.isfinite(both).all() else np.nan}


def _strength(effect: str, row: dict[str, Any], plain: dict[str, Any]) -> float:
    """Return how far an effect is from the plain model's."""
    value, clean = row.get(effect), plain.get(effect)
    if value is None or clean is None or np.isnan(value) or np.isnan(clean):
        return np.nan
    return abs(value - clean)
