"""What an engine asks of an observer, the windows it runs, and the logits it gives."""

import numpy as np
import torch
from outlier_features.capture import engine
from outlier_features.models.weights import Weights


class Silent:
    """Observes nothing."""

    def begin(self, block: int, reading: object) -> None: ...

    def turn(self, block: int, variant: int) -> None: ...

    def enter(self, block: int, window: int) -> None: ...

    def passed(self, block: int, window: int) -> None: ...

    def leave(self, block: int, outputs: object) -> None: ...


def windows_of(ids: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(row).long() for row in ids]


def logits_of(weights: Weights, ids: np.ndarray) -> list[torch.Tensor]:
    return engine.run(weights, windows_of(ids), lambda _, logits: logits.clone(), Silent())
