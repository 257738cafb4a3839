"""Spectra: how many magnitudes lie in each twelfth of an octave, from the half octaves in which they are counted.

The counts leave open where in a cell its values are. A spectrum follows the slope of the neighbouring cells there, and
the channels of the largest energy, of which mean, mean square and extremes are kept, as if each were normal.
"""

# Shapes: N step of a spectrum, K cell of magnitude_bins, C channel, P place on the scale of steps.

from functools import cache

import numpy as np
from scipy.special import ndtr

from outlier_features.magnitude_bins import CELLS, EDGES, FIRST_EXPONENT

OCTAVE = 12
"""Steps of an octave: the edges of the cells are 0 and 7 of them, since 1.5 is 2^(7.02 / 12)."""
LOWEST, HIGHEST = FIRST_EXPONENT - 4, 40
"""The exponents between which spectra reach; smaller and larger magnitudes are at the ends."""
STEPS = OCTAVE * (HIGHEST - LOWEST)
HUGE = 1e9
"""Of a place or a scale that nothing reaches."""


@cache
def cells() -> np.ndarray:
    """Return the cell of magnitude_bins that each step lies in (N,)."""
    begins_K = np.append(OCTAVE * (np.log2(EDGES) - LOWEST), STEPS).round().astype(int)
    return np.concatenate([np.ones(begins_K[0], int), np.repeat(np.arange(2, CELLS), np.diff(begins_K))])


@cache
def _bounds() -> np.ndarray:
    """Return the magnitudes between which the steps lie (N + 1,)."""
    return magnitude_of(np.arange(STEPS + 1))


def place_of(magnitudes: np.ndarray) -> np.ndarray:
    """Return where magnitudes over 0 lie on the scale of steps, with the fraction of a step."""
    return np.asarray(OCTAVE * (np.log2(magnitudes) - LOWEST))


def magnitude_of(places: np.ndarray) -> np.ndarray:
    """Return the magnitudes at places on the scale of steps."""
    return np.asarray(2.0 ** (np.asarray(places) / OCTAVE + LOWEST))


def of_counts(counts_K: np.ndarray, largest: float, known_N: np.ndarray | None = None) -> np.ndarray:
    """Return the spectrum (N,) of counted magnitudes, of which none exceeds the largest; zeros are left out.

    `known_N` is the spectrum of some of them, as far as the counts have room for it.
    """
    cell_N = cells()
    total_K = np.asarray(counts_K, float)
    known_N = np.zeros(STEPS) if known_N is None else known_N
    known_K = np.bincount(cell_N, known_N, CELLS)
    known_N = known_N * np.minimum(1, _ratio(total_K, known_K))[cell_N]
    rest_K = total_K - np.minimum(total_K, known_K)
    shape_N = _shape(rest_K, largest)
    return np.asarray(known_N + shape_N * _ratio(rest_K, np.bincount(cell_N, shape_N, CELLS))[cell_N])


def _shape(counts_K: np.ndarray, largest: float) -> np.ndarray:
    """Return how counts would lie within their cells (N,): the logarithm of the density is a line between middles."""
    width_K = np.bincount(cells(), minlength=CELLS)[1:].astype(float)
    middle_K = np.cumsum(width_K) - width_K / 2
    middle_K[0], middle_K[-1] = middle_K[1] - OCTAVE / 2, middle_K[-2] + OCTAVE / 2
    density_K = np.log(np.maximum(counts_K[1:], 0.1) / np.minimum(width_K, OCTAVE))
    shape_N = np.exp(np.interp(np.arange(STEPS) + 0.5, middle_K, density_K))
    end = float(np.clip(place_of(np.array(max(largest, 2.0**LOWEST))), 0, STEPS - 1))
    shape_N *= np.clip(end - np.arange(STEPS), 0, 1)
    shape_N[int(end)] += 1e-9 * shape_N.sum() + 1e-300  # where the largest begins a cell
    return np.asarray(shape_N)


def of_channels(mean_C: np.ndarray, square_C: np.ndarray, low_C: np.ndarray, high_C: np.ndarray) -> np.ndarray:
    """Return the spectra of the positive and the negative values (2, C, N) of channels, both together of sum 1.

    A channel is taken for normal between its extremes.
    """
    spread_C = np.sqrt(np.maximum(square_C - mean_C**2, 1e-6 * square_C + 1e-300))

    def below(values_CN: np.ndarray) -> np.ndarray:
        inside_CN = np.clip(values_CN, low_C[:, None], high_C[:, None])
        ends_C2 = ndtr((np.stack([low_C, high_C], 1) - mean_C[:, None]) / spread_C[:, None])
        share_CN = ndtr((inside_CN - mean_C[:, None]) / spread_C[:, None]) - ends_C2[:, :1]
        return share_CN / np.maximum(ends_C2[:, 1:] - ends_C2[:, :1], 1e-12)

    return np.stack([np.diff(below(_bounds()[None])), -np.diff(below(-_bounds()[None]))])


def of_values(magnitudes: np.ndarray) -> np.ndarray:
    """Return the spectrum (N,) of magnitudes; zeros are left out."""
    places = place_of(magnitudes[magnitudes > 0])
    return np.bincount(np.clip(places, 0, STEPS - 1).astype(int), minlength=STEPS).astype(float)


def sharpened(spectrum_N: np.ndarray, shift_P: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Return the spectrum which, moved by each of some shifts (in steps) and averaged, gives the one that is known.

    By the iteration of Richardson (1972) and Lucy (1974): nothing becomes negative.
    """
    moves_P = np.clip(np.round(shift_P), -STEPS // 2, STEPS // 2 - 1).astype(int)
    kernel_N = np.bincount(moves_P % STEPS, minlength=STEPS) / max(1, len(moves_P))
    wave = np.fft.rfft(kernel_N)
    guess_N = spectrum_N
    for _ in range(rounds):
        seen_N = np.fft.irfft(np.fft.rfft(guess_N) * wave, STEPS)
        ratio_N = spectrum_N / np.maximum(seen_N, 1e-9)
        guess_N = guess_N * np.maximum(np.fft.irfft(np.fft.rfft(ratio_N) * wave.conj(), STEPS), 0)
    return np.asarray(guess_N)


def quantile(spectrum_N: np.ndarray, share: float) -> float:
    """Return the place below which that share of a spectrum lies."""
    return float(np.interp(share * spectrum_N.sum(), spectrum_N.cumsum(), np.arange(1, STEPS + 1)))


def stretched(spectrum_N: np.ndarray, above: float, by: float) -> np.ndarray:
    """Return the spectrum with what is above a place spread over so many times as many steps."""
    bounds = np.arange(STEPS + 1)
    count = np.concatenate([[0], spectrum_N.cumsum()])
    return np.asarray(
        np.diff(np.interp(np.where(bounds > above, above + (bounds - above) / by, bounds), bounds, count))
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a quotient, 0 where nothing is divided by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, float), where=denominator > 0)
