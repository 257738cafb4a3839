"""Static: asymmetric int8 with a range that is frozen after calibration, as in He et al. (2024)."""

from typing import Self

import numpy as np
import torch

from outlier_features.errors import ConfigError

TAIL = 1e-5
"""The share of a window's values beyond either end of its range."""
MOMENTUM = 0.9
"""Of the running mean of the ends."""
STEPS = 255


class StaticRange:
    """One matrix input's range of 0 ... 255, in use while it is learnt; 0 is always inside."""

    is_blocked = False

    def __init__(self) -> None:
        self._ends: tuple[float, float] | None = None

    def begin(self) -> Self:
        """Return one for a matrix input, which knows no range yet."""
        return type(self)()

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end. Raises ConfigError before a window was learnt."""
        if self._ends is None:
            raise ConfigError("w8a8_static: no calibration window came before this one; give windows.")
        return min(self._ends[0], 0.0), max(self._ends[1], 0.0)

    def learn(self, whole: torch.Tensor) -> None:
        """Move the ends towards the percentiles of a calibration window."""
        if whole.numel() == 0:
            return
        values = whole.detach().float().cpu().numpy()
        low, high = (float(end) for end in np.quantile(values, [TAIL, 1 - TAIL]))
        if self._ends is None:
            self._ends = low, high
        else:
            before = self._ends
            self._ends = (
                MOMENTUM * before[0] + (1 - MOMENTUM) * low,
                MOMENTUM * before[1] + (1 - MOMENTUM) * high,
            )

    def round_trip(self, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Return `x` as it comes back."""
        low, high = self.ends
        scale = torch.tensor((high - low) / STEPS, dtype=torch.float32, device=x.device)
        if scale == 0:  # also where float32 has no step so small
            return x.clamp(0, 0)
        # a tensor on the left: the reciprocal of a subnormal step is infinite
        zero = (torch.full_like(scale, -low) / scale).round()
        return (((x / scale).round() + zero).clamp(0, STEPS) - zero) * scale
