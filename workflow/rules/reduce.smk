"""Reduce: every definition and metric, evaluated from the statistics. No model, no GPU.

In: results/{corpus}/statistics/{model}/ and its manifest, or those of all parts.
Out: seven tables of results/{corpus}/: outliers (one row per outlier feature, definition and sequence), channels (one per
tensor and channel with a hit), layers (one per block, site and token class: every metric), draws (one per definition
and bootstrap draw), convergence (one per definition and number of windows), positions (one per site and position) and
damage (one per block, matrix input and format: what it would lose, predicted); and answers/{model}.json, which channels are outlier features, where, how large, and what int8 would lose.
"""


rule reduce:
    input:
        manifests=STATISTICS,
        moved=lambda wildcards: moved("reduction", wildcards),
    output:
        outliers="results/{corpus}/outliers/{model}.parquet",
        channels="results/{corpus}/channels/{model}.parquet",
        layers="results/{corpus}/layers/{model}.parquet",
        draws="results/{corpus}/draws/{model}.parquet",
        convergence="results/{corpus}/convergence/{model}.parquet",
        positions="results/{corpus}/positions/{model}.parquet",
        damage="results/{corpus}/damage/{model}.parquet",
        answer="results/{corpus}/answers/{model}.json",
    log:
        "results/logs/reduce/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.reduction(wildcards.corpus, wildcards.model)
        ),
    script:
        "../scripts/reduce.py"
