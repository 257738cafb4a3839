"""Parameter counts of a model, total and active, from its modules alone (on the meta device nothing is read)."""

from dataclasses import asdict, dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from outlier_features.errors import ArchitectureError
from outlier_features.models import fused_experts
from outlier_features.models.architectures import decoder_blocks, other_parts
from outlier_features.models.fused_experts import expert_count, is_stack

TOP_K_KEYS = ("num_experts_per_tok", "top_k_experts", "moe_top_k", "moe_k", "num_selected_experts")
"""Under these names configurations say how many experts a token is sent to."""


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, and how many one token passes through (tied weights once).

    Publishers count active parameters in three ways, so all are given. Of a vision-language model the text part is
    counted. `experts` (routed, per block), `top_k` and `shared_experts` are None in dense models.
    """

    total_params: int
    active_params: int
    active_params_without_embedding: int
    active_params_without_embedding_and_head: int
    embedding_params: int
    """Of the input table; a head that is not tied to it has as many again."""
    expert_params: int
    """Of all routed experts of all blocks."""
    experts: int | None
    top_k: int | None
    shared_experts: int | None

    @property
    def kind(self) -> str:
        """`moe` or `dense`."""
        return "dense" if self.experts is None else "moe"

    def facts(self) -> dict[str, int | str | float | None]:
        """Return the counts as plain values, with kind and sparsity (active / total)."""
        return {"kind": self.kind, **asdict(self), "sparsity": self.active_params / self.total_params}


def count(model: PreTrainedModel) -> ParameterCounts:
    """Count the parameters of a model, on any device.

    Raises ArchitectureError if top-k is not told, or for experts that are not run as routed ones.
    """
    _, blocks = decoder_blocks(model)
    unread = other_parts(model)
    all_fused = [fused for fused in map(fused_experts.of_block, blocks) if fused is not None]
    if not all_fused:
        _refuse_other_experts(model, blocks)
    total = sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(unread))
    experts = expert_count(all_fused[0]) if all_fused else None
    routed_to = top_k(model.config.get_text_config()) if all_fused else None
    idle = sum(_size(fused) * (expert_count(fused) - (routed_to or 0)) // expert_count(fused) for fused in all_fused)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    head_params = 0 if head is None or head.weight is embedding else head.weight.numel()
    table = embedding.numel() if head_params else 0  # one that is tied serves as the head too
    return ParameterCounts(
        total_params=total,
        active_params=total - idle,
        active_params_without_embedding=total - idle - table,
        active_params_without_embedding_and_head=total - idle - embedding.numel() - head_params,
        embedding_params=embedding.numel(),
        expert_params=sum(map(_size, all_fused)),
        experts=experts,
        top_k=routed_to,
        shared_experts=_shared_experts(model) if all_fused else None,
    )


def _refuse_other_experts(model: PreTrainedModel, blocks: nn.ModuleList) -> None:
    """Raise ArchitectureError where matrices of as many experts as the configuration names belong to no fused."""
    named = model.config.get_text_config().to_dict().items()
    numbers = {value for name, value in named if "expert" in name and type(value) is int and value > 1}
    for module in blocks.modules():
        own = [p for p in module.parameters(recurse=False) if is_stack(p) and p.shape[0] in numbers]
        if own and not isinstance(module, nn.Conv1d):
            raise ArchitectureError(
                f"{type(model).__name__}: {type(module).__name__} holds matrices of {own[0].shape[0]} experts, but is "
                "not handed which of them each token is sent to; mixtures of experts of this kind cannot be measured."
            )


def _size(fused: nn.Module) -> int:
    return sum(parameter.numel() for parameter in fused.parameters(recurse=False))


def _shared_experts(model: PreTrainedModel) -> int:
    """Return how many experts beside the routed ones every token passes, as the configuration tells."""
    config = model.config.get_text_config()
    found = getattr(config, "n_shared_experts", None) or getattr(config, "num_shared_experts", None)
    return int(found or bool(getattr(config, "shared_expert_intermediate_size", None)))


def top_k(config: PreTrainedConfig) -> int:
    """Return how many routed experts a token is sent to. Raises ArchitectureError if that is not told."""
    for key in TOP_K_KEYS:
        if isinstance(getattr(config, key, None), int):
            return int(getattr(config, key))
    raise ArchitectureError(
        f"{config.model_type} has experts, but its configuration does not say how many a token is sent to "
        f"(looked for {', '.join(TOP_K_KEYS)})."
    )
