"""Capture: one pass of a model over its windows, observed at every site. The only stage that wants a GPU.

In: results/checkpoints/{model}/ and results/{corpus}/tokens/{model}.arrow.
Out: results/{corpus}/statistics/{model}/*.arrow, a shard per block, and the manifest beside them, written last, that
seals them and is what Snakemake tracks.
"""


rule capture:
    input:
        source="results/checkpoints/{model}/source.json",
        tokens="results/{corpus}/tokens/{model}.arrow",
    output:
        manifest="results/{corpus}/statistics/{model}.json",
    log:
        "results/logs/capture/{corpus}/{model}.log",
    benchmark:
        "results/logs/capture/{corpus}/{model}.benchmark.tsv"
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        gpu=1,
    params:
        lineage=lambda wildcards: lineages.statistics(wildcards.corpus, wildcards.model),
    script:
        "../scripts/capture.py"
