"""Interventions: what takes the place of channels or experts, and controls. Imported by `variants` only."""
