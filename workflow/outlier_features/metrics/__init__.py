"""Metrics: the statistics of a model come in, definitions, metrics and their intervals go out. No torch, no model.

Stages, comparison, exports, figures and the terminal import it; it imports statistics and artefacts.
"""
