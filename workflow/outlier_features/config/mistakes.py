"""Mistakes: what is wrong in a configuration, in words: where, what, and what would be right."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from outlier_features.config.entries import Capture, Corpus, Definition, Experiment, Model, Recipe
from outlier_features.config.suggestions import nearest
from outlier_features.config.variants import Controls, Intervention, Largest, Variant, Vary


def require_known(where: str, name: str, entries: Mapping[str, object]) -> None:
    """Raise ValueError, with the nearest known name, where a configuration names an entry that is not there."""
    if name not in entries:
        raise ValueError(f"{where}: unknown {name!r}{nearest(name, entries)}; known: {', '.join(entries)}")


def outermost(error: ValidationError) -> list[Any]:
    """Return the mistakes without those that only follow from one further inside."""
    found = error.errors()
    inside = {other["loc"][:depth] for other in found for depth in range(1, len(other["loc"]))}
    return [each for each in found if each["loc"] not in inside]


def explained(root: type[BaseModel], error: Any) -> str:
    """Return one mistake in words: where, what, and what would be right."""
    where = ".".join(map(str, keys(error)))
    if error["type"] == "too_short" and error["ctx"]["actual_length"] == 0:
        return f"{where}: empty; name at least {error['ctx']['min_length']}"
    if error["type"] == "extra_forbidden":
        allowed = _fields_at(root, error["loc"][:-1])
        key = str(error["loc"][-1])
        return f"{where}: unknown key{nearest(key, allowed)}; allowed: {', '.join(allowed)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def keys(error: Any) -> list[int | str]:
    """Return the keys that lead to a mistake."""
    return [part for part in error["loc"] if part != "[key]"]


def _fields_at(root: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at a place in the configuration."""
    sections: dict[int | str, type[BaseModel]] = {
        "experiments": Experiment,
        "models": Model,
        "corpora": Corpus,
        "definitions": Definition,
        "capture": Capture,
        "variants": Variant,
        "interventions": Intervention,
        "vary": Vary,
    }
    inside: dict[int | str, type[BaseModel]] = {"train": Recipe, "controls": Controls, "Largest": Largest}
    kind = sections[path[0]] if path else root
    return list(next((inside[part] for part in path[2:] if part in inside), kind).model_fields)
