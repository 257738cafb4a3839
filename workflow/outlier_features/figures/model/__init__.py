"""The figures of one model: its tables come in, drawings go out. `draw` and the stages import them."""
