"""Rule reproduce: hand the summary and the published table to the library."""

from pathlib import Path

from outlier_features.artefacts.tables import read_table
from outlier_features.experiment.reproduction_text import reproduce
from outlier_features.machine.logs import logged

with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    summary, _ = read_table(Path(snakemake.input.summary), "summary", lineage["summary"])
    outputs = Path(snakemake.output.csv), Path(snakemake.output.markdown)
    reproduce(summary, Path(snakemake.input.published), *outputs, snakemake.wildcards.corpus, lineage)
