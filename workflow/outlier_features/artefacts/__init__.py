"""Artefacts: files come in and go out: where they lie, whole or not at all, with what they were made from.

Every wing that reads or writes results imports it; it knows the configuration and nothing of models.
"""
