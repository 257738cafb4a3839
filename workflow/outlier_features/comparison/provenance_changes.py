"""Provenance changes: what two runs were made from and where that differs, in words, as far as they tell."""

from collections.abc import Iterator, Mapping

from outlier_features.artefacts.provenance import Provenance


def origins(ours: Provenance, theirs: Provenance, *, has_moved: bool) -> Iterator[str]:
    """Yield sentences on the lineages and versions of this run and another; `has_moved` is whether numbers differ."""
    mine, other = ours.get("lineage", {}), theirs.get("lineage", {})
    if not mine or not other:
        side = "this run" if not mine else "the other run"
        yield f"The summary of {side} has no provenance, so what it was made from cannot be told."
    elif mine == other:
        yield f"Both have the lineage {mine.get('summary')}: the same code, settings and inputs."
        if has_moved:
            yield (
                "What moved then comes from what no lineage covers: the device, the number of threads, versions of "
                "libraries, or changed files of a model or text given by path."
            )
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
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return [f"{name} {ours.get(name, 'none')} and {theirs.get(name, 'none')}" for name in names]
