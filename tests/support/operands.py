"""Operands of every kind that formats meet, and how far a float32 result may be from a float64 one."""

import numpy as np
import torch

ROWS, CHANNELS = 9, 200


def kinds(rows: int = ROWS, channels: int = CHANNELS) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    normal = generator.standard_normal((rows, channels))
    planted = normal.copy()
    planted[:, 5] *= 60
    first = normal.copy()
    first[0] *= 300
    heavy = normal * np.exp(1.5 * generator.standard_normal((rows, channels)))
    zero_row = normal.copy()
    zero_row[2] = 0
    zero_row[:, 32:64] = 0
    found = {
        "normal": normal,
        "planted": planted,
        "first row": first,
        "heavy": heavy,
        "zeros": np.zeros((rows, channels)),
        "zero row": zero_row,
        "alike": np.full((rows, channels), 3.25),
        "positive": np.abs(heavy) + 1,
        "one row": normal[:1],
        "one channel": normal[:, :1],
        "small": normal * 1e-30,
        "huge": normal * 1e30,
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def assert_rounded(found: torch.Tensor, exact: np.ndarray, x: np.ndarray) -> None:
    """Hold float32 to float64: the same but for the last bits, or, where a value lies at a tie, the next step."""
    found_N, exact_N = found.double().numpy().ravel(), exact.ravel()
    assert np.isfinite(found_N).all()
    scale = np.abs(exact_N).max() or 1.0
    is_same_N = np.abs(found_N - exact_N) <= 2e-6 * np.maximum(np.abs(exact_N), 1e-3 * scale)
    assert is_same_N.mean() > 0.998 or (~is_same_N).sum() <= 2, f"{(~is_same_N).sum()} of {len(is_same_N)}"
    # at a tie both neighbours are as near
    error_N = [np.abs(each - x.astype(np.float64).ravel()) for each in (found_N, exact_N)]
    np.testing.assert_allclose(error_N[0][~is_same_N], error_N[1][~is_same_N], rtol=2e-3, atol=2e-6 * scale)
