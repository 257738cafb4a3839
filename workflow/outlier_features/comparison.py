"""Comparison: what moved between two runs, and whether by more than the choice of the text explains.

Takes two summaries with their provenance; no model, no configuration and no terminal. The intervals of a summary say
how a value would vary over other sequences. From those of both runs follows one of their difference (`difference`);
what moved is *beyond* when that interval leaves out 0.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from outlier_features.bootstrap import Estimate
from outlier_features.errors import ConfigError, DamagedFile
from outlier_features.provenance import Provenance
from outlier_features.tables import read_table

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


@dataclass(frozen=True)
class Quantity:
    """A column of the summary that is compared."""

    column: str
    words: str
    places: int = 0
    """Decimals a reader needs."""
    depends_on_definition: bool = True


QUANTITIES = (
    Quantity("outlier_count", "outlier features"),
    Quantity("distinct_channels", "distinct channels"),
    Quantity("stable_channels", "stable channels"),
    Quantity("mean_layer_pct", "layers %", 1),
    Quantity("mean_position_pct", "positions %", 1),
    Quantity("perplexity", "perplexity", 1, depends_on_definition=False),
    Quantity("bits_per_byte", "bits per byte", 2, depends_on_definition=False),
    Quantity("kurtosis_max", "largest kurtosis", 1, depends_on_definition=False),
    Quantity("massive_count", "massive activations", depends_on_definition=False),
)
LOSSES = frozenset({"perplexity", "bits_per_byte"})


@dataclass(frozen=True)
class Condition:
    """A column of the summary that two runs should agree in, and what follows where they do not."""

    column: str
    words: str
    consequence: str
    spoils: frozenset[str] = frozenset()
    """Quantities that are not comparable then."""
    depends_on_definition: bool = False


CONDITIONS = (
    Condition("hub", "source on the hub", "These may be different models under one name."),
    Condition("total_params", "parameters", "These are different models under one name."),
    Condition(
        "corpus",
        "corpus",
        "What moved may be the text and not the model; the loss on one text says nothing of that on another.",
        LOSSES,
    ),
    Condition(
        "length",
        "tokens a window",
        "More context lowers the loss, more tokens raise a count of them, and position 0 has another share.",
        LOSSES | {"massive_count"},
    ),
    Condition("windows", "way to cut windows", "Windows of 2025 overlap by half and weigh losses otherwise.", LOSSES),
    Condition(
        "sequences",
        "sequences",
        "Sums over sequences grow with their number, and so do the channels that qualify in any of them.",
        frozenset({"outlier_count", "distinct_channels", "massive_count"}),
    ),
    Condition(
        "windows_digest",
        "token ids of the windows",
        "The text, its cutting or the tokenizer is another, so what moved may be the sample of text.",
    ),
    Condition("dtype", "precision", "Rounding alone carries values over a threshold."),
    Condition(
        "threshold",
        "threshold",
        "Two definitions share this name.",
        frozenset(each.column for each in QUANTITIES if each.depends_on_definition),
        depends_on_definition=True,
    ),
)
"""Conditions of a measurement that the summary knows of. The sites, shares and rounding of a definition, and the
device, are not among its columns."""
OF_THE_TEXT = {"corpus", "length", "windows", "sequences"}
"""Where one of these differs, it goes without saying that the windows do."""

NAMES = ("model", "label", "kind", "definition")
"""Columns that a table must have to be a summary."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The summary of a run and its provenance."""

    summary: pd.DataFrame
    origin: Provenance

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read the summary.parquet of a run. Raises ConfigError for what is none."""
        advice = "give the summary.parquet of a run"
        if not path.is_file():
            raise ConfigError(f"{path}: {'a directory' if path.is_dir() else 'no such file'}; {advice}.")
        try:
            run = cls(*read_table(path))
        except DamagedFile as error:
            raise ConfigError(f"{path}: not a readable parquet file; {advice}.") from error
        missing = [name for name in NAMES if name not in run.summary]
        if missing:
            raise ConfigError(f"{path}: no summary, for it has no column {', '.join(missing)}; {advice}.")
        return run


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
    ours, theirs = _by_model(this.summary, "this run"), _by_model(other.summary, "the other run")
    rows = [_compared(*pair) for pair in _pairs(ours, theirs)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    warnings = (*_one_sided(ours, theirs), *_unlike(ours, theirs))
    has_moved = bool((table["verdict"] != Verdict.SAME).any())
    origins = (*_shared_windows(ours, theirs), *_origins(this.origin, other.origin, has_moved))
    return Comparison(table, warnings, origins)


def difference(this: Estimate, other: Estimate) -> Estimate:
    """Return `this` less `other`, with the interval that follows from theirs; without one where either has none.

    MOVER (Zou and Donner 2008, Statistics in Medicine 27:1693): the distances from each value to its ends are added in
    quadrature. That holds for independent samples of text. Two runs on the same windows vary together, as a rule
    upwards, so there the interval is too wide: what is beyond it moved, what is within may have moved too. An interval
    that lies beside its value, as those of pooled shares do, is widened up to it.
    """
    value = this.value - other.value
    ours, theirs = _reaching(this), _reaching(other)
    below = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Estimate(value, value - below, value + above)


def _reaching(found: Estimate) -> Estimate:
    """Return an estimate whose interval holds its value, or has no ends."""
    if math.isnan(found.low) or math.isnan(found.high):
        return Estimate(found.value, math.nan, math.nan)
    return Estimate(found.value, min(found.low, found.value), max(found.high, found.value))


def _by_model(summary: pd.DataFrame, whose: str) -> dict[str, dict[str, Row]]:
    """Return the rows of a summary by model and definition, with None for what is blank."""
    found: dict[str, dict[str, Row]] = {}
    for row in summary.to_dict("records"):
        definitions = found.setdefault(row["model"], {})
        if row["definition"] in definitions:
            raise ConfigError(f"{whose}: two rows of {row['model']} under {row['definition']}; not one summary.")
        definitions[row["definition"]] = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return found


def _pairs(
    ours: Mapping[str, Mapping[str, Row]], theirs: Mapping[str, Mapping[str, Row]]
) -> Iterator[tuple[Quantity, Row | None, Row | None]]:
    """Yield what is compared: quantities of each model under each definition, then those without a definition."""
    for model in _union(ours, theirs):
        mine, other = ours.get(model, {}), theirs.get(model, {})
        for definition in _union(mine, other):
            for quantity in QUANTITIES:
                if quantity.depends_on_definition:
                    yield quantity, mine.get(definition), other.get(definition)
        for quantity in QUANTITIES:
            if not quantity.depends_on_definition:
                yield quantity, next(iter(mine.values()), None), next(iter(other.values()), None)


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _compared(quantity: Quantity, ours: Row | None, theirs: Row | None) -> dict[str, Any]:
    """Return a row of the comparison."""
    row = ours or theirs or {}
    mine, other = _estimate(ours, quantity), _estimate(theirs, quantity)
    conditions = [] if ours is None or theirs is None else _differing(ours, theirs, quantity.depends_on_definition)
    moved = difference(mine, other)
    return {
        "model": row["model"],
        "label": row["label"],
        "definition": row["definition"] if quantity.depends_on_definition else None,
        "quantity": quantity.column,
        **mine.columns("value"),
        **other.columns("against"),
        **moved.columns("difference"),
        "verdict": Verdict.ONE_SIDE
        if ours is None or theirs is None
        else _verdict(mine, other, moved, not any(quantity.column in each.spoils for each in conditions)),
        "conditions": ", ".join(each.words for each in conditions) or None,
    }


def _estimate(row: Row | None, quantity: Quantity) -> Estimate:
    """Return a quantity of a row with its interval, NaN where it is not known."""
    found = [(row or {}).get(f"{quantity.column}{end}") for end in ("", "_low", "_high")]
    value, low, high = (math.nan if each is None else float(each) for each in found)
    return Estimate(value, low, high)


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


def _differing(ours: Row, theirs: Row, with_definition: bool) -> list[Condition]:
    """Return the conditions that two rows of a model were measured under and are known to differ in."""
    found = [
        each
        for each in CONDITIONS
        if (with_definition or not each.depends_on_definition)
        and each.column in ours
        and each.column in theirs
        and ours[each.column] != theirs[each.column]
    ]
    if OF_THE_TEXT & {each.column for each in found}:
        found = [each for each in found if each.column != "windows_digest"]
    return found


def _one_sided(ours: Mapping[str, Mapping[str, Row]], theirs: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """Yield sentences on models and definitions that one run does not have."""
    both = [model for model in ours if model in theirs]
    if not both:
        yield "The runs have no model in common, so there is nothing to compare."
    sides = (("this run", ours, theirs), ("the other run", theirs, ours))
    for side, here, there in sides:
        models = [model for model in here if model not in there]
        if models:
            yield f"Only in {side}: {_listed('model', models)}."
    for side, here, there in sides:
        definitions = _union([], (name for model in both for name in here[model] if name not in there[model]))
        if definitions:
            yield f"Only in {side}: {_listed('definition', definitions)}."


def _unlike(ours: Mapping[str, Mapping[str, Row]], theirs: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """Yield sentences on conditions that differ, or that a run did not write down."""
    both = [
        (mine, theirs[model][definition])
        for model, definitions in ours.items()
        for definition, mine in definitions.items()
        if definition in theirs.get(model, {})
    ]
    concerned: dict[tuple[Condition, Any, Any], dict[str, None]] = {}
    for mine, other in both:
        for condition in _differing(mine, other, with_definition=True):
            name = mine["definition" if condition.depends_on_definition else "model"]
            key = condition, mine[condition.column], other[condition.column]
            concerned.setdefault(key, {})[name] = None
    for condition in CONDITIONS:  # in their order
        for (each, mine_is, other_is), names in concerned.items():
            if each is condition:
                yield _warning(condition, mine_is, other_is, list(names))
    if both:
        yield from _unrecorded(*both[0])


def _warning(condition: Condition, ours: Any, theirs: Any, names: Sequence[str]) -> str:
    subject = _listed("definition" if condition.depends_on_definition else "model", names)
    values = f"{_value(ours)} in this run, {_value(theirs)} in the other"
    return f"Different {condition.words} ({subject}): {values}. {condition.consequence}"


def _unrecorded(ours: Row, theirs: Row) -> Iterator[str]:
    """Yield a sentence on the conditions that the summary of a run has no column for, as older ones do."""
    for side, row in (("This run", ours), ("The other run", theirs)):
        missing = [each.words for each in CONDITIONS if each.column not in row]
        if missing:
            yield f"{side} was summarised before the summary held {' and '.join(missing)}: these may differ unseen."


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:,g}" if isinstance(value, float) else f"{value:,}"


def _listed(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _shared_windows(ours: Mapping[str, Mapping[str, Row]], theirs: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    """Yield a sentence if every model of both runs was measured on the same token ids."""
    digests = [
        [next(iter(run[model].values())).get("windows_digest") for run in (ours, theirs)]
        for model in ours
        if model in theirs
    ]
    if digests and all(mine is not None and mine == other for mine, other in digests):
        yield "Both were measured on the same windows, so no difference is one of text."


def _origins(ours: Provenance, theirs: Provenance, has_moved: bool) -> Iterator[str]:
    """Yield sentences on the lineages and versions of two summaries."""
    mine, other = ours.get("lineage", {}), theirs.get("lineage", {})
    if not mine or not other:
        side = "this run" if not mine else "the other run"
        yield f"The summary of {side} has no provenance, so what it was made from cannot be told."
    elif mine == other:
        yield f"Both have the lineage {mine.get('summary')}: the same code, settings and inputs."
        if has_moved:
            yield "What moved is the machine's doing: its device, its number of threads, or versions of libraries."
    else:
        yield f"Lineages: {mine.get('summary')} of this run, {other.get('summary')} of the other."
        yield _artefacts(mine, other)
    versions = _version_changes(ours.get("versions", {}), theirs.get("versions", {}))
    if versions:
        yield f"Versions the summaries were made with, this run's first: {', '.join(versions)}."


def _artefacts(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Return a sentence on the artefacts of both runs that have different lineages."""
    differing: dict[str, list[str]] = {}
    for name in ours:
        artefact, _, model = name.partition(" ")
        if model and name in theirs and ours[name] != theirs[name]:
            differing.setdefault(artefact, []).append(model)
    if not differing:
        return "No artefact of a model differs: only the list of models, their names or the code that joins them does."
    words = "; ".join(f"{artefact} of {', '.join(models)}" for artefact, models in differing.items())
    return (
        f"Made from other code, settings or inputs (a lineage is one hash over the three, so which of them cannot be "
        f"told): {words}."
    )


def _version_changes(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    names = [name for name in _union(ours, theirs) if ours.get(name) != theirs.get(name)]
    return [f"{name} {ours.get(name, 'none')} and {theirs.get(name, 'none')}" for name in names]
