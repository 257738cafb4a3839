"""Figures: pictures of the experiment, of the training runs in it, and of each of its models. No torch.

In: results/{corpus}/summary.parquet and the published figures; for a model its tables; for its timings the manifests of
its statistics, in whose folders they lie.
Out: results/plots/{figure}.{png,svg}, results/plots/{figure}/{model}.{png,svg} and results/{corpus}/timings/{model}.svg.
"""

EXPERIMENT_FIGURES = ["moe_vs_dense", "moe_vs_dense_rms"]
SERIES_FIGURES = ["training"]
MODEL_FIGURES = ["channel_map"]


localrules:
    plot,
    plot_model,
    plot_timings,


rule plot:
    input:
        summary=f"results/{CORPUS}/summary.parquet",
        published=local("resources/published/arb8020_2025.csv"),
    output:
        png="results/plots/{figure}.png",
        svg="results/plots/{figure}.svg",
    log:
        "results/logs/plot/{figure}.log",
    wildcard_constraints:
        figure=layout.one_of(EXPERIMENT_FIGURES + SERIES_FIGURES),
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=lambda wildcards: lineages.figure(CORPUS),
    script:
        "../scripts/plot.py"


rule plot_model:
    input:
        channels=f"results/{CORPUS}/channels/{{model}}.parquet",
        layers=f"results/{CORPUS}/layers/{{model}}.parquet",
    output:
        png="results/plots/{figure}/{model}.png",
        svg="results/plots/{figure}/{model}.svg",
    log:
        "results/logs/plot_model/{figure}/{model}.log",
    wildcard_constraints:
        figure=layout.one_of(MODEL_FIGURES),
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=lambda wildcards: lineages.model_figure(CORPUS, wildcards.model),
    script:
        "../scripts/plot_model.py"


rule plot_timings:
    input:
        manifests=branch(
            IS_SCATTERED,
            then=local(
                gather.capture(
                    "results/{{corpus}}/statistics/{{model}}.{scatteritem}.json"
                )
            ),
            otherwise=local(["results/{corpus}/statistics/{model}.json"]),
        ),
    output:
        svg="results/{corpus}/timings/{model}.svg",
    log:
        "results/logs/plot_timings/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=lambda wildcards: lineages.timings(wildcards.corpus, wildcards.model),
    script:
        "../scripts/plot_timings.py"
