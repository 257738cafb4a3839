"""Decibels: the ratio of a signal to its error."""

from typing import Any

import numpy as np


def decibels(signal: Any, error: Any) -> Any:
    """Return 10 log10 of signal over error, elementwise: infinite where nothing is lost, NaN where either is none."""
    signal, error = np.asarray(signal, float), np.asarray(error, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.where(error == 0, np.inf, signal / error))[()]
