"""Context: how many tokens a model can read at once."""

from collections.abc import Iterator, Mapping
from typing import Any


def tokens(settings: Any) -> int | None:
    """Return the context of a model by the configuration of its text part, None where it names no limit.

    Scaled rotary positions reach further than `max_position_embeddings`: `linear` and `dynamic` by their factor times
    that, `yarn`, `longrope` and `llama3` by their factor times `original_max_position_embeddings`, where the
    former does not say as much already.
    """
    longest = getattr(settings, "max_position_embeddings", None)
    if not longest:
        return None
    return max([longest, *(_scaled(scaling, longest) for scaling in _scalings(settings))])


def _scalings(settings: Any) -> Iterator[Mapping[str, Any]]:
    """Yield how rotary positions are scaled: one rule, or one a type of attention."""
    found = getattr(settings, "rope_parameters", None) or getattr(settings, "rope_scaling", None)
    if isinstance(found, Mapping):
        yield found
        yield from (rule for rule in found.values() if isinstance(rule, Mapping))


def _scaled(scaling: Mapping[str, Any], longest: int) -> int:
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor") or 1
    if kind in ("linear", "dynamic"):
        return int(longest * factor)
    return int((scaling.get("original_max_position_embeddings") or 0) * factor)
