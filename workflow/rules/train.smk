"""Train: a model of this project is trained from scratch on the training part of a corpus.

In: nothing but the recipe in config.yaml and the text it names.
Out: results/checkpoints/{model}/, an ordinary checkpoint, as `fetch` makes them.
"""


rule train:
    input:
        moved=lambda wildcards: moved("checkpoint", wildcards),
    output:
        source=local("results/checkpoints/{model}/source.json"),
    log:
        "results/logs/train/{model}.log",
    wildcard_constraints:
        model=paths.one_of(
            name for name, model in settings.models.items() if model.train
        ),
    conda:
        "../../envs/outlier-features.yaml"
    resources:
        gpu=1,
    params:
        lineage=carried(
            lambda wildcards: lineages.checkpoint(wildcards.model), stays_on_disk=True
        ),
    script:
        "../scripts/train.py"
