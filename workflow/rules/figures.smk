"""Figures: pictures of the experiment, of the training runs in it, and of each of its models. No torch.

In: results/{corpus}/summary.parquet, inference.parquet and the published tables; for a model its tables
and the published ones; for its timings the manifests of its statistics, in whose folders they lie.
Out: results/plots/{figure}.{png,svg}, results/plots/{figure}/{model}.{png,svg}, of a figure about experts the folder
results/plots/{figure}/{model}, which stays empty for a dense model, and results/{corpus}/timings/{model}.svg.
"""

from outlier_features.figures import catalogue

FIGURES = catalogue.names("experiment") + HAS_SERIES * catalogue.names("series")
MODEL_FIGURES = catalogue.names("model")
MIXTURE_FIGURES = catalogue.names("mixture")


localrules:
    plot,
    plot_model,
    plot_timings,


rule plot:
    input:
        summary=f"results/{CORPUS}/summary.parquet",
        inference=f"results/{CORPUS}/inference.parquet",
        published=local(
            collect("resources/published/{table}.csv", table=shipped.PUBLISHED)
        ),
        moved=lambda wildcards: moved("figure", wildcards),
    output:
        [
            report(
                f"results/plots/{figure}.png",
                caption="../report/caption.rst",
                category=under.of_figure(figure),
                labels={"figure": catalogue.FIGURES[figure].title},
            )
            for figure in FIGURES
        ],
        collect("results/plots/{figure}.svg", figure=FIGURES),
    log:
        "results/logs/plot/plot.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.figure(CORPUS)),
        caption=lambda wildcards, output: headings.of_figures(FIGURES),
    script:
        "../scripts/plot.py"


rule plot_model:
    input:
        channels=f"results/{CORPUS}/channels/{{model}}.parquet",
        layers=f"results/{CORPUS}/layers/{{model}}.parquet",
        outliers=f"results/{CORPUS}/outliers/{{model}}.parquet",
        convergence=f"results/{CORPUS}/convergence/{{model}}.parquet",
        positions=f"results/{CORPUS}/positions/{{model}}.parquet",
        damage=f"results/{CORPUS}/damage/{{model}}.parquet",
        published=local(
            collect("resources/published/{table}.csv", table=shipped.PUBLISHED)
        ),
        moved=lambda wildcards: moved("model_figure", wildcards),
    output:
        [
            report(
                f"results/plots/{figure}/{{model}}.png",
                caption="../report/caption.rst",
                category=under.of_figure(figure),
                labels={
                    "figure": catalogue.FIGURES[figure].title,
                    "model": "{model}",
                },
            )
            for figure in MODEL_FIGURES
        ],
        collect("results/plots/{figure}/{{model}}.svg", figure=MODEL_FIGURES),
        # Whether a model has experts is known after its fetch only, so a folder holds their figure, or nothing.
        [
            report(
                directory(f"results/plots/{figure}/{{model}}"),
                patterns=["{figure}.png"],
                caption="../report/caption.rst",
                category=under.of_figure(figure),
                labels={
                    "figure": catalogue.FIGURES[figure].title,
                    "model": "{model}",
                },
            )
            for figure in MIXTURE_FIGURES
        ],
    log:
        "results/logs/plot_model/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.model_figure(CORPUS, wildcards.model)
        ),
        caption=lambda wildcards, output: headings.of_figures(
            MODEL_FIGURES + MIXTURE_FIGURES
        ),
    script:
        "../scripts/plot_model.py"


rule plot_timings:
    input:
        manifests=STATISTICS,
        moved=lambda wildcards: moved("timings", wildcards),
    output:
        svg=report(
            "results/{corpus}/timings/{model}.svg",
            caption="../report/caption.rst",
            category=under.heading(headings.TIMINGS),
            labels={"figure": "timings of the capture", "model": "{model}"},
        ),
    log:
        "results/logs/plot_timings/{corpus}/{model}.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(
            lambda wildcards: lineages.timings(wildcards.corpus, wildcards.model)
        ),
        caption=lambda wildcards, output: headings.WORDS["plot_timings"],
    script:
        "../scripts/plot_timings.py"
