"""Vary: the plain model and its variants in one pass over the weights; evaluate.smk says what they cost.

In: results/checkpoints/{model}/, results/{corpus}/tokens/{model}.arrow, where variants calibrate on training text
results/{corpus}/calibration/{model}.arrow, and where an intervention names what a capture found its tables.
Out: results/{corpus}/variants/{model}/*.arrow and the manifest beside them, written last (in parts where capture.scatter
is more than 1).
"""

VARIED_MODELS = [model for model in MODELS if settings.is_varied(model)]


rule vary:
    input:
        unpack(
            lambda wildcards: (
                {"calibration": local("results/{corpus}/calibration/{model}.arrow")}
                if settings.training_windows()
                else {}
            )
        ),
        checkpoint=lambda wildcards: local(str(paths.seal(settings, wildcards.model))),
        tokens=local("results/{corpus}/tokens/{model}.arrow"),
        outliers=lambda wildcards: (
            "results/{corpus}/outliers/{model}.parquet"
            if settings.needs_capture(wildcards.model)
            else []
        ),
        layers=lambda wildcards: (
            "results/{corpus}/layers/{model}.parquet"
            if settings.needs_capture(wildcards.model)
            else []
        ),
        manifests=lambda wildcards: (
            STATISTICS if settings.needs_capture(wildcards.model) else []
        ),
        moved=lambda wildcards: moved("variants", wildcards),
    output:
        manifest=local("results/{corpus}/variants/{model}.json"),
    log:
        "results/logs/vary/{corpus}/{model}.log",
    wildcard_constraints:
        model=paths.WHOLE,
    priority: 2
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: requests.vary(wildcards).memory_mb * attempt,
        disk_mb=lambda wildcards: requests.vary(wildcards).disk_mb,
        runtime=lambda wildcards, attempt: requests.vary(wildcards).minutes * attempt,
    params:
        lineage=carried(
            lambda wildcards: lineages.variants(wildcards.corpus, wildcards.model),
            stays_on_disk=True,
        ),
    script:
        "../scripts/vary.py"


use rule vary as vary_part with:
    output:
        manifest=local("results/{corpus}/variants/{model}.{scatteritem}.json"),
    log:
        "results/logs/vary/{corpus}/{model}.{scatteritem}.log",
    wildcard_constraints:
        model=paths.MODEL,
