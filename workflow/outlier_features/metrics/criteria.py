"""Criteria: definitions of the literature as they are applied, each with its scale-free twin."""

from collections.abc import Mapping
from dataclasses import dataclass

from outlier_features.config.entries import Definition
from outlier_features.thresholds import TWIN


@dataclass(frozen=True)
class Criterion:
    """A definition as it is applied: with its absolute threshold, or as its scale-free twin."""

    name: str
    definition: Definition
    relative: bool

    @property
    def rounded(self) -> bool:
        """Whether activations count as rounded to bfloat16."""
        return self.definition.rounding == "bfloat16" and not self.relative

    @property
    def pooled(self) -> bool:
        """Whether the criterion is applied to all sequences together."""
        return self.definition.scope == "pooled"


@dataclass(frozen=True)
class Gap:
    """Why a criterion has no answer for a model, in words."""

    criterion: Criterion
    reason: str


def criteria(definitions: Mapping[str, Definition]) -> list[Criterion]:
    """Return every definition and its scale-free twin."""
    plain = [Criterion(name, definition, relative=False) for name, definition in definitions.items()]
    return plain + [Criterion(name + TWIN, definition, relative=True) for name, definition in definitions.items()]


def rounded_criteria(definitions: Mapping[str, Definition], dtype: str) -> list[Criterion]:
    """Return the definitions that round nothing, with activations rounded to bfloat16, for a model of another `dtype`.

    So it can be set beside models of bfloat16, whose activations are rounded as they come.
    """
    rounding = {"rounding": "bfloat16"}
    return [
        Criterion(name, definition.model_copy(update=rounding), relative=False)
        for name, definition in definitions.items()
        if definition.rounding is None and dtype != "bfloat16"
    ]


def rule(threshold: float, min_layers: float, min_positions: float, *, relative: bool = False) -> str:
    """Return when a channel is an outlier feature, in words; `relative` is a threshold in RMS of the tensor."""
    return (
        f"{magnitudes(threshold, relative=relative)} in at least {100 * min_layers:.6g} % of the tensors and at "
        f"{100 * min_positions:.6g} % of the positions"
    )


def magnitudes(threshold: float, *, relative: bool = False) -> str:
    """Return which activations hit: `|x| ≥ 6`, or `|x| ≥ 6 x RMS` for a threshold in RMS of the tensor."""
    return f"|x| ≥ {threshold:g}{' x RMS' if relative else ''}"


def words(definition: Definition) -> str:
    """Return all of a definition in a phrase: its rule, its tensors, what it is applied to and what it counts."""
    scope = {
        "pooled": "over all sequences together; the count is that of distinct channels",
        "sequence": "in each sequence by itself; the count is the sum over sequences",
    }
    rounded = f"; activations are rounded to {definition.rounding} first" if definition.rounding else ""
    return (
        f"{rule(definition.threshold, definition.min_layers, definition.min_positions)} (tensors: "
        f"{', '.join(definition.sites)} of every block), {scope[definition.scope]}{rounded}"
    )
