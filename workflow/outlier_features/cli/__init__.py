"""Command line: a command comes in; the pipeline does it, and what a person wants to know goes to the terminal.

Nothing imports it but the entry point.
"""
