r"""How often the 95 % intervals over sequences hold the truth, beside two others, in simulated samples.

PYTHONPATH=workflow python benchmarks/intervals.py

Three tables. *Means over sequences*: of what each sequence gives, from alike to very skewed. *Outlier features*: of a
model whose channels qualify in some sequences and not in others, with shares of layers on a grid as they are; the truth
is that of many sequences. *Differences*: of two independent samples, as `compare` takes them. Samples without any
spread have no interval and are left out.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import page
from outlier_features.comparison.compare import difference
from outlier_features.metrics import intervals
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.intervals import Estimate
from scipy.special import stdtrit

Ends = tuple[float, float]
ALMOST = 1 + 1e-12
MANY = 16_000  # sequences, whose values are the truth

MEANS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal, sd 10 %": lambda rng, shape: 3 + 0.3 * rng.standard_normal(shape),
    "lognormal, sigma 0.1": lambda rng, shape: rng.lognormal(1, 0.1, shape),
    "lognormal, sigma 0.3": lambda rng, shape: rng.lognormal(1, 0.3, shape),
    "lognormal, sigma 0.6": lambda rng, shape: rng.lognormal(1, 0.6, shape),
    "lognormal, sigma 1": lambda rng, shape: rng.lognormal(1, 1.0, shape),
    "percent near 0, beta(1, 30)": lambda rng, shape: 100 * rng.beta(1, 30, shape),
    "percent near 0, beta(0.5, 20)": lambda rng, shape: 100 * rng.beta(0.5, 20, shape),
    "percent in the middle, beta(2, 2)": lambda rng, shape: 100 * rng.beta(2, 2, shape),
    "percent near 100, beta(30, 1)": lambda rng, shape: 100 * rng.beta(30, 1, shape),
    "percent near 100, beta(20, 0.5)": lambda rng, shape: 100 * rng.beta(20, 0.5, shape),
    "counts, Poisson of 3": lambda rng, shape: rng.poisson(3, shape).astype(float),
    "counts, negative binomial of 20": lambda rng, shape: rng.negative_binomial(2, 2 / 22, shape).astype(float),
}
"""What each sequence gives."""


@dataclass(frozen=True)
class Channels:
    """A model: how strongly its channels reach over layers, and by how much that varies."""

    channels: int
    levels: int
    """Tensors: the shares of layers are multiples of one over them."""
    mean: float
    """Of the log-odds of a share of layers, over channels."""
    of_channels: float
    of_values: float
    of_sequences: float
    """Standard deviations of the log-odds: between channels, between values, and between sequences as a whole."""

    def samples(self, rng: np.random.Generator, sequences: int) -> Callable[[int], tuple[np.ndarray, ...]]:
        """Return what draws so many sequences of one such model: whether channels qualify (S, C), and both shares."""
        centre_C = rng.normal(self.mean, self.of_channels, self.channels)

        def draw(count: int) -> tuple[np.ndarray, ...]:
            shape = count, self.channels
            odds = (
                centre_C
                + self.of_values * rng.standard_normal(shape)
                + self.of_sequences * rng.standard_normal((count, 1))
            )
            layer = np.round(self.levels / (1 + np.exp(-odds))) / self.levels
            position = 1 / (1 + np.exp(1 - odds - 0.5 * rng.standard_normal(shape)))
            return (layer >= 0.25) & (position >= 0.06), layer, position

        return draw


MODELS = {
    "3 features a sequence": Channels(100, 24, -3.5, 1.0, 0.5, 0.3),
    "15 features a sequence": Channels(200, 56, -3.0, 1.2, 0.4, 0.2),
    "300 features a sequence": Channels(400, 56, -0.5, 0.8, 0.3, 0.1),
    "sequences unlike each other": Channels(300, 96, -1.0, 1.0, 0.2, 0.6),
    "shares near 100 %": Channels(120, 56, 2.5, 1.8, 0.5, 0.4),
}


def main() -> None:
    """Print the tables, and write them where asked to."""
    options = _options()
    text = "\n\n".join(["## Intervals over sequences", *_sections(options)])
    print(text)
    if options.output:
        page.write(options.output, "intervals", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000, help="of each kind and size")
    parser.add_argument("--sequences", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="the page to write the tables into, such as docs/benchmarks.md")
    return parser.parse_args()


def _sections(options: argparse.Namespace) -> Iterator[str]:
    sizes, seed = options.sequences, options.seed
    yield (
        f"`PYTHONPATH=workflow python benchmarks/intervals.py --samples {options.samples} --sequences "
        f"{' '.join(map(str, sizes))} --seed {seed}`: percent of the samples whose interval holds the truth. "
        "*here*: `intervals.ratio`, the intervals that are printed; *t*: Student's; *percentile*: of 1,000 bootstrap "
        "draws."
    )
    rng = np.random.default_rng(seed)
    yield page.table(*_table("means over sequences", sizes, ("here", "t", "percentile"), _means(rng, options.samples)))
    yield page.table(
        *_table("outlier features, per sequence", sizes, ("here", "percentile"), _features(rng, options.samples // 2))
    )
    yield page.table(*_table("differences of two samples", sizes, ("here",), _differences(rng, options.samples)))


Row = Callable[[int], Mapping[str, float]]
"""From a number of sequences to the coverage of each way."""


def _table(
    title: str, sizes: list[int], ways: tuple[str, ...], rows: Mapping[str, Row]
) -> tuple[list[str], list[list[str]]]:
    header = [title, *(f"{way}, {size}" for size in sizes for way in ways)]
    body = []
    for name, row in rows.items():
        found = [row(size) for size in sizes]
        body.append([name, *(_percent(each.get(way)) for each in found for way in ways)])
    return header, body


def _percent(share: float | None) -> str:
    return "none" if share is None or np.isnan(share) else f"{100 * share:.1f}"


def _means(rng: np.random.Generator, samples: int) -> dict[str, Row]:
    def row(draw: Callable) -> Row:
        truth = draw(rng, (2_000_000,)).mean()

        def coverage(size: int) -> Mapping[str, float]:
            counts_BS = resampling_counts(size)
            spread = [values for values in draw(rng, (samples, size)) if np.ptp(values)]
            ways = {"here": _here, "t": _student, "percentile": lambda v: _percentiles(counts_BS @ v / size)}
            return {name: _coverage((way(values) for values in spread), truth) for name, way in ways.items()}

        return coverage

    return {name: row(draw) for name, draw in MEANS.items()}


def _here(value_S: np.ndarray) -> Ends:
    found = intervals.ratio(value_S, np.ones(len(value_S)))
    return found.low, found.high


def _student(value_S: np.ndarray) -> Ends:
    half = stdtrit(len(value_S) - 1, 0.975) * value_S.std(ddof=1) / np.sqrt(len(value_S))
    return value_S.mean() - half, value_S.mean() + half


def _percentiles(drawn_B: np.ndarray) -> Ends:
    found = drawn_B[np.isfinite(drawn_B)]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
    return float(low), float(high)


def _coverage(ends: Iterator[Ends], truth: float) -> float:
    """Return the share of intervals that hold the truth, of those that there are."""
    held = [low / ALMOST <= truth <= high * ALMOST for low, high in ends if np.isfinite(low)]
    return float(np.mean(held)) if held else np.nan


def _features(rng: np.random.Generator, samples: int) -> dict[str, Row]:
    """Return the coverage of each quantity under each model; those that have no interval are here to show why."""
    results: dict[tuple[str, int], dict[str, dict[str, float]]] = {}

    def row(model: str, quantity: str) -> Row:
        def coverage(size: int) -> Mapping[str, float]:
            if (model, size) not in results:
                results[model, size] = _of_model(MODELS[model], rng, size, samples)
            return results[model, size][quantity]

        return coverage

    return {f"{quantity}; {model}": row(model, quantity) for quantity in QUANTITIES for model in MODELS}


QUANTITIES = (
    "outlier_count",
    "mean_layer_pct",
    "mean_position_pct",
    "median_layer_pct",
    "median_position_pct",
    "distinct_channels",
    "stable_channels",
)


def _of_model(model: Channels, rng: np.random.Generator, size: int, samples: int) -> dict[str, dict[str, float]]:
    draw = model.samples(rng, size)
    truth = _values(*draw(MANY), np.ones((1, MANY), np.int64))
    truth["outlier_count"] = truth["outlier_count"] / MANY * size
    truth["distinct_channels"] = np.array([_expected_distinct(draw, size)])
    found: dict[str, dict[str, list[Ends]]] = {name: {"here": [], "percentile": []} for name in QUANTITIES}
    counts_BS = resampling_counts(size, draws=300)
    for _ in range(samples):
        sample = draw(size)
        drawn = _values(*sample, counts_BS)
        for name in QUANTITIES:
            found[name]["percentile"].append(_percentiles(drawn[name]))
        for name, estimate in _estimates(*sample).items():
            found[name]["here"].append((estimate.low, estimate.high))
    return {
        name: {way: _coverage(iter(ends), float(truth[name][0])) for way, ends in ways.items() if ends}
        for name, ways in found.items()
    }


def _estimates(qualifies_SC: np.ndarray, layer_SC: np.ndarray, position_SC: np.ndarray) -> dict[str, Estimate]:
    """Return what has an interval, as `outliers` takes it."""
    count_S = qualifies_SC.sum(1)
    shares = {"mean_layer_pct": layer_SC, "mean_position_pct": position_SC}
    means = {name: intervals.ratio(100 * (share * qualifies_SC).sum(1), count_S, 100) for name, share in shares.items()}
    return {"outlier_count": intervals.total(count_S), **means}


def _values(
    qualifies_SC: np.ndarray, layer_SC: np.ndarray, position_SC: np.ndarray, counts_BS: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every quantity of each selection of sequences."""
    often_BC = counts_BS @ qualifies_SC
    result = {
        "outlier_count": often_BC.sum(1),
        "distinct_channels": (often_BC > 0).sum(1),
        "stable_channels": (2 * often_BC >= counts_BS.sum(1)[:, None]).sum(1),
    }
    where = np.nonzero(qualifies_SC)
    for name, share in (("layer", 100 * layer_SC[where]), ("position", 100 * position_SC[where])):
        order = np.argsort(share)
        weight_BN = counts_BS[:, where[0][order]].cumsum(1)
        total_B = weight_BN[:, -1] if weight_BN.shape[1] else np.zeros(len(counts_BS))
        result[f"median_{name}_pct"] = np.array(
            [_middle(share[order], w, t) for w, t in zip(weight_BN, total_B, strict=True)]
        )
        with np.errstate(invalid="ignore"):
            result[f"mean_{name}_pct"] = counts_BS @ np.bincount(where[0], share, counts_BS.shape[1]) / often_BC.sum(1)
    return result


def _middle(ordered: np.ndarray, weight: np.ndarray, total: int) -> float:
    """Return the median of values that are there several times, given how many there are up to each."""
    if not total:
        return np.nan
    low, high = np.searchsorted(weight, [(total - 1) // 2, total // 2], side="right")
    return float(ordered[low] + ordered[high]) / 2


def _expected_distinct(draw: Callable, size: int) -> float:
    """Return how many channels qualify in any of so many sequences, over many samples."""
    return float(np.mean([draw(size)[0].any(0).sum() for _ in range(500)]))


def _differences(rng: np.random.Generator, samples: int) -> dict[str, Row]:
    def row(draw: Callable) -> Row:
        def coverage(size: int) -> Mapping[str, float]:
            pairs = draw(rng, (samples, 2, size))
            found = (difference(*(intervals.ratio(each, np.ones(size)) for each in pair)) for pair in pairs)
            return {"here": float(np.mean([each.low <= 0 <= each.high for each in found if np.isfinite(each.low)]))}

        return coverage

    return {name: row(draw) for name, draw in MEANS.items()}


if __name__ == "__main__":
    main()
