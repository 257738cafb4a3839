"""Rule plot_model: hand the tables of one model to the library."""

from pathlib import Path

from outlier_features.config import Config
from outlier_features.figures import draw_model, save
from outlier_features.logs import logged
from outlier_features.provenance import record
from outlier_features.tables import read_table

label = Config.check(snakemake.config).label(snakemake.wildcards.model)
with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    channels, origin = read_table(Path(snakemake.input.channels), "reduction", lineage["reduction"])
    layers, _ = read_table(Path(snakemake.input.layers), "reduction", lineage["reduction"])
    facts = origin["facts"]
    figure = draw_model(snakemake.wildcards.figure, label, channels, layers, facts["channels"], facts["blocks"])
    for path in snakemake.output:
        save(figure, Path(path), record(lineage))
