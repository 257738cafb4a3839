"""Exports: the results of a model or an experiment come in; files for quantisers and for papers go out.

The pipeline and its scripts import it.
"""
