"""Tokenize: the text of a corpus is packed into windows of token ids by each model's own tokenizer.

In: results/checkpoints/{model}/ (its tokenizer) and the text that config.yaml names.
Out: results/{corpus}/tokens/{model}.arrow, one row a window, with the bytes of every token; of training text, for variants
that calibrate on it, results/{corpus}/calibration/{model}.arrow.
"""


localrules:
    tokenize,
    calibrate,


rule tokenize:
    input:
        checkpoint=lambda wildcards: local(str(paths.seal(settings, wildcards.model))),
        moved=lambda wildcards: moved("tokens", wildcards),
    output:
        tokens=local("results/{corpus}/tokens/{model}.arrow"),
    log:
        "results/logs/tokenize/{corpus}/{model}.log",
    priority: 1  # before another model is fetched
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.tokens(wildcards.corpus, wildcards.model),
            stays_on_disk=True,
        ),
    script:
        "../scripts/tokenize.py"


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
