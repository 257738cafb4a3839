"""Rule export_summary: hand the summary to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.exports.export import export_summary
from outlier_features.machine.logs import logged

definitions = Config.check(snakemake.config).definitions
summary, outputs = Path(snakemake.input.summary), map(Path, snakemake.output)
with logged(snakemake.log[0]):
    export_summary(summary, *outputs, definitions, snakemake.wildcards.corpus, snakemake.params.lineage)
