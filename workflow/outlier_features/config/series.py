"""Series: an entry of config.yaml that lists `revisions` of a training run becomes one model per revision."""

import re
from collections.abc import Mapping
from typing import Any


def expanded(values: dict[str, Any]) -> dict[str, Any]:
    """Return plain configuration values in which every entry with `revisions` is one entry per revision.

    An experiment that names the series has all of its models. What is not understood is left for the check.
    """
    models, experiments = values.get("models"), values.get("experiments")
    if not isinstance(models, Mapping) or not isinstance(experiments, Mapping):
        return values
    nodes = {name: _nodes(name, entry) for name, entry in models.items()}
    chosen = {name: _with_nodes(experiment, nodes) for name, experiment in experiments.items()}
    return {**values, "models": {k: v for each in nodes.values() for k, v in each.items()}, "experiments": chosen}


def refusal(revisions: Any, revision: str | None) -> str:
    """Say why `revisions` did not become one model each."""
    if revision is not None:
        return "give revision or revisions, not both"
    if not revisions:
        return "revisions is empty; list at least one, such as step1000"
    return "revisions: each needs a step of its own; name them step1000 or write a mapping {1000: <commit>, ...}"


def _nodes(name: str, entry: Any) -> dict[str, Any]:
    """Return the models of one entry: itself, or one for each of its revisions."""
    steps = _steps(entry.get("revisions")) if isinstance(entry, Mapping) else None
    if not steps or entry.get("revision") is not None:
        return {name: entry}
    common = {key: value for key, value in entry.items() if key not in ("revisions", "revision")}
    return {
        f"{name}@step{step}": {**common, "revision": revision, "series": name, "step": step}
        for step, revision in sorted(steps.items())
    }


def _steps(revisions: Any) -> dict[int, str] | None:
    """Return revisions by training step, or None where they are not understood."""
    if isinstance(revisions, Mapping):
        return {int(key): name for key, name in revisions.items()} if all(map(_is_step, revisions)) else None
    if not isinstance(revisions, list | tuple):
        return None
    found = [re.search(r"step[-_]?(\d+)", name) if isinstance(name, str) else None for name in revisions]
    steps = {int(match[1]): name for match, name in zip(found, revisions, strict=True) if match}
    return steps if len(steps) == len(revisions) else None


def _is_step(key: Any) -> bool:
    return str(key).isdecimal()


def _with_nodes(experiment: Any, nodes: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return an experiment in which the name of a series stands for all of its models."""
    if not isinstance(experiment, Mapping) or not isinstance(experiment.get("models"), list | tuple):
        return experiment
    named = [nodes.get(name, [name]) if isinstance(name, str) else [name] for name in experiment["models"]]
    return {**experiment, "models": [node for each in named for node in each]}
