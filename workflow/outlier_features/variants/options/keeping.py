"""Keeping: channels that stay in 16 bit, with the matrices' original columns; scales are over the rest only."""

# Shapes: R row of a window, O output channel, C channel that a product sums over.

from dataclasses import dataclass

import torch

from outlier_features.variants.options import kept
from outlier_features.variants.options.treatment import Treatment


@dataclass
class Keeping(Treatment):
    """Keeps the channels that `chosen` says; all of a matrix input's windows keep the same unless it says otherwise."""

    def chosen(self, whole_RC: torch.Tensor | None) -> torch.Tensor:
        """Return which channels stay (C,)."""
        raise NotImplementedError

    def input(self, x_RC: torch.Tensor, whole_RC: torch.Tensor) -> torch.Tensor:
        """Return the input with the kept channels as they are."""
        if self.activations is None:
            return x_RC
        return kept.quantised_rest(self.activations, x_RC, whole_RC, self.chosen(whole_RC))

    def learn(self, whole_RC: torch.Tensor) -> None:
        """Take in a calibration window without the kept channels."""
        super().learn(whole_RC[:, ~self.chosen(whole_RC)])

    def weights(self, w: torch.Tensor, whole_RC: torch.Tensor | None = None) -> torch.Tensor:
        """Return a matrix with the columns of kept channels as they are."""
        if self.format.weights is None:
            return w
        return kept.quantised_rest(self.format.weights, w, w, self.chosen(whole_RC))

    def kept(self, whole_RC: torch.Tensor) -> int:
        """Return how many channels of a window stay in 16 bit."""
        return int(self.chosen(whole_RC).sum())


@dataclass
class KeepAbove(Keeping):
    """LLM.int8()'s decomposition: channels with any |x| above a threshold in this window stay."""

    threshold: float
    is_by_window = True

    def chosen(self, whole_RC: torch.Tensor | None) -> torch.Tensor:
        """Return the channels above the threshold."""
        assert whole_RC is not None
        return kept.above(whole_RC, self.threshold)


@dataclass
class KeepChannels(Keeping):
    """The channels of largest |x| over the calibration windows stay."""

    count: int

    def chosen(self, whole_RC: torch.Tensor | None) -> torch.Tensor:
        """Return the largest channels."""
        return kept.largest(self.known.largest_C, self.count)


@dataclass
class KeepOne(Keeping):
    """One channel stays: what it gains is what that channel costs."""

    channel: int

    def chosen(self, whole_RC: torch.Tensor | None) -> torch.Tensor:
        """Return that channel."""
        is_kept_C = torch.zeros_like(self.known.largest_C, dtype=torch.bool)
        is_kept_C[self.channel] = True
        return is_kept_C
