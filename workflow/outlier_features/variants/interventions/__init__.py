"""Interventions: what takes the place of channels or experts, and what as many others would do. Imported by `variants` only."""
