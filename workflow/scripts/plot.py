"""Rule plot: hand the summary and the published figures to the library."""

from pathlib import Path

import pandas as pd
from outlier_features.figures import draw_experiment, save
from outlier_features.logs import logged
from outlier_features.provenance import record
from outlier_features.tables import read_table

with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    summary, _ = read_table(Path(snakemake.input.summary), "summary", lineage["summary"])
    figure = draw_experiment(snakemake.wildcards.figure, summary, pd.read_csv(snakemake.input.published))
    for path in snakemake.output:
        save(figure, Path(path), record(lineage))
