"""Capture: one pass of a model over its windows, observed at every site. The only stage that wants a GPU.

In: results/checkpoints/{model}/ and results/{corpus}/tokens/{model}.arrow.
Out: results/{corpus}/statistics/{model}/*.arrow, a shard per block, and the manifest beside them, written last, that
seals them and is what Snakemake tracks. Where capture.scatter is more than 1, so many jobs share the windows out and
write {model}.1-of-4 and so on instead; each reads the whole checkpoint, and one that failed is run again alone.
"""


rule capture:
    input:
        checkpoint=lambda wildcards: local(str(paths.seal(settings, wildcards.model))),
        tokens=local("results/{corpus}/tokens/{model}.arrow"),
        moved=lambda wildcards: moved("statistics", wildcards),
    output:
        manifest=local("results/{corpus}/statistics/{model}.json"),
    log:
        "results/logs/capture/{corpus}/{model}.log",
    benchmark:
        "results/logs/capture/{corpus}/{model}.benchmark.tsv"
    wildcard_constraints:
        model=paths.WHOLE,
    priority: 2  # so that weights which do not stay are soon gone
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: requests.capture(wildcards).memory_mb
        * attempt,
        disk_mb=lambda wildcards: requests.capture(wildcards).disk_mb,
        runtime=lambda wildcards, attempt: requests.capture(wildcards).minutes * attempt,
    params:
        lineage=carried(
            lambda wildcards: lineages.statistics(wildcards.corpus, wildcards.model),
            stays_on_disk=True,
        ),
    script:
        "../scripts/capture.py"


use rule capture as capture_part with:
    output:
        manifest=local("results/{corpus}/statistics/{model}.{scatteritem}.json"),
    log:
        "results/logs/capture/{corpus}/{model}.{scatteritem}.log",
    benchmark:
        "results/logs/capture/{corpus}/{model}.{scatteritem}.benchmark.tsv"
    wildcard_constraints:
        model=paths.MODEL,
