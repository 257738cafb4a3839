"""Pipeline: the stages, what of an experiment is there and fresh, what a job asks for, what a run says at its end.

The Snakefile and the command line import it; nothing else does.
"""
