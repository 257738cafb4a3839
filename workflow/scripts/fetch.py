"""Rule fetch: hand paths and the model's entry to the library."""

from outlier_features.artefacts.paths import checkpoint
from outlier_features.config.config import Config
from outlier_features.machine.logs import logged
from outlier_features.sources.admission import Use
from outlier_features.sources.fetch import fetch

config = Config.check(snakemake.config)
with logged(snakemake.log[0]):
    name = snakemake.wildcards.model
    fetch(config.models[name], checkpoint(name), snakemake.params.lineage, Use.of(config))
