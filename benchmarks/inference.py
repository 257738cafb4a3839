"""What the inference says of simulated models: how often "jump" is wrong, how often it is right, what intervals hold.

python benchmarks/inference.py --repetitions 1000 --processes 1

Sizes are spread at random over two decades and a third, as in the sweep of 2025; measures are shares of layers in
points. Every table is printed as Markdown.
"""

import argparse
import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

from outlier_features.experiment import correlation, phase_shift

MODELS = (12, 20, 30)
DECADES = 2.3
NOISES = (2.0, 5.0, 10.0)
"""Points of spread between models of a size; 5 where a scenario has its own."""
RISE = 47.0
"""Points from the first to the last model: a share of layers from 25 to 72 %."""

Floats = correlation.Floats

TRENDS: dict[str, Callable[[Floats], Floats]] = {
    "constant": lambda u: 0 * u,
    "slope": lambda u: u,
    "saturating, rate 3": lambda u: (1 - np.exp(-3 * u)) / (1 - np.exp(-3)),
    "saturating, rate 5": lambda u: (1 - np.exp(-5 * u)) / (1 - np.exp(-5)),
    "exponential, rate 3": lambda u: np.expm1(3 * u) / np.expm1(3),
    "exponential, rate 5": lambda u: np.expm1(5 * u) / np.expm1(5),
    "quadratic, rising": lambda u: u**2,
    "quadratic, there and back": lambda u: 4 * (u - 0.5) ** 2,
    "hinge at half": lambda u: np.maximum(u - 0.5, 0) / 0.5,
    "hinge at 0.7": lambda u: np.maximum(u - 0.7, 0) / 0.3,
    "hinge, steady then flat": lambda u: np.minimum(u, 0.5) / 0.5,
    "hinge between two slopes": lambda u: 0.3 * u + 0.7 * np.maximum(u - 0.6, 0) / 0.4,
    "logistic over 1.9 decades": lambda u: 1 / (1 + np.exp(-(DECADES * u - 0.9) * 2 * math.log(9) / 1.9)),
}
"""What no step is, over the share of the range of the models."""


@dataclass(frozen=True)
class Sweep:
    """Simulated models: the logarithm of their size, a measure in points, and what groups them."""

    x_N: Floats
    y_N: Floats
    labels: Sequence[Sequence[str]] = ()


Scenario = Callable[[int, np.random.Generator], Sweep]


