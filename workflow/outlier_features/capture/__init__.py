"""Capture: a checkpoint and windows come in; the statistics of one pass go out, resumable block by block.

The pipeline and its script import it.
"""
