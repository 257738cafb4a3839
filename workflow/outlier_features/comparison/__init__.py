"""Comparison: the summaries of two runs come in; what they must agree in, were made from, and what moved go out.

The command line and its terminal import it.
"""
