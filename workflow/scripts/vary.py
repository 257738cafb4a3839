"""Rules vary and vary_part: hand paths, variants and the windows to run to the library."""

from pathlib import Path

from outlier_features.artefacts import paths
from outlier_features.config.config import Config
from outlier_features.config.parts import windows
from outlier_features.machine import gpu_lock
from outlier_features.machine.logs import logged

config = Config.check(snakemake.config)
name, corpus = snakemake.wildcards.model, snakemake.wildcards.corpus
lineage, calibration = snakemake.params.lineage, snakemake.input.get("calibration")
with logged(snakemake.log[0]), gpu_lock.device():
    from outlier_features.machine.devices import use_every_core  # seconds of imports, once a device is held
    from outlier_features.variants.asked import asked_of, model_of
    from outlier_features.variants.vary import vary

    use_every_core()
    vary(
        paths.checkpoint(name),
        Path(snakemake.input.tokens),
        Path(calibration) if calibration else None,
        Path(snakemake.output.manifest),
        asked_of(config, name, corpus, lineage),
        model_of(config, config.models[name]),
        lineage,
        windows=windows(snakemake.wildcards.get("scatteritem"), config.corpora[corpus].sequences),
    )
