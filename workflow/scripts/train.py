"""Rule train: hand paths, recipe and text to the library."""

from pathlib import Path

from outlier_features import leases
from outlier_features.config import Config
from outlier_features.devices import use_every_core
from outlier_features.logs import logged
from outlier_features.training.checkpoint import train_checkpoint

config = Config.check(snakemake.config)
recipe = config.models[snakemake.wildcards.model].train
with logged(snakemake.log[0]), leases.device():
    use_every_core()
    train_checkpoint(
        recipe, config.corpora[recipe.corpus], Path(snakemake.output.source).parent, snakemake.params.lineage
    )
