"""Rule first_page: hand the summary, its inference and the pictures to the library."""

from pathlib import Path

from outlier_features.config import Config
from outlier_features.first_page import read_findings, write_first_page
from outlier_features.logs import logged
from outlier_features.provenance import record

config, found = Config.check(snakemake.config), snakemake.input
with logged(snakemake.log[0]):
    lineage = snakemake.params.lineage
    findings = read_findings(config, Path(found.summary), Path(found.inference), map(Path, found.perplexity), lineage)
    pictures = {picture.stem: picture for picture in map(Path, found.pictures)}
    write_first_page(Path(snakemake.output.page), findings, pictures, record(lineage))
