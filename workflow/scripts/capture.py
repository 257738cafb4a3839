"""Rules capture and capture_part: hand paths, settings and the windows to run to the library."""

from pathlib import Path

from outlier_features.artefacts.paths import checkpoint
from outlier_features.config.config import Config
from outlier_features.config.parts import windows
from outlier_features.kernels import compiling
from outlier_features.machine import gpu_lock
from outlier_features.machine.logs import logged

config = Config.check(snakemake.config)
model, corpus = config.models[snakemake.wildcards.model], config.corpora[snakemake.wildcards.corpus]
with logged(snakemake.log[0]), gpu_lock.device() as gpu, compiling.in_background(model.dtype, gpu):
    from outlier_features.capture.run import Settings, capture  # seconds of imports, meanwhile
    from outlier_features.machine.devices import use_every_core

    use_every_core()
    capture(
        checkpoint(snakemake.wildcards.model),
        Path(snakemake.input.tokens),
        Path(snakemake.output.manifest),
        Settings.of(config.capture, config.counted_sites, config.coverages, model.dtype, model.experts_implementation),
        snakemake.params.lineage,
        windows=windows(snakemake.wildcards.get("scatteritem"), corpus.sequences),
        memory_budget=config.capture.memory_bytes,
    )
