"""Measure outlier features of language models: which channels, in which blocks, and what they cost."""

__version__ = "0.1.0"
