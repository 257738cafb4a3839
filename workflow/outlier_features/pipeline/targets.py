"""Targets: the figures that a command of Snakemake asks for are figures that there are."""

import re
from collections.abc import Sequence

from outlier_features.config import suggestions
from outlier_features.errors import ConfigError
from outlier_features.figures import catalogue

FIGURE = re.compile(r"(?:\./)?results/plots/(?P<name>[^/.]+)(?:\.(?:png|svg)|/.+)$")


def check(arguments: Sequence[str]) -> None:
    """Check the `arguments` of snakemake. Raises ConfigError for a figure that is none, with those there are."""
    for argument in arguments:
        found = FIGURE.match(argument)
        if found and (name := found["name"]) not in catalogue.FIGURES:
            raise ConfigError(
                f"{argument}: there is no figure {name}{suggestions.nearest(name, catalogue.FIGURES)}; "
                f"figures: {', '.join(catalogue.FIGURES)}"
            )
