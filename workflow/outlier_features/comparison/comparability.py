"""Comparability: what two runs have to agree in before their numbers can be compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from outlier_features.comparison.recorded_run import Models, Row

LOSSES = frozenset({"perplexity", "bits_per_byte"})


@dataclass(frozen=True)
class Condition:
    """A column of the summary that two runs should agree in, and what follows where they do not."""

    column: str
    words: str
    consequence: str
    spoils: frozenset[str] = frozenset()
    """Columns that are not comparable then."""
    is_of_definition: bool = False
    """Whether it is part of a definition; then nothing that depends on the definition is comparable."""

    def forbids(self, quantity: str) -> bool:
        """Return whether a column is not comparable where this condition differs."""
        return self.is_of_definition or quantity in self.spoils


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
        "window length",
        "More context lowers the loss, more tokens raise a count of them, and position 0 has another share.",
        LOSSES | {"massive_count"},
    ),
    Condition("windows", "way to cut windows", "Windows of 2025 overlap by half and weigh losses otherwise.", LOSSES),
    Condition(
        "sequences",
        "number of sequences",
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
        is_of_definition=True,
    ),
    *(
        Condition(name, words, "Two definitions share this name.", is_of_definition=True)
        for name, words in {
            "min_layers": "least share of layers",
            "min_positions": "least share of positions",
            "scope": "scope of the definition",
            "sites": "sites of the definition",
        }.items()
    ),
    Condition(
        "rounding",
        "rounding of activations",
        "A threshold of 6 is 5.984375 where activations are rounded to bfloat16.",
        is_of_definition=True,
    ),
)
"""Conditions of a measurement that the summary knows of. The device is not among its columns."""
INTERVALS = "interval_note"
"""The column that a summary has whose intervals hold what they say."""
OF_THE_TEXT = {"corpus", "length", "windows", "sequences"}
"""Where one of these differs, it goes without saying that the windows do."""


def differing(ours: Row, theirs: Row, *, with_definition: bool = True) -> list[Condition]:
    """Return the conditions that two rows of one model are known to differ in.

    `with_definition` is whether what is compared depends on the definition.
    """
    found = [
        each
        for each in CONDITIONS
        if (with_definition or not each.is_of_definition)
        and each.column in ours
        and each.column in theirs
        and ours[each.column] != theirs[each.column]
    ]
    if OF_THE_TEXT & {each.column for each in found}:
        found = [each for each in found if each.column != "windows_digest"]
    return found


def warnings(ours: Models, theirs: Models) -> Iterator[str]:
    """Yield sentences on what of two runs cannot be compared, or only with care."""
    yield from _one_sided(ours, theirs)
    yield from _unlike(ours, theirs)
    yield from _unrecorded(ours, theirs)


def are_windows_shared(ours: Models, theirs: Models) -> bool:
    """Return whether every model of both runs is known to be measured on the same token ids."""
    digests = [(mine.get("windows_digest"), other.get("windows_digest")) for mine, other in _joined(ours, theirs)]
    return bool(digests) and all(mine is not None and mine == other for mine, other in digests)


def _one_sided(ours: Models, theirs: Models) -> Iterator[str]:
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
        definitions = dict.fromkeys(name for model in both for name in here[model] if name not in there[model])
        if definitions:
            yield f"Only in {side}: {_listed('definition', list(definitions))}."


def _unlike(ours: Models, theirs: Models) -> Iterator[str]:
    """Yield sentences on conditions that differ, each with the models or definitions it differs for."""
    models = {mine["model"] for mine, _ in _joined(ours, theirs)}
    found: dict[tuple[Condition, Any, Any], dict[str, None]] = {}
    for mine, other in _joined(ours, theirs):
        for condition in differing(mine, other):
            name = mine["definition" if condition.is_of_definition else "model"]
            key = condition, mine[condition.column], other[condition.column]
            found.setdefault(key, {})[name] = None
    for (condition, mine_is, other_is), names in sorted(found.items(), key=lambda each: CONDITIONS.index(each[0][0])):
        subject = _listed("definition" if condition.is_of_definition else "model", list(names))
        if len(names) > 1 and set(names) == models:
            subject = f"all {len(names)} models"
        values = f"{_value(mine_is)} in this run, {_value(other_is)} in the other"
        yield f"Different {condition.words} ({subject}): {values}. {condition.consequence}"


def _unrecorded(ours: Models, theirs: Models) -> Iterator[str]:
    """Yield sentences on what the summary of a run has no column for, as older ones do."""
    for mine, other in islice(_joined(ours, theirs), 1):  # all rows of a summary have the same columns
        for side, row in (("This run", mine), ("The other run", other)):
            missing = [each.words for each in CONDITIONS if each.column not in row]
            if missing:
                yield f"{side} was summarised before the summary held {' and '.join(missing)}: these may differ unseen."
            if INTERVALS not in row:
                yield (
                    f"{side} was summarised by a version whose intervals were too narrow, so they are left out; "
                    "summarise it again from its statistics to have them."
                )


def _joined(ours: Models, theirs: Models) -> Iterator[tuple[Row, Row]]:
    """Yield the rows of the models and definitions that both runs have."""
    for model, definitions in ours.items():
        for definition, mine in definitions.items():
            if definition in theirs.get(model, {}):
                yield mine, theirs[model][definition]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:,g}" if isinstance(value, float) else f"{value:,}"


def _listed(noun: str, names: Sequence[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"
