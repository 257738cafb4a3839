"""Planning: the sizes of a model and a pass come in; memory, bytes and seconds go out.

Capture, the pipeline and the command line import it.
"""
