"""Vary: the plain model and its variants in one pass over the weights, and what they cost.

In: results/checkpoints/{model}/, results/{corpus}/tokens/{model}.arrow, where variants calibrate on training text
results/{corpus}/calibration/{model}.arrow, and where an intervention names what a capture found its tables.
Out: results/{corpus}/variants/{model}/*.arrow and the manifest beside them, written last (in parts where capture.scatter
is more than 1), and of these results/{corpus}/{quantization,sqnr,interventions}/{model}.parquet.
"""

VARIED_MODELS = [model for model in MODELS if settings.is_varied(model)]


localrules:
    calibrate,
    evaluate_variants,


rule calibrate:
    input:
        checkpoint=lambda wildcards: local(str(paths.seal(settings, wildcards.model))),
        moved=lambda wildcards: moved("calibration", wildcards),
    output:
        tokens=local("results/{corpus}/calibration/{model}.arrow"),
    log:
        "results/logs/calibrate/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.calibration(wildcards.corpus, wildcards.model),
            stays_on_disk=True,
        ),
    script:
        "../scripts/calibrate.py"


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


rule evaluate_variants:
    input:
        manifests=local(
            gather.capture("results/{{corpus}}/variants/{{model}}.{scatteritem}.json")
            if IS_SCATTERED
            else ["results/{corpus}/variants/{model}.json"]
        ),
        tokens=local("results/{corpus}/tokens/{model}.arrow"),
        moved=lambda wildcards: moved("consequences", wildcards),
    output:
        quantization="results/{corpus}/quantization/{model}.parquet",
        sqnr="results/{corpus}/sqnr/{model}.parquet",
        interventions="results/{corpus}/interventions/{model}.parquet",
    log:
        "results/logs/evaluate_variants/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.consequences(wildcards.corpus, wildcards.model)
        ),
    script:
        "../scripts/evaluate_variants.py"
