"""Treatment: what a format, and an option where there is one, do to one matrix input and the matrices that read it."""

# Shapes: R row of a window, O output channel, C channel that a product sums over.

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from outlier_features.planning.varied import LARGEST_PIECE
from outlier_features.variants.formats.format import Format, Quantiser


@dataclass(frozen=True)
class Known:
    """What the plain model's calibration windows showed of one matrix input, and the matrices that read it."""

    site: str
    largest_C: torch.Tensor
    """The largest |x| of each channel, float32."""
    largest_weight_C: Callable[[], torch.Tensor]
    """Returns the largest |w| of each channel over all matrices, float32."""


@dataclass
class Treatment:
    """A format without an option; options override what they change. All tensors are float32."""

    format: Format
    known: Known
    activations: Quantiser | None = field(init=False)
    is_by_window = False
    """Whether matrices depend on the window."""

    def __post_init__(self) -> None:
        quantiser = self.format.activations
        self.activations = quantiser.begin() if self.format.needs_calibration else quantiser  # type: ignore[union-attr]

    def learn(self, whole_RC: torch.Tensor) -> None:
        """Take in a calibration window, where the format has a range to learn."""
        if self.format.needs_calibration:
            self.activations.learn(whole_RC)  # type: ignore[union-attr]

    def input(self, x_RC: torch.Tensor, whole_RC: torch.Tensor) -> torch.Tensor:
        """Return what matrices are handed in place of `x_RC`, some rows of the window `whole_RC`."""
        return x_RC if self.activations is None else self.activations.round_trip(x_RC, whole_RC)

    def weights(self, w: torch.Tensor, whole_RC: torch.Tensor | None = None) -> torch.Tensor:
        """Return a matrix (..., O, C) as it comes back; `whole_RC` is the window, where `is_by_window`."""
        return w if self.format.weights is None else self.format.weights.round_trip(w, w)

    def back(self, x_RC: torch.Tensor) -> torch.Tensor:
        """Return an input that `input` returned in the model's coordinates."""
        return x_RC

    def kept(self, whole_RC: torch.Tensor) -> int:
        """Return how many channels of a window stay in 16 bit."""
        return 0


def in_pieces(round_trip: Callable[[torch.Tensor], torch.Tensor], w: torch.Tensor) -> torch.Tensor:
    """Return a matrix, or those of experts, rounded in float32 and cast back, some experts at a time."""
    if w.dim() < 3:
        return round_trip(w.float()).to(w.dtype)
    out = torch.empty_like(w)
    count = max(1, LARGEST_PIECE // w[0].numel())
    for begin in range(0, len(w), count):
        out[begin : begin + count] = round_trip(w[begin : begin + count].float()).to(w.dtype)
    return out
