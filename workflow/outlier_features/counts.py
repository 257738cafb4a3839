"""Counts as people say them."""


def human(count: float, digits: int = 4) -> str:
    """Return a number of parameters with so many digits: 134.5M, 30.5B. A dash for one that is not known."""
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= (1 - 0.5 * 10**-digits) * unit:  # what is rounded up to a unit is written in it
            return f"{count / unit:.{digits}g}{suffix}"
    return "-" if count != count else f"{count:.0f}"
