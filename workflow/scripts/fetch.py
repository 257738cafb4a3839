"""Rule fetch: hand paths and the model's entry to the library."""

from pathlib import Path

from outlier_features.sources import fetch
from outlier_features.config import Config
from outlier_features.logs import logged

config = Config.check(snakemake.config)
with logged(snakemake.log[0]):
    fetch(config.models[snakemake.wildcards.model], Path(snakemake.output.source).parent, snakemake.params.lineage)
