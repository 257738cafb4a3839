"""Sources: an entry of config.yaml comes in; a sealed checkpoint directory goes out, or the reason why there is none.

The pipeline and its scripts import it.
"""
