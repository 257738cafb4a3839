"""Export: what each model gives to those who quantise and to those who write papers. No model, no GPU, no torch.

In: the statistics of a model and its tables; for the experiment its summary.
Out: results/{corpus}/export/{model}/ with the outlier channels (JSON), per-channel maxima, mean squares and scales of the
inputs of its matrices and of keys and values (safetensors), what experts saw (JSON), imatrix.gguf where gguf has names for
the architecture, and a table (LaTeX, Markdown); results/{corpus}/export/summary.{tex,md}, one row a model.
"""


localrules:
    export,
    export_summary,


rule export:
    input:
        manifests=STATISTICS,
        outliers="results/{corpus}/outliers/{model}.parquet",
        layers="results/{corpus}/layers/{model}.parquet",
        perplexity="results/{corpus}/perplexity/{model}.json",
        moved=lambda wildcards: moved("export", wildcards),
    output:
        channels="results/{corpus}/export/{model}/outlier_channels.json",
        scales="results/{corpus}/export/{model}/act_scales.safetensors",
        scales_rest="results/{corpus}/export/{model}/act_scales_rest.safetensors",
        importance="results/{corpus}/export/{model}/importance.safetensors",
        input_scales="results/{corpus}/export/{model}/input_scales.safetensors",
        kv_scales="results/{corpus}/export/{model}/kv_scales.safetensors",
        calibration="results/{corpus}/export/{model}/calibration.json",
        latex="results/{corpus}/export/{model}/table.tex",
        markdown="results/{corpus}/export/{model}/table.md",
    log:
        "results/logs/export/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.export(wildcards.corpus, wildcards.model)
        ),
    script:
        "../scripts/export.py"


rule export_summary:
    input:
        summary="results/{corpus}/summary.parquet",
        moved=lambda wildcards: moved("export_summary", wildcards),
    output:
        latex="results/{corpus}/export/summary.tex",
        markdown="results/{corpus}/export/summary.md",
    log:
        "results/logs/export_summary/{corpus}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.export_summary(wildcards.corpus)),
    script:
        "../scripts/export_summary.py"
