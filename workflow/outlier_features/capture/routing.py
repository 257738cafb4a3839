"""Routing: which experts a router chooses, and by how much the last chosen one leads the first that is not.

The choices are what fused experts are handed. The scores are those of the top-k that made the choice, seen while the
parts of the block run; where a bias or groups of experts decide as well, the lead is brought back to logits by the
slope p (1 - p) of the probabilities, that of a sigmoid or of a softmax.
"""

# Shapes: T position, k expert a token is routed to, E expert.

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from outlier_features.capture.hooks import replaced
from outlier_features.errors import ArchitectureError
from outlier_features.models import sites
from outlier_features.models.fused_experts import expert_count

TOP, PROBABILITIES = ("topk",), ("softmax", "sigmoid")


@dataclass(frozen=True)
class Choice:
    """What fused experts were handed for one window."""

    experts_Tk: torch.Tensor
    weights_Tk: torch.Tensor | None
    """What the outputs of the experts are multiplied by; None where the experts are not handed it."""
    margin_T: torch.Tensor | None
    """Logit of the last chosen expert minus that of the first unchosen; None where no top-k made the choice."""
    logits_TE: torch.Tensor | None
    """What the router said of every expert, before probabilities; None where no top-k made the choice."""


@contextmanager
def observed(block: nn.Module, fused: nn.Module, record: Callable[[Choice], None]) -> Iterator[None]:
    """Call `record` whenever the fused experts of a block are about to run while the context is open."""
    scores = _Scores(expert_count(fused))
    mixer = sites.attention(block)

    def watched(forward: Callable) -> Callable:
        def watching(*args: Any, **kwargs: Any) -> Any:
            with _Watch(scores):
                return forward(*args, **kwargs)

        return watching

    with ExitStack() as stack:
        for child in block.children():
            if child is not mixer and child is not fused and any(True for _ in child.parameters()):
                stack.enter_context(replaced(child, watched))

        def read(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            experts_Tk, weights_Tk = _handed((*args, *kwargs.values()))
            record(Choice(experts_Tk, weights_Tk, scores.margin(experts_Tk), scores.logits_of(experts_Tk)))
            scores.forget()

        stack.callback(fused.register_forward_pre_hook(read, with_kwargs=True).remove)
        yield


@dataclass
class _Scores:
    """The last top-k over all experts, and the logits behind its scores."""

    experts: int
    logits: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary)
    """For probabilities made of logits, and whatever was made of them in turn, those logits and probabilities."""
    chosen_from: torch.Tensor | None = None
    chosen: torch.Tensor | None = None

    def forget(self) -> None:
        """Let go of what was seen."""
        self.chosen_from = self.chosen = None
        self.logits = WeakTensorKeyDictionary()

    def see(self, name: str, operands: Sequence[Any], output: Any) -> None:
        """Take in one call."""
        tensors = [x for x in operands if isinstance(x, torch.Tensor)]
        if name in TOP and tensors and tensors[0].shape[-1] == self.experts:
            self.chosen_from, self.chosen = tensors[0], output[1]
        elif isinstance(output, torch.Tensor) and output.is_floating_point() and output.shape[-1:] == (self.experts,):
            known = [self.logits[x] for x in tensors if x in self.logits]
            if known:
                self.logits[output] = known[0]
            elif name in PROBABILITIES and tensors:
                self.logits[output] = tensors[0], output.detach()

    def logits_of(self, experts_Tk: torch.Tensor) -> torch.Tensor | None:
        """Return the logits behind this choice (T, E), float32; None unless a top-k made it."""
        if self.chosen is None or self.chosen_from is None or not _is_same(self.chosen, experts_Tk):
            return None
        logits, _ = self.logits.get(self.chosen_from, (self.chosen_from, None))
        return logits.detach().reshape(-1, self.experts).float()

    def margin(self, experts_Tk: torch.Tensor) -> torch.Tensor | None:
        """Return the lead of each position's last chosen expert (T,) in logits; None unless a top-k made the choice."""
        logits_TE = self.logits_of(experts_Tk)
        if logits_TE is None or self.chosen_from is None:
            return None
        scores_TE = self.chosen_from.detach().reshape(-1, self.experts).float()
        is_chosen_TE = torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(1, experts_Tk.long(), True)
        _, probabilities = self.logits.get(self.chosen_from, (None, None))
        if experts_Tk.shape[1] == self.experts:
            return torch.full((len(scores_TE),), torch.inf, device=scores_TE.device)
        plain_T, _, _ = _lead(logits_TE, is_chosen_TE)
        if probabilities is None:
            return plain_T
        lead_T, last_T, next_T = _lead(scores_TE, is_chosen_TE)
        p_TE = probabilities.reshape(-1, self.experts).float()
        slope_TE = p_TE * (1 - p_TE)
        slopes = [slope_TE.gather(1, place_T[:, None])[:, 0] for place_T in (last_T, next_T)]
        slope_T = ((slopes[0].square() + slopes[1].square()) / 2).sqrt()
        # the host is not asked whether logits decide alone: where they do, their own lead is never negative
        return torch.where((plain_T >= 0).all(), plain_T, lead_T / slope_T)


def _lead(scores_TE: torch.Tensor, is_chosen_TE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the lead of the last chosen over the first unchosen expert, and which these two are, each (T,)."""
    last_T, last_place_T = scores_TE.masked_fill(~is_chosen_TE, torch.inf).min(1)
    next_T, next_place_T = scores_TE.masked_fill(is_chosen_TE, -torch.inf).max(1)
    return last_T - next_T, last_place_T, next_place_T


def _is_same(chosen: torch.Tensor, experts_Tk: torch.Tensor) -> bool:
    """Return whether a top-k chose these experts; the host waits for values only where they lie elsewhere in memory."""
    if chosen.numel() != experts_Tk.numel():
        return False
    return chosen.data_ptr() == experts_Tk.data_ptr() or torch.equal(
        chosen.reshape(experts_Tk.shape).long(), experts_Tk.long()
    )


class _Watch(TorchFunctionMode):
    """Tells `_Scores` of every torch call."""

    def __init__(self, scores: _Scores) -> None:
        super().__init__()
        self._scores = scores

    def __torch_function__(self, function: Callable, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let torch do what the module asks for, and look at it."""
        output = function(*args, **(kwargs or {}))
        self._scores.see(getattr(function, "__name__", ""), (*args, *(kwargs or {}).values()), output)
        return output


def router_distance(matrix_EC: torch.Tensor) -> torch.Tensor:
    """Return the root mean square distance between two rows of a router's matrix, as float64 (1,)."""
    wide_EC = matrix_EC.double()
    spread = (wide_EC - wide_EC.mean(0)).square().sum(1).mean()  # half the mean squared distance, rows with themselves
    return (2 * spread * len(wide_EC) / max(len(wide_EC) - 1, 1)).sqrt()[None]


def _handed(values: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the choices and their weights among the arguments of fused experts."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    choices = next((value for value in tensors if not value.is_floating_point()), None)
    if choices is None:
        raise ArchitectureError("the experts were handed no integer tensor; routing of this model cannot be observed.")
    of_choices = (x for x in tensors if x.is_floating_point() and x.shape == choices.shape)
    return choices, next(of_choices, None)
