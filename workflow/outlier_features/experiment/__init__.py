"""Experiment: the tables of all models come in; the summary, what follows, and published figures beside it go out.

Figures, exports, report, comparison, the pipeline and the command line import it. No torch, no model.
"""
