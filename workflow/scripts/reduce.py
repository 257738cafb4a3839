"""Rule reduce: hand paths and definitions to the library."""

from pathlib import Path

from outlier_features.config.config import Config
from outlier_features.machine.logs import logged
from outlier_features.metrics.evaluate import reduce

definitions = Config.check(snakemake.config).definitions
with logged(snakemake.log[0]):
    reduce(
        [Path(path) for path in snakemake.input.manifests],
        {name: Path(path) for name, path in snakemake.output.items()},
        definitions,
        snakemake.params.lineage,
    )
