"""Models: a checkpoint directory comes in; its architecture, sites, sizes and weights, block by block, go out.

Sources, planning, capture and training import it.
"""
