"""Rule index: hand the summary, what follows from it and the answer for each model to the library."""

from pathlib import Path

from outlier_features.artefacts.provenance import record
from outlier_features.config.config import Config
from outlier_features.machine.logs import logged
from outlier_features.report.index import read_findings, write_page

config, found = Config.check(snakemake.config), snakemake.input
with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    each = [map(Path, paths) for paths in (found.answers, found.perplexity)]
    findings = read_findings(config, Path(found.summary), Path(found.inference), *each, lineage)
    write_page(Path(snakemake.output.page), findings, record(lineage))
