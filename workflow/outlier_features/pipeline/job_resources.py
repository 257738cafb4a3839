"""Job resources: what a job asks of the machine, from the sizes of its model, once its checkpoint tells them."""

import errno
from dataclasses import replace
from typing import Any

from outlier_features.artefacts import paths
from outlier_features.config import parts
from outlier_features.config.config import Config
from outlier_features.models.checkpoints import read_footprint
from outlier_features.planning import estimate


class Requests:
    """What the jobs of one configuration ask for; the resources of rules are taken from here."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def capture(self, wildcards: Any) -> estimate.Estimate:
        """Return what the pass of a model over a corpus takes, or over the windows of one part of it.

        Raises FileNotFoundError for what the rule takes as input while the model is not fetched, by which Snakemake
        knows to ask again.
        """
        model, corpus = self._config.model(wildcards.model), self._config.corpora[wildcards.corpus]
        try:
            footprint = read_footprint(paths.checkpoint(wildcards.model))
        except FileNotFoundError as error:
            seal = str(paths.seal(self._config, wildcards.model))
            raise FileNotFoundError(errno.ENOENT, "not fetched yet", seal) from error
        run = estimate.Pass.of(self._config, corpus, model)
        windows = parts.windows(wildcards.get("scatteritem"), run.sequences)
        return estimate.estimate(footprint, replace(run, sequences=len(windows)))
