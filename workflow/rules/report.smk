"""Report: the page of the run. Readable alone, without a network, and small enough to send.

In: the summary, what follows from it, every figure, and of each model its answer and the file that says how it was
measured.
Out: results/index.html.
"""


localrules:
    index,


rule index:
    input:
        summary=f"results/{CORPUS}/summary.parquet",
        inference=f"results/{CORPUS}/inference.json",
        perplexity=collect(f"results/{CORPUS}/perplexity/{{model}}.json", model=MODELS),
        answers=collect(f"results/{CORPUS}/answers/{{model}}.json", model=MODELS),
        # Of what one job makes together, one file stands for all.
        figures=collect("results/plots/{figure}.png", figure=FIGURES[-1:]),
        of_models=collect(
            "results/plots/{figure}/{model}.png",
            figure=MODEL_FIGURES[-1:],
            model=MODELS,
        ),
        moved=lambda wildcards: moved("index", wildcards),
    output:
        page="results/index.html",
    log:
        "results/logs/index/index.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.index(CORPUS)),
    script:
        "../scripts/index.py"
