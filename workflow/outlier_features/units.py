"""Units: numbers of parameters, seconds, blocks and alternatives as people say them."""

from collections.abc import Iterable
from itertools import groupby


def human(count: float, digits: int = 4) -> str:
    """Return a number of parameters with so many digits: 134.5M, 30.5B. A dash for one that is not known."""
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= (1 - 0.5 * 10**-digits) * unit:  # what is rounded up to a unit is written in it
            return f"{count / unit:.{digits}g}{suffix}"
    return "-" if count != count else f"{count:.0f}"


def spoken(seconds: float) -> str:
    """Return an estimated time as people say it: 40 s, 12 min, 3.1 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def measured(seconds: float) -> str:
    """Return a measured time to about three digits: 0.41 s, 4.1 s, 128 s, 12.4 min, 3.12 h."""
    if seconds < 600:
        return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 20 else 0}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 100 * 60 else f"{seconds / 3600:.2f} h"


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: `0-3, 7` of 0, 1, 2, 3 and 7."""
    found = sorted(set(numbers))
    runs = [[n for _, n in run] for _, run in groupby(enumerate(found), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def either(values: Iterable[str]) -> str:
    """Return the different values, sorted: `bfloat16 or float32`."""
    return " or ".join(sorted(set(values)))
