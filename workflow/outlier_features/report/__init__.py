"""Report: the results of a run come in; its page and the headings of Snakemake's report go out. No torch.

The pipeline, the Snakefile and the command line import it.
"""
