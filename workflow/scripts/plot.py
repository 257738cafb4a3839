"""Rule plot: hand the tables of the experiment and the published ones to the library."""

from pathlib import Path

from outlier_features.artefacts.provenance import record
from outlier_features.artefacts.tables import read_table
from outlier_features.figures.draw import draw_experiment, save
from outlier_features.figures.tables import Sweep, read_published
from outlier_features.machine.logs import logged

with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    summary, _ = read_table(Path(snakemake.input.summary), "summary", lineage["summary"])
    trends, _ = read_table(Path(snakemake.input.inference), "inference", lineage["inference"])
    sweep = Sweep(summary, trends, read_published(snakemake.input.published))
    outputs = [Path(path) for path in snakemake.output]
    for name in dict.fromkeys(path.stem for path in outputs):
        figure = draw_experiment(name, sweep)
        for path in (path for path in outputs if path.stem == name):
            save(figure, path, record(lineage))
