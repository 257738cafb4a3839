"""Rule perplexity: hand paths to the library."""

from pathlib import Path

from outlier_features.machine.logs import logged
from outlier_features.metrics.perplexity import write_perplexity

with logged(snakemake.log[0]):
    write_perplexity(
        [Path(path) for path in snakemake.input.manifests],
        Path(snakemake.input.tokens),
        Path(snakemake.output.perplexity),
        snakemake.params.lineage,
    )
