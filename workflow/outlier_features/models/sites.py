"""Sites: where in a decoder block activations are read, found by what consumes the tensor.

Attention is the part of a block that is handed a mask or a cache; the MLP is the other part that holds matrices; the
output projection is the last matrix that the attention runs, the down projection the last of the MLP that leads back to
the width of the block, and that of a shared expert likewise. No name of a class or of a norm is looked at, so a new
architecture costs nothing unless its structure is ambiguous. What fused experts and attention functions are handed is
no input of a module: capture/expert_outputs.py and capture/attention.py see it.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts
from outlier_features.models.fused_experts import MIXES_POSITIONS, arguments
from outlier_features.site_names import SiteName


@dataclass(frozen=True)
class Probe:
    """One tensor to observe: the input or the output of `module`."""

    site: SiteName
    module: nn.Module
    reads_output: bool = False


def probes(block: nn.Module, sites: Sequence[SiteName]) -> list[Probe]:
    """Return where each of `sites` that `block` has is read as what a module is handed or returns.

    Raises ArchitectureError if the structure does not tell.
    """
    finders: dict[SiteName, Callable[[nn.Module], nn.Module | None]] = {
        "attn_in": attention,
        "out_proj_in": output_projection,
        "mlp_in": mlp,
        "down_in": down_projection,
        "shared_down_in": shared_down_projection,
        "residual": lambda block: block,
    }
    found = [(site, finders[site](block)) for site in sites if site in finders]
    return [Probe(site, module, reads_output=site == "residual") for site, module in found if module is not None]


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
    """Return the last matrix that the attention of `block` runs."""
    mixer = attention(block)
    matrices = _matrices(mixer)
    if not matrices:
        raise ArchitectureError(
            f"the attention of {type(block).__name__} holds no matrix; leave out_proj_in out of capture.sites."
        )
    # Phi-3, Qwen3.5 and AFMoE declare others after it
    inside = list(_last_called(mixer).modules())
    return next(matrix for matrix in reversed(matrices) if matrix in inside)


def down_projection(block: nn.Module) -> nn.Module | None:
    """Return the last matrix of the MLP of a dense block; None where fused experts hold the down projections."""
    if fused_experts.of_block(block) is not None:
        return None
    first = mlp(block)
    inside = _matrices(first)
    # OPT has the matrices of its MLP side by side in the block
    matrices = inside if len(inside) > 1 else [module for module in block.children() if _is_matrix(module)]
    found = _last_back(matrices, block)
    if found is None:
        raise ArchitectureError(
            f"the MLP of {type(block).__name__} has no matrix back to the width of the block; leave down_in out of "
            "capture.sites."
        )
    return found


def shared_expert(block: nn.Module) -> nn.Module | None:
    """Return what every token passes beside the fused experts of `block`: a part that leads back to its width."""
    experts = fused_experts.of_block(block)
    if experts is None:
        return None
    mixer = set(attention(block).modules())
    beside = (module for module in block.modules() if module not in mixer and experts not in set(module.modules()))
    return next((module for module in beside if _last_back(_matrices(module), block) is not None), None)


def mixture(block: nn.Module) -> nn.Module | None:
    """Return the part of `block` that adds the shared expert to the routed ones; None where the block itself does."""
    both = {fused_experts.of_block(block), shared_expert(block)}
    found = [module for module in block.modules() if module is not block and both <= set(module.modules())]
    return found[-1] if found else None  # the innermost


def shared_down_projection(block: nn.Module) -> nn.Module | None:
    """Return the last matrix of the shared expert of `block`; None where it has none."""
    part = shared_expert(block)
    return None if part is None else _last_back(_matrices(part), block)


def router_matrix(block: nn.Module) -> torch.Tensor | None:
    """Return the matrix (E, C) whose products choose among the fused experts of `block`; None if no one matrix does."""
    found = [matrix for _, matrix in _router_matrices(block)]
    return found[0] if len(found) == 1 else None


def routers(block: nn.Module) -> list[nn.Module]:
    """Return the parts of `block` that hold a matrix (E, C) which chooses among its fused experts."""
    return list(dict.fromkeys(module for module, _ in _router_matrices(block)))


def _router_matrices(block: nn.Module) -> list[tuple[nn.Module, torch.Tensor]]:
    experts = fused_experts.of_block(block)
    if experts is None:
        return []
    count, width = fused_experts.expert_count(experts), _outputs(output_projection(block))
    mixer = set(attention(block).modules())
    return [
        (module, parameter)
        for module in block.modules()
        if module is not experts and module not in mixer
        for parameter in module.parameters(recurse=False)
        if parameter.shape == (count, width)
    ]


def _last_called(module: nn.Module) -> nn.Module:
    """Return the child with a matrix whose call ends last in the code of a module; the module if it calls none itself.

    Of a call within another the outer one ends last, as it does when it runs.
    """
    forward = inspect.unwrap(type(module).forward)
    children = {name: child for name, child in module.named_children() if _matrices(child)}
    try:
        code = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, SyntaxError, TypeError):  # code without its text
        return module
    ends = [
        ((node.end_lineno or 0, node.end_col_offset or 0), node.func.attr)
        for node in ast.walk(code)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
        and node.func.attr in children
    ]
    return children[max(ends)[1]] if ends else module


def _last_back(matrices: Sequence[nn.Module], block: nn.Module) -> nn.Module | None:
    """Return the last of some matrices, the first left out, that is as wide as the block."""
    width = _outputs(output_projection(block))
    return next((matrix for matrix in reversed(matrices[1:]) if _outputs(matrix) == width), None)


def _outputs(matrix: nn.Module) -> int:
    """Return how many outputs a matrix has; GPT-2's Conv1D stores it transposed, and says so by `nf`."""
    named = (getattr(matrix, name, None) for name in ("out_features", "nf"))
    weights = (parameter for parameter in matrix.parameters(recurse=False) if parameter.dim() == 2)
    return int(next((value for value in named if value is not None), next(weights).shape[0]))


def _has_matrix(module: nn.Module) -> bool:
    return any(p.dim() >= 2 for p in module.parameters())


def _matrices(module: nn.Module) -> list[nn.Module]:
    """Return what inside a module is a matrix, in the order it is declared."""
    return [inner for inner in module.modules() if _is_matrix(inner)]


def _is_matrix(module: nn.Module) -> bool:
    return any(p.dim() == 2 for p in module.parameters(recurse=False))


def _names(modules: Sequence[nn.Module]) -> str:
    return ", ".join(type(module).__name__ for module in modules) or "none"
