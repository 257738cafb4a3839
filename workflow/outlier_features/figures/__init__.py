"""Figures: the tables of an experiment or of one model come in, pictures go out. The stages and the page import it."""
