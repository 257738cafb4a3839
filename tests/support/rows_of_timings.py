"""Rows of timings, and the words of what is made of them."""

from matplotlib.text import Text

GIB = 2**30


def row(block, read=2.0, waited=0.5, computed=3.0, observed=1.0, saved=0.25, **columns):
    """Return one row of a block of 1 GiB."""
    seconds = {"read": read, "waited": waited, "computed": computed, "observed": observed, "saved": saved}
    values = {f"{name}_seconds": value for name, value in seconds.items()}
    return {"block": block, **values, "read_bytes": GIB, "started": 4.0 * block, "resumed": False} | columns


def words(figure):
    """Return everything that is written in a figure, line breaks as spaces."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))
