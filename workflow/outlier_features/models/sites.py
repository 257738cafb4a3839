"""Sites: where in a decoder block activations are read, found by what consumes the tensor.

Attention is the part of a block that is handed a mask or a cache; the MLP is the other part that holds matrices; the
output projection is the last matrix of the attention. No name of a class or of a norm is looked at, so a new
architecture costs nothing unless its structure is ambiguous.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from outlier_features.errors import ArchitectureError
from outlier_features.models.fused_experts import MIXES_POSITIONS, arguments
from outlier_features.site_names import SiteName


@dataclass(frozen=True)
class Probe:
    """One tensor to observe: the input or the output of `module`."""

    site: SiteName
    module: nn.Module
    reads_output: bool = False


def probes(block: nn.Module, sites: Sequence[SiteName]) -> list[Probe]:
    """Return where each of `sites` is read in `block`. Raises ArchitectureError if the structure does not tell."""
    finders: dict[SiteName, Callable[[nn.Module], Probe]] = {
        "attn_in": lambda block: Probe("attn_in", attention(block)),
        "out_proj_in": lambda block: Probe("out_proj_in", output_projection(block)),
        "mlp_in": lambda block: Probe("mlp_in", mlp(block)),
        "residual": lambda block: Probe("residual", block, reads_output=True),
    }
    return [finders[site](block) for site in sites]


def attention(block: nn.Module) -> nn.Module:
    """Return the attention, or linear attention, of `block`: the child that is handed a mask or a cache."""
    found = [child for child in block.children() if MIXES_POSITIONS & set(arguments(child))]
    if len(found) != 1:
        raise ArchitectureError(
            f"{type(block).__name__} has {len(found)} parts that take a mask or a cache where one attention was "
            f"expected ({_names(found)}); choose a model whose blocks have one attention each."
        )
    return found[0]


def mlp(block: nn.Module) -> nn.Module:
    """Return the part of `block` that reads the MLP's input: its first child with matrices that is no attention."""
    mixer = attention(block)
    found = [child for child in block.children() if child is not mixer and _has_matrix(child)]
    if not found:
        raise ArchitectureError(
            f"{type(block).__name__} has no part with matrices beside its attention; "
            "leave mlp_in out of capture.sites, or choose a model with MLPs."
        )
    return found[0]


def output_projection(block: nn.Module) -> nn.Module:
    """Return the last matrix of the attention of `block`."""
    matrices = [module for module in attention(block).modules() if _is_matrix(module)]
    if not matrices:
        raise ArchitectureError(
            f"the attention of {type(block).__name__} holds no matrix; leave out_proj_in out of capture.sites."
        )
    return matrices[-1]


def _has_matrix(module: nn.Module) -> bool:
    return any(p.dim() >= 2 for p in module.parameters())


def _is_matrix(module: nn.Module) -> bool:
    return any(p.dim() == 2 for p in module.parameters(recurse=False))


def _names(modules: Sequence[nn.Module]) -> str:
    return ", ".join(type(module).__name__ for module in modules) or "none"
