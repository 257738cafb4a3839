"""The model changed, in the same pass over its weights: formats and options, interventions, and what they cost.

In: a checkpoint, its windows, the entries `variants` and `interventions`. Out: sums per block, and tables. Imported by
the pipeline, exports and figures only.
"""
