"""Job resources: what a job asks of the machine, from the sizes of its model, once its checkpoint tells them."""

import errno
from dataclasses import replace
from typing import Any

from outlier_features.artefacts import paths
from outlier_features.config import parts
from outlier_features.config.config import Config
from outlier_features.models.checkpoints import read_footprint
from outlier_features.models.sizes import Footprint
from outlier_features.planning import estimate, varied


class Requests:
    """What the jobs of one configuration ask for; the resources of rules are taken from here."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def capture(self, wildcards: Any) -> estimate.Estimate:
        """Return what the pass of a model over a corpus takes, or over the windows of one part of it.

        Raises FileNotFoundError for what the rule takes as input while the model is not fetched, by which Snakemake
        knows to ask again.
        """
        return estimate.estimate(self._footprint(wildcards), self._pass(wildcards))

    def vary(self, wildcards: Any) -> estimate.Estimate:
        """Return what the pass with a model's variants takes, or a part of it; raises as `capture` does."""
        runs = varied.Runs.of(self._config, wildcards.model)
        return varied.estimate(self._footprint(wildcards), self._pass(wildcards), runs)

    def _footprint(self, wildcards: Any) -> Footprint:
        try:
            return read_footprint(paths.checkpoint(wildcards.model))
        except FileNotFoundError as error:
            seal = str(paths.seal(self._config, wildcards.model))
            raise FileNotFoundError(errno.ENOENT, "not fetched yet", seal) from error

    def _pass(self, wildcards: Any) -> estimate.Pass:
        model, corpus = self._config.model(wildcards.model), self._config.corpora[wildcards.corpus]
        run = estimate.Pass.of(self._config, corpus, model)
        windows = parts.windows(wildcards.get("scatteritem"), run.sequences)
        return replace(run, sequences=len(windows))
