"""Staleness: how the rules tell Snakemake that a result was made from something else than is wanted now.

In: the lineages that results carry, and those of the present code, settings and inputs.
Out: for each rule the input `moved` and the param `lineage`; no file.
"""

# Results on a disk say themselves what they were made from; of those in an object store only Snakemake's own records know.
IS_ON_DISK = workflow.storage_settings.default_storage_provider is None
# Checkpoints, windows and statistics stay on the disk wherever the others go.
ALWAYS_ON_DISK = {"checkpoint", "tokens", "statistics", "calibration", "variants"}
freshness = Freshness(settings, lineages, len(gather.capture("{scatteritem}")))


def moved(artefact, wildcards):
    """Return as an input of a job the mark that is newer than its outputs; it counts where they carry another lineage."""
    if not IS_ON_DISK and artefact not in ALWAYS_ON_DISK:
        return []
    names = [wildcards.get(key) for key in ("model", "scatteritem")]
    result = artefact, wildcards.get("corpus", CORPUS), ".".join(filter(None, names))
    mark = local(str(paths.mark()))
    return (
        mark
        if workflow.is_main_process and freshness.has_moved(*result)
        else ancient(mark)
    )


def carried(lineage, stays_on_disk=IS_ON_DISK):
    """Return a param that results carry, and that Snakemake need not compare: as it does with one told of the output."""
    return (lambda wildcards, output: lineage(wildcards)) if stays_on_disk else lineage
