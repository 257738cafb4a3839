"""Strict JSON: what every reader takes, so no NaN and no infinity."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

NOT_FINITE = "not_finite"
"""The key under which an object says which of its values were NaN or infinite, and which of the two."""


def dumps(value: Any, **options: Any) -> str:
    """Return a value as JSON, null for each number that is not finite; an object says so under NOT_FINITE."""
    found = dict(_not_finite(value))
    if found and isinstance(value, Mapping):
        value = {**value, NOT_FINITE: found}
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _not_finite(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield where a number is not finite, as `summary.rows[3]`, and what it is."""
    if isinstance(value, float) and not math.isfinite(value):
        yield where, "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _not_finite(each, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _not_finite(each, f"{where}[{index}]")
