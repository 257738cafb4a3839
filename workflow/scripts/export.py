"""Rule export: hand the statistics and tables of one model to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.experiment.summary import entry
from outlier_features.exports.export import export
from outlier_features.machine.logs import logged

config = Config.check(snakemake.config)
found, corpus = snakemake.input, snakemake.wildcards.corpus
tables = Path(found.outliers), Path(found.layers), Path(found.perplexity)
folder = Path(snakemake.output.channels).parent
with logged(snakemake.log[0]):
    model = entry(config.models, snakemake.wildcards.model, *tables)
    export(model, [*map(Path, found.manifests)], config.definitions, corpus, folder, snakemake.params.lineage)
