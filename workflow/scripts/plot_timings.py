"""Rule plot_timings: hand the timings of one model to the library."""

from pathlib import Path

from outlier_features.artefacts.provenance import record
from outlier_features.config.config import Config
from outlier_features.figures.draw import save
from outlier_features.figures.model.timings import draw
from outlier_features.machine.logs import logged
from outlier_features.statistics.timings import path_of, read

label = Config.check(snakemake.config).label(snakemake.wildcards.model)
with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    parts = [read(path_of(Path(path)), lineage["statistics"]) for path in snakemake.input.manifests]
    save(draw(label, parts), Path(snakemake.output.svg), record(lineage))
