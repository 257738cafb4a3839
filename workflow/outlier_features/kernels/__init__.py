"""Kernels: one activation comes in, what the pass keeps of it goes out, with a reference and a fast form by device.

Capture and its scripts import it; statistics says how its results are kept.
"""