def sizes(models: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return sorted logarithms of sizes, and their share of the range."""
    x_N = 9 + np.sort(rng.uniform(0, DECADES, models))
    return x_N, (x_N - x_N[0]) / np.ptp(x_N)


def around(trend: str, noise: float, models: int, rng: np.random.Generator) -> Sweep:
    """Return models around a trend."""
    x_N, u_N = sizes(models, rng)
    return Sweep(x_N, 25 + RISE * TRENDS[trend](u_N) + noise * rng.standard_normal(models))


def unequal(trend: str, ratio: float, models: int, rng: np.random.Generator) -> Sweep:
    """Return models whose spread grows by a factor from the first to the last."""
    x_N, u_N = sizes(models, rng)
    return Sweep(x_N, 25 + RISE * TRENDS[trend](u_N) + 2 * ratio**u_N * rng.standard_normal(models))


def one_odd(place: str, odd: float, models: int, rng: np.random.Generator) -> Sweep:
    """Return flat models and one that is so many points above them: the last one, the next to it, or any."""
    x_N, _ = sizes(models, rng)
    y_N = 30 + 5 * rng.standard_normal(models)
    y_N[{"last": models - 1, "next to last": models - 2}.get(place, rng.integers(models))] += odd
    return Sweep(x_N, y_N)


def families(count: int, named: bool, spread: float, models: int, rng: np.random.Generator) -> Sweep:
    """Return families sorted by size, each with a level of its own."""
    x_N, _ = sizes(models, rng)
    family_N = np.arange(models) * count // models
    y_N = 40 + spread * rng.standard_normal(count)[family_N] + 5 * rng.standard_normal(models)
    return Sweep(x_N, y_N, [[f"family {each}" for each in family_N]] if named else ())


def kinds(models: int, rng: np.random.Generator) -> Sweep:
    """Return dense models and larger mixtures of experts that overlap in size, 20 points apart."""
    x_N, u_N = sizes(models, rng)
    is_moe_N = u_N + 0.2 * rng.standard_normal(models) > 0.5
    y_N = 30 + 20 * is_moe_N + 5 * rng.standard_normal(models)
    return Sweep(x_N, y_N, [["moe" if is_moe else "dense" for is_moe in is_moe_N]])


def jump(place: str, width: float, size: float, models: int, rng: np.random.Generator) -> Sweep:
    """Return models with a jump of so many times their noise (5 points)."""
    x_N, _ = sizes(models, rng)
    y_N = 30 + 5 * (size * phase_shift.planted(x_N, place, width) + rng.standard_normal(models))
    return Sweep(x_N, y_N)


def no_jumps() -> dict[str, Scenario]:
    """Return every scenario in which "jump" is wrong."""
    found: dict[str, Scenario] = {}
    for name in TRENDS:
        for noise in NOISES if name != "constant" else NOISES[1:2]:
            found[f"{name}, noise {noise:.0f}"] = partial(around, name, noise)
    for ratio in (5.0, 10.0):
        found[f"constant, spread growing {ratio:.0f}-fold"] = partial(unequal, "constant", ratio)
        found[f"slope, spread growing {ratio:.0f}-fold"] = partial(unequal, "slope", ratio)
    for place in ("last", "next to last", "any"):
        for odd in (20.0, 60.0):
            found[f"one odd model ({place}), {odd:.0f} points"] = partial(one_odd, place, odd)
    for count in (3, 4, 5, 6):
        found[f"{count} families by size, named"] = partial(families, count, True, 15.0)
    found["3 families by size, whose names tell nothing"] = partial(families, 3, False, 15.0)
    found["dense and mixtures 20 points apart"] = kinds
    return found


def is_jump(sweep: Sweep) -> bool:
    """Tell whether the inference would say that these models jump, were it the only test of an answer."""
    labels = tuple(tuple(each) for each in sweep.labels)
    compared = phase_shift.Comparison(phase_shift.Design.over(sweep.x_N, labels))
    if compared.margin(sweep.y_N[None])[0] <= 0:
        return False  # most sweeps, and the rest takes nearly all of the time
    return phase_shift.step_test(sweep.x_N, sweep.y_N, labels).is_jump


def share_of_jumps(scenario: Scenario, models: int, repetitions: int) -> float:
    """Return how often the inference says "jump"."""
    rng = np.random.default_rng(models)
    return float(np.mean([is_jump(scenario(models, rng)) for _ in range(repetitions)]))


SIZES = (3, 4, 5, 6, 8, 10, 15, 20)
"""Of a jump, in units of the noise."""


def jumps() -> dict[tuple[str, str, float], Scenario]:
    """Return every scenario in which "jump" is right, by place, width and size."""
    places = {"middle": "at the middle", "early": "between models 2 and 3"}
    widths = {"sharp": phase_shift.SHARP, "half a decade": phase_shift.WIDEST}
    return {
        (words, shape, size): partial(jump, place, width, size)
        for place, words in places.items()
        for shape, width in widths.items()
        for size in SIZES
    }


def correlations(rho: float, models: int, repetitions: int) -> float:
    """Return how often the interval of the rank correlation of bivariate normal pairs holds the truth."""
    rng = np.random.default_rng(models)
    truth = 6 / math.pi * math.asin(rho / 2)
    x_KN = rng.standard_normal((repetitions, models))
    y_KN = rho * x_KN + math.sqrt(1 - rho**2) * rng.standard_normal(x_KN.shape)
    found = [correlation.interval(x[None], y[None]) for x, y in zip(x_KN, y_KN, strict=True)]
    return float(np.mean([low <= truth <= high for low, high in found]))


def slopes(ratio: float, models: int, repetitions: int) -> float:
    """Return how often the interval of the slope holds it, where the spread grows by a factor."""
    rng = np.random.default_rng(models)
    held = []
    for _ in range(repetitions):
        sweep = unequal("slope", ratio, models, rng)
        found = correlation.line(sweep.x_N, sweep.y_N[None])
        held.append(found.slope_low <= RISE / np.ptp(sweep.x_N) <= found.slope_high)
    return float(np.mean(held))


def measured_slopes(share: float, models: int, repetitions: int) -> float:
    """Return the same where a share of the variance is that of the sequences, whose draws are known."""
    rng = np.random.default_rng(models)
    held = []
    for _ in range(repetitions):
        sweep = around("slope", 5 * math.sqrt(1 - share), models, rng)
        y_N = sweep.y_N + 5 * math.sqrt(share) * rng.standard_normal(models)
        draws_BN = y_N + 5 * math.sqrt(share) * rng.standard_normal((200, models))
        found = correlation.line(sweep.x_N, np.vstack([y_N, draws_BN]))
        held.append(found.slope_low <= RISE / np.ptp(sweep.x_N) <= found.slope_high)
    return float(np.mean(held))


def differences(dense: int, moe: int, spreads: tuple[float, float], repetitions: int) -> float:
    """Return how often the interval of the difference between kinds holds it, whatever the spread of each."""
    rng = np.random.default_rng(dense + moe)
    is_moe_N = np.arange(dense + moe) >= dense
    held = []
    for _ in range(repetitions):
        x_N = rng.uniform(0, 1, dense + moe) + 0.3 * is_moe_N
        y_N = 30 + 10 * x_N + 12 * is_moe_N + np.where(is_moe_N, *spreads[::-1]) * rng.standard_normal(len(x_N))
        found = correlation.difference(x_N, y_N[None], is_moe_N)
        held.append(found.low <= 12 <= found.high)
    return float(np.mean(held))


def places(width: float, size: float, models: int, repetitions: int) -> float:
    """Return how often the range of the position of a jump at the middle holds it."""
    rng = np.random.default_rng(models)
    held = []
    for _ in range(repetitions):
        sweep = jump("middle", width, size, models, rng)
        found, after = phase_shift.step(sweep.x_N, sweep.y_N[None]), models // 2
        held.append(found.position_low <= sweep.x_N[after - 1 : after + 1].mean() <= found.position_high)
    return float(np.mean(held))


def noises(scenario: Scenario, truth: float, models: int, repetitions: int) -> float:
    """Return how often the range of the noise, on which the stated power rests, holds it."""
    rng = np.random.default_rng(models)
    held = []
    for _ in range(repetitions):
        sweep = scenario(models, rng)
        _, low, high = phase_shift.noise_around_best(sweep.x_N, sweep.y_N, sweep.labels)
        held.append(low <= truth <= high)
    return float(np.mean(held))


def coverages(repetitions: int) -> dict[str, Callable[[], float]]:
    """Return what is to be simulated of every interval, by what it is of."""
    found: dict[str, Callable[[], float]] = {}
    for models in (8, *MODELS):
        for rho in (0.0, 0.6, 0.9):
            name = f"rank correlation, {models} models, truth {6 / math.pi * math.asin(rho / 2):.2f}"
            found[name] = partial(correlations, rho, models, repetitions)
        for ratio in (1.0, 10.0):
            name = f"slope, {models} models, {'equal spread' if ratio == 1 else 'spread growing 10-fold'}"
            found[name] = partial(slopes, ratio, models, repetitions)
        found[f"slope, {models} models, half of the variance that of sequences"] = partial(
            measured_slopes, 0.5, models, repetitions
        )
    for dense, moe in ((3, 7), (5, 7), (4, 4), (8, 22)):
        for spreads in ((5.0, 5.0), (2.0, 8.0), (8.0, 2.0)):
            name = f"dense ({dense}, spread {spreads[0]:.0f}) against mixtures ({moe}, spread {spreads[1]:.0f})"
            found[name] = partial(differences, dense, moe, spreads, repetitions)
    for models in MODELS:
        for shape, width in (("sharp", phase_shift.SHARP), ("half-decade", phase_shift.WIDEST)):
            name = f"position of a {shape} jump of 8 times the noise, {models} models (a range, not called 95 %)"
            found[name] = partial(places, width, 8.0, models, repetitions)
        for name in ("constant", "slope"):
            scenario = partial(around, name, 5.0)
            found[f"noise around a {name}, {models} models (a range, not called 95 %)"] = partial(
                noises, scenario, 5.0, models, repetitions
            )
    return found


def levels(repetitions: int, run: "Runner") -> Iterator[str]:
    """Yield the table of wrong jumps."""
    scenarios = no_jumps()
    jobs = [partial(share_of_jumps, each, models, repetitions) for each in scenarios.values() for models in MODELS]
    yield _row("No jump:", *(f"N = {models}" for models in MODELS))
    yield _row(*["---"] * (1 + len(MODELS)))
    yield from _rows(scenarios, run(jobs), len(MODELS))


def powers(repetitions: int, run: "Runner") -> Iterator[str]:
    """Yield the table of jumps that are found."""
    scenarios = jumps()
    jobs = [partial(share_of_jumps, each, models, repetitions) for each in scenarios.values() for models in MODELS]
    found = run(jobs)
    shares = {(*key, models): next(found) for key in scenarios for models in MODELS}
    yield _row("A jump of so many times the noise:", *map(str, SIZES))
    yield _row(*["---"] * (1 + len(SIZES)))
    for place, shape in dict.fromkeys(key[:2] for key in scenarios):
        for models in MODELS:
            own = [f"{100 * shares[place, shape, size, models]:.0f}" for size in SIZES]
            yield _row(f"{shape}, {place}, N = {models}", *own)


def held(repetitions: int, run: "Runner") -> Iterator[str]:
    """Yield the table of intervals."""
    wanted = coverages(repetitions)
    yield _row("Interval of", "holds the truth, %")
    yield _row("---", "---")
    yield from _rows(wanted, run(list(wanted.values())), 1)


def _rows(names: Iterable[str], shares: Iterator[float], columns: int) -> Iterator[str]:
    for name in names:
        yield _row(name, *(f"{100 * share:.1f}" for share in islice(shares, columns)))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


Runner = Callable[[Sequence[Callable[[], float]]], Iterator[float]]
PARTS: dict[str, Callable[[int, Runner], Iterator[str]]] = {"levels": levels, "powers": powers, "intervals": held}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated sweeps of each kind")
    parser.add_argument("--processes", type=int, default=1, help="how many run beside each other")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="tables to print")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        for part in options.parts:
            for line in PARTS[part](options.repetitions, lambda jobs: pool.map(operator.call, jobs)):
                print(line, flush=True)
            print()


if __name__ == "__main__":
    main()
