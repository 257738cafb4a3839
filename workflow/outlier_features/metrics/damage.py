"""Damage: what each format would do to each matrix input, predicted from the statistics; nothing is quantised here."""

# Shapes: N tensor (block and site), S window, B bootstrap draw.

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from outlier_features.metrics import intervals, kept_windows
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.decibels import decibels
from outlier_features.metrics.kept_windows import KeptWindow
from outlier_features.metrics.quantisers import FORMATS, Errors
from outlier_features.site_names import MATRIX_INPUTS
from outlier_features.statistics.shards import BlockTable, Statistics

DAMAGE_COLUMNS = {
    "block": "int32",
    "site": "string",
    "format": "string",
    "predicted_sqnr_db": "float64",
    "predicted_sqnr_rest_db": "float64",
    "rank": "Int32",
    "predicted_sqnr_without_first_db": "float64",
    "sqnr_low": "float64",
    "sqnr_high": "float64",
    "rank_low": "Int32",
    "rank_high": "Int32",
    "router_flip_share": "float64",
}
"""Columns of the table of damage, one row per block, matrix input and format; formats are those of DEFINITIONS.

`predicted_sqnr_db` is 10 log10(sum of signal^2 / sum of error^2) of the activation over all windows, infinite where
nothing is lost; `_rest_db` leaves out signal and error of the channel of each window's largest |x|, `_without_first_db`
those of position 0; scales include both. `rank` is 1 for the lowest `predicted_sqnr_db` of a format. `sqnr_low` and
`sqnr_high` are the 95 % interval over windows (`intervals.ratio`, null where that has none, as below 8 windows);
`rank_low` and `rank_high` hold the middle 95 % of the ranks when windows are drawn anew (null with one window).

`router_flip_share`, at `mlp_in` of a block with a router, is the share of tokens whose margin between the last chosen
expert and the first unchosen one is below the standard deviation of the difference of two logits, if the router read
the quantised activation and its error were alike in all directions.
"""
MIDDLE = (2.5, 97.5)
"""Percentiles of ranks."""


@dataclass(frozen=True)
class Sums:
    """Sums of squares of each window (S,) of one tensor, and of the errors of one format."""

    block: int
    site: str
    name: str
    signal_S: np.ndarray
    error_S: np.ndarray
    signal: dict[str, float]
    """Over all windows, `rest` (without the largest channel) and `without_first`."""
    error: dict[str, float]
    flip_share: float


def damage(statistics: Statistics) -> pd.DataFrame:
    """Return what each format would do, with DAMAGE_COLUMNS; no row where the capture did not keep what it needs."""
    sums = [each for block in range(statistics.blocks) for each in _of_block(block, statistics.block(block))]
    places = [place for name in FORMATS for place in _ranks([each for each in sums if each.name == name])]
    order = sorted(range(len(sums)), key=lambda i: list(FORMATS).index(sums[i].name))
    ranks = dict(zip(order, places, strict=True))
    rows = [_row(each) | ranks[i] for i, each in enumerate(sums)]
    return pd.DataFrame(rows, columns=list(DAMAGE_COLUMNS)).astype(DAMAGE_COLUMNS)


def _of_block(block: int, table: BlockTable) -> Iterator[Sums]:
    for site in (name for name in MATRIX_INPUTS if name in table.sites):
        windows = kept_windows.read(table.site(site))
        for name, predict in FORMATS.items() if windows else ():
            errors = predict(windows)
            error_S = np.array([each.first_FC.sum() + each.rest for each in errors])
            flips = _flips(table, windows, error_S) if site == "mlp_in" else np.nan
            signal_S = np.array([(each.first_FC**2).sum() + each.sum_2_C.sum() for each in windows])
            yield Sums(block, site, name, signal_S, error_S, _signals(windows), _errors(windows, errors), flips)


def _signals(windows: Sequence[KeptWindow]) -> dict[str, float]:
    """Return the sums of squares without the largest channel, and without position 0."""
    without_top = ((np.delete(each.first_FC, each.top, 1) ** 2).sum() for each in windows)
    rest = (np.delete(each.sum_2_C, each.top).sum() for each in windows)
    return {
        "rest": float(sum(without_top) + sum(rest)),
        "without_first": float(sum(each.sum_2_C.sum() for each in windows)),
    }


def _errors(windows: Sequence[KeptWindow], errors: Sequence[Errors]) -> dict[str, float]:
    without_top = (
        np.delete(each.first_FC, window.top, 1).sum() + each.rest_without_top
        for window, each in zip(windows, errors, strict=True)
    )
    return {"rest": float(sum(without_top)), "without_first": float(sum(each.rest for each in errors))}


def _flips(table: BlockTable, windows: Sequence[KeptWindow], error_S: np.ndarray) -> float:
    """Return the share of tokens whose router margin the error reaches; NaN where there is no router, or no margins."""
    if "router" not in table.sites:
        return np.nan
    router = table.site("router")
    if router.rows["router_margin"].null_count or router.rows["router_distance"].null_count:
        return np.nan
    values_S = np.array([each.first_FC.size + each.rows * each.channels for each in windows])
    noise_S = router.values("router_distance") * np.sqrt(error_S / values_S)
    margins = router.lists("router_margin")
    return float(np.mean(np.concatenate([own < noise for own, noise in zip(margins, noise_S, strict=True)])))


def _row(sums: Sums) -> dict[str, Any]:
    ratio = intervals.ratio(sums.signal_S, sums.error_S)
    return {
        "block": sums.block,
        "site": sums.site,
        "format": sums.name,
        "predicted_sqnr_db": decibels(sums.signal_S.sum(), sums.error_S.sum()),
        "predicted_sqnr_rest_db": decibels(sums.signal["rest"], sums.error["rest"]),
        "predicted_sqnr_without_first_db": decibels(sums.signal["without_first"], sums.error["without_first"]),
        "sqnr_low": decibels(ratio.low, 1.0) if ratio.low > 0 else np.nan,
        "sqnr_high": decibels(ratio.high, 1.0),
        "router_flip_share": sums.flip_share,
    }


def _ranks(tensors: Sequence[Sums]) -> Iterable[dict[str, int | None]]:
    """Return the rank of each tensor among those of its format, 1 for the lowest SQNR, and the middle of its ranks."""
    if not tensors:
        return []
    signal_SN, error_SN = (
        np.stack([getattr(each, name) for each in tensors], axis=1) for name in ("signal_S", "error_S")
    )
    rank_N = _rank(decibels(signal_SN.sum(0), error_SN.sum(0)))
    if len(signal_SN) < 2:
        return [{"rank": int(rank), "rank_low": None, "rank_high": None} for rank in rank_N]
    counts_BS = resampling_counts(len(signal_SN))
    drawn_BN = _rank(decibels(counts_BS @ signal_SN, counts_BS @ error_SN))
    low_N, high_N = np.percentile(drawn_BN, MIDDLE, axis=0)
    ends = np.minimum(np.floor(low_N), rank_N), np.maximum(np.ceil(high_N), rank_N)
    return [
        {"rank": int(rank), "rank_low": int(low), "rank_high": int(high)}
        for rank, low, high in zip(rank_N, *ends, strict=True)
    ]


def _rank(decibels: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis from 1 for the lowest; what is equal ranks in the order of blocks."""
    order = decibels.argsort(axis=-1, kind="stable")
    return np.asarray(order.argsort(axis=-1) + 1)
