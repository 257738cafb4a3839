"""Formats: one file each; what a quantised tensor comes back as. No model, no files. Imported by `variants` only."""
