"""Criteria: definitions of the literature as they are applied, each with its scale-free twin."""

from collections.abc import Mapping
from dataclasses import dataclass

from outlier_features.config.entries import Definition

TWIN = "_rms"
"""Ends the name of a scale-free twin: the same criterion with the threshold in RMS of each tensor."""


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
