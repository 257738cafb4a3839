"""Rule calibrate: hand paths and the corpus' entry to the library."""

from pathlib import Path

from outlier_features.artefacts.paths import checkpoint
from outlier_features.config.config import Config
from outlier_features.machine.logs import logged
from outlier_features.text.tokenize import calibrate

config = Config.check(snakemake.config)
corpus, model = config.corpora[snakemake.wildcards.corpus], checkpoint(snakemake.wildcards.model)
with logged(snakemake.log[0]):
    calibrate(model, corpus, config.training_windows(), Path(snakemake.output.tokens), snakemake.params.lineage)
