"""Statistics: what a pass keeps of a model, on disk: the border between the device that computes and all that reads.

Capture writes it; metrics, exports and stages read it. No torch, no model.
"""
