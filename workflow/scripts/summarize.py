"""Rule summarize: hand the tables of every model to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.experiment.summary import entry, summarize, write_summary
from outlier_features.machine.logs import logged
from outlier_features.pipeline import history

config = Config.check(snakemake.config)
files = zip(snakemake.input.outliers, snakemake.input.layers, snakemake.input.perplexity, strict=True)
with logged(snakemake.log[0]):
    entries = [entry(config.models, name, *map(Path, paths)) for name, paths in zip(config.chosen.models, files)]
    summary, origin = summarize(entries, snakemake.wildcards.corpus, snakemake.params.lineage)
    write_summary(summary, origin, *map(Path, snakemake.output))
    history.keep(Path(snakemake.output.parquet), config.experiment)
