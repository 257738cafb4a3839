"""Evaluate: perplexity of each model, and the summary of the experiment.

In: the statistics and windows of a model; then the tables of every model of the experiment.
Out: results/{corpus}/perplexity/{model}.json and results/{corpus}/summary.{parquet,csv,json}, one row per model and
definition.
"""


localrules:
    perplexity,
    summarize,


rule perplexity:
    input:
        manifest="results/{corpus}/statistics/{model}.json",
        tokens="results/{corpus}/tokens/{model}.arrow",
    output:
        perplexity="results/{corpus}/perplexity/{model}.json",
    log:
        "results/logs/perplexity/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=lambda wildcards: lineages.perplexity(wildcards.corpus, wildcards.model),
    script:
        "../scripts/perplexity.py"


rule summarize:
    input:
        outliers=collect("results/{{corpus}}/outliers/{model}.parquet", model=MODELS),
        layers=collect("results/{{corpus}}/layers/{model}.parquet", model=MODELS),
        perplexity=collect("results/{{corpus}}/perplexity/{model}.json", model=MODELS),
    output:
        parquet="results/{corpus}/summary.parquet",
        csv="results/{corpus}/summary.csv",
        json="results/{corpus}/summary.json",
    log:
        "results/logs/summarize/{corpus}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=lambda wildcards: lineages.summary(wildcards.corpus),
    script:
        "../scripts/summarize.py"
