"""Numbers of blocks as people write them."""

from collections.abc import Iterable
from itertools import groupby


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: `0-3, 7` of 0, 1, 2, 3 and 7."""
    found = sorted(set(numbers))
    runs = [[n for _, n in run] for _, run in groupby(enumerate(found), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
