"""Rule infer: hand the summary and the draws of every model to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.experiment.inference import infer
from outlier_features.machine.logs import logged

models = Config.check(snakemake.config).chosen.models
files = (snakemake.input.draws, snakemake.input.perplexity, snakemake.input.convergence)
each = [dict(zip(models, map(Path, paths), strict=True)) for paths in files]
with logged(snakemake.log[0]):
    infer(Path(snakemake.input.summary), *each, *map(Path, snakemake.output), snakemake.params.lineage)
