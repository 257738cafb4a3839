"""Rule train: hand paths, recipe and text to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.machine import gpu_lock
from outlier_features.machine.devices import use_every_core
from outlier_features.machine.logs import logged
from outlier_features.training.checkpoint import train_checkpoint

config = Config.check(snakemake.config)
recipe = config.models[snakemake.wildcards.model].train
with logged(snakemake.log[0]), gpu_lock.device():
    use_every_core()
    train_checkpoint(
        recipe, config.corpora[recipe.corpus], Path(snakemake.output.source).parent, snakemake.params.lineage
    )
