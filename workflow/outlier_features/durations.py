"""Durations: seconds as people say them."""


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
