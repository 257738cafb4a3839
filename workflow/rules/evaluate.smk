"""Evaluate: perplexity of each model, the summary of the experiment, what follows from it, and what it says beside the
published table.

In: the statistics and windows of a model; then the tables of every model of the experiment; then their summary.
Out: results/{corpus}/perplexity/{model}.json; results/{corpus}/summary.{parquet,csv,json}, one row per model and
definition; results/{corpus}/inference.{parquet,json}, correlations, phase shifts and the answer in words;
results/{corpus}/reproduction.{csv,md}, the same quantities measured and published; of a model with variants, from their
pass, results/{corpus}/{quantization,sqnr,interventions}/{model}.parquet.
"""


localrules:
    perplexity,
    summarize,
    infer,
    reproduce,
    evaluate_variants,


rule perplexity:
    input:
        manifests=STATISTICS,
        tokens=local("results/{corpus}/tokens/{model}.arrow"),
        moved=lambda wildcards: moved("perplexity", wildcards),
    output:
        perplexity="results/{corpus}/perplexity/{model}.json",
    log:
        "results/logs/perplexity/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.perplexity(wildcards.corpus, wildcards.model)
        ),
    script:
        "../scripts/perplexity.py"


rule summarize:
    input:
        outliers=collect("results/{{corpus}}/outliers/{model}.parquet", model=MODELS),
        layers=collect("results/{{corpus}}/layers/{model}.parquet", model=MODELS),
        perplexity=collect("results/{{corpus}}/perplexity/{model}.json", model=MODELS),
        moved=lambda wildcards: moved("summary", wildcards),
    output:
        parquet=report(
            "results/{corpus}/summary.parquet",
            caption="../report/caption.rst",
            category=under.heading(headings.TABLES),
            labels={"table": "summary", "format": "parquet"},
        ),
        csv=report(
            "results/{corpus}/summary.csv",
            caption="../report/caption.rst",
            category=under.heading(headings.TABLES),
            labels={"table": "summary", "format": "csv"},
        ),
        json="results/{corpus}/summary.json",
    log:
        "results/logs/summarize/{corpus}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.summary(wildcards.corpus)),
        caption=lambda wildcards, output: headings.WORDS["summarize"],
    script:
        "../scripts/summarize.py"


rule infer:
    input:
        summary="results/{corpus}/summary.parquet",
        draws=collect("results/{{corpus}}/draws/{model}.parquet", model=MODELS),
        perplexity=collect("results/{{corpus}}/perplexity/{model}.json", model=MODELS),
        convergence=collect(
            "results/{{corpus}}/convergence/{model}.parquet", model=MODELS
        ),
        moved=lambda wildcards: moved("inference", wildcards),
    output:
        parquet=report(
            "results/{corpus}/inference.parquet",
            caption="../report/caption.rst",
            category=under.heading(headings.TABLES),
            labels={"table": "inference", "format": "parquet"},
        ),
        json=report(
            "results/{corpus}/inference.json",
            caption="../report/caption.rst",
            category=under.heading(headings.TABLES),
            labels={"table": "inference", "format": "json"},
        ),
    log:
        "results/logs/infer/{corpus}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.inference(wildcards.corpus)),
        caption=lambda wildcards, output: headings.WORDS["infer"],
    script:
        "../scripts/infer.py"


rule reproduce:
    input:
        summary="results/{corpus}/summary.parquet",
        published=local("resources/published/arb8020_2025.csv"),
        moved=lambda wildcards: moved("reproduction", wildcards),
    output:
        csv=report(
            "results/{corpus}/reproduction.csv",
            caption="../report/caption.rst",
            category=under.heading(headings.TABLES),
            labels={"table": "beside published", "format": "csv"},
        ),
        markdown="results/{corpus}/reproduction.md",
    log:
        "results/logs/reproduce/{corpus}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.reproduction(wildcards.corpus)),
        caption=lambda wildcards, output: headings.WORDS["reproduce"],
    script:
        "../scripts/reproduce.py"


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
