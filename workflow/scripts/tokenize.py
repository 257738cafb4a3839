"""Rule tokenize: hand paths and the corpus' entry to the library."""

from pathlib import Path

from outlier_features.artefacts.paths import checkpoint
from outlier_features.config.config import Config
from outlier_features.machine.logs import logged
from outlier_features.text.tokenize import tokenize

corpus = Config.check(snakemake.config).corpora[snakemake.wildcards.corpus]
with logged(snakemake.log[0]):
    tokenize(checkpoint(snakemake.wildcards.model), corpus, Path(snakemake.output.tokens), snakemake.params.lineage)
