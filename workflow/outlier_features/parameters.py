"""Parameter counts of a model, total and active, from its modules alone (on the meta device nothing is read)."""

from dataclasses import asdict, dataclass

from torch import nn
from transformers import PreTrainedModel

from outlier_features.errors import ArchitectureError
from outlier_features.sites import expert_bank, expert_count

TOP_K_KEYS = ("num_experts_per_tok", "top_k_experts", "moe_top_k", "moe_k", "num_selected_experts")
"""Under these names configurations say how many experts a token is sent to."""


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, and how many one token passes through (tied weights once).

    Publishers count active parameters in three ways, so all are given. `experts` and `top_k` are None in dense models.
    """

    total_params: int
    active_params: int
    active_params_without_embedding: int
    active_params_without_embedding_and_head: int
    experts: int | None
    top_k: int | None

    @property
    def kind(self) -> str:
        """`moe` or `dense`."""
        return "dense" if self.experts is None else "moe"

    def facts(self) -> dict[str, int | str | float | None]:
        """Return the counts as plain values, with kind and sparsity (active / total)."""
        return {"kind": self.kind, **asdict(self), "sparsity": self.active_params / self.total_params}


def count(model: PreTrainedModel, blocks: nn.ModuleList) -> ParameterCounts:
    """Count the parameters of a model with these decoder blocks. Raises ArchitectureError if top-k is not told."""
    banks = [bank for bank in map(expert_bank, blocks) if bank is not None]
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = expert_count(banks[0]) if banks else None
    top_k = _top_k(model) if banks else None
    idle = sum(_size(bank) * (expert_count(bank) - (top_k or 0)) // expert_count(bank) for bank in banks)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    tied = head is None or head.weight is embedding
    without_embedding = total - idle - (0 if tied else embedding.numel())
    without_head = total - idle - embedding.numel() - (0 if tied else head.weight.numel())
    return ParameterCounts(total, total - idle, without_embedding, without_head, experts, top_k)


def _size(bank: nn.Module) -> int:
    return sum(parameter.numel() for parameter in bank.parameters(recurse=False))


def _top_k(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    for key in TOP_K_KEYS:
        if isinstance(getattr(config, key, None), int):
            return int(getattr(config, key))
    raise ArchitectureError(
        f"{type(model).__name__} has experts, but its configuration does not say how many a token is sent to "
        f"(looked for {', '.join(TOP_K_KEYS)})."
    )
