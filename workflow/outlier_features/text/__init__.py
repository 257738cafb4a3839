"""Text: a corpus and a tokenizer come in, windows of token ids go out.

Stages, capture, admission, sources of trained models and the checks of a configuration import it.
"""
