"""Rule evaluate_variants: hand paths to the library."""

from pathlib import Path

from outlier_features.machine.logs import logged
from outlier_features.variants.evaluate import evaluate

with logged(snakemake.log[0]):
    evaluate(
        [Path(path) for path in snakemake.input.manifests],
        Path(snakemake.input.tokens),
        {name: Path(path) for name, path in snakemake.output.items()},
        snakemake.params.lineage,
    )
