"""The figures of an experiment: the rows of its models come in, drawings go out. `draw` alone imports them."""
