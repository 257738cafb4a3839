"""Rule infer: hand the summary and the draws of every model to the library."""

from pathlib import Path

from outlier_features.config import Config
from outlier_features.inference import infer
from outlier_features.logs import logged

models = Config.check(snakemake.config).chosen.models
found = snakemake.input
draws, perplexity = (dict(zip(models, map(Path, paths), strict=True)) for paths in (found.draws, found.perplexity))
with logged(snakemake.log[0]):
    infer(Path(found.summary), draws, perplexity, *map(Path, snakemake.output), snakemake.params.lineage)
