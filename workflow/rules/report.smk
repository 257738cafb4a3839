"""Report: the first page of what `snakemake --report` makes. Readable alone, without a network, and small enough to send.

In: the summary, what follows from it, the pictures of what is measured and of what was found, and of each model the file that says how it was measured.
Out: results/first_page.html.
"""


localrules:
    first_page,


rule first_page:
    input:
        summary=f"results/{CORPUS}/summary.parquet",
        inference=f"results/{CORPUS}/inference.json",
        perplexity=collect(f"results/{CORPUS}/perplexity/{{model}}.json", model=MODELS),
        pictures=collect("results/plots/{figure}.png", figure=contents.PICTURES),
        moved=lambda wildcards: moved("first_page", wildcards),
    output:
        page=report(
            "results/first_page.html",
            caption="../report/caption.rst",
            category=headings.heading(contents.FIRST),
            labels={"page": "first page"},
        ),
    log:
        "results/logs/first_page/first_page.log",
    conda:
        "../../envs/outlier-features.yaml"
    params:
        lineage=carried(lambda wildcards: lineages.first_page(CORPUS)),
        caption=lambda wildcards, output: contents.WORDS["first_page"],
    script:
        "../scripts/first_page.py"
