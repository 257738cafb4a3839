"""Options: what is done besides rounding to a format, one file each. No files are read. Imported by `variants` only."""
