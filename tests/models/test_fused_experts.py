"""Expert banks are known by multiplying what is sent to them, whatever they and their parameters are called."""

import pytest
import torch
from families import COMMON, ROUTED, Family, random_model
from outlier_features.errors import ArchitectureError
from outlier_features.models import architectures, fused_experts, parameters
from outlier_features.models.fused_experts import is_fused
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru
from transformers.models.zamba.modeling_zamba import ZambaMambaMixer

EXPERTS, WIDTH, INNER = 4, 8, 6


class Stacks(nn.Module):
    """Holds two stacks of matrices under names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH))
        self.b = nn.Parameter(torch.randn(EXPERTS, WIDTH, INNER))


class Loop(Stacks):
    def forward(self, x: torch.Tensor, which: torch.Tensor, much: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        for expert in which.unique():
            row, place = torch.where(which == expert)
            y[row] += (x[row] @ self.a[expert].T).relu() @ self.b[expert].T * much[row, place, None]
        return y


class Gathered(Stacks):
    def forward(self, x: torch.Tensor, which: torch.Tensor | None = None, much: torch.Tensor | None = None):
        hidden = torch.einsum("tkiw,tw->tki", self.a[which], x).relu()
        return torch.einsum("tkwi,tki,tk->tw", self.b[which], hidden, much)


class Heads(Stacks):
    """Matrices of heads: every token passes all of them, whatever else it is handed."""

    def forward(self, x: torch.Tensor, state: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        return torch.einsum("hwi,hiv,tv->tw", self.b, self.a, x) * 1.0


class Masked(Stacks):
    """Mixes positions; a mask of integers is no choice."""

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return torch.einsum("hwi,hiv,tv->tw", self.b, self.a, x * attention_mask) * scale


class Rotated(Stacks):
    """Handed three tensors it cannot run without, by none of which it picks."""

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return torch.einsum("hwi,hiv,tv->tw", self.b, self.a, x * cos + x.flip(-1) * sin)


class Shared(Stacks):
    def forward(self, x: torch.Tensor, much: torch.Tensor) -> torch.Tensor:
        return torch.einsum("hwi,hiv,tv,th->tw", self.b, self.a, x, much)


class Vectors(nn.Module):
    """What RWKV mixes a token with the one before by: vectors with two axes of one element."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(1, 1, WIDTH)) for _ in range(2))

    def forward(self, x: torch.Tensor, which: torch.Tensor, much: torch.Tensor) -> torch.Tensor:
        return x * self.a[which] + much @ self.b[which]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Loop, True),
        (Gathered, True),
        (Heads, False),
        (Masked, False),
        (Rotated, False),
        (Shared, False),
        (Vectors, False),
    ],
)
def test_a_bank_multiplies_with_the_experts_a_token_is_sent_to(kind: type, expected: bool, device: str) -> None:
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), kind()).to(device)
    assert (fused_experts.of_block(block) is block[1]) == expected


def test_looking_changes_nothing_and_runs_no_hook() -> None:
    bank = Loop()
    before = {name: tensor.clone() for name, tensor in bank.named_parameters()}
    bank.register_forward_pre_hook(lambda *_: pytest.fail("a hook ran"))
    bank.forward = lambda *_: pytest.fail("what was put in the place of its forward ran")  # as experts.observed does
    assert is_fused(bank)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bank.named_parameters())


def tiny(model_type: str, **fields: object) -> PreTrainedModel:
    return architectures.skeleton(AutoConfig.for_model(model_type, **(COMMON | fields)))


def test_no_block_of_rwkv_holds_experts() -> None:
    model = tiny("rwkv", attention_hidden_size=32)
    assert [fused_experts.of_block(block) for block in architectures.decoder_blocks(model)[1]] == [None] * 3
    assert parameters.count(model).facts()["kind"] == "dense"


def test_mixers_with_a_matrix_a_head_hold_no_experts() -> None:
    zamba = AutoConfig.for_model("zamba", hidden_size=32, num_attention_heads=4, n_mamba_heads=2, mamba_dt_rank=4)
    gemma = AutoConfig.for_model("recurrent_gemma", **(COMMON | {"lru_width": 32}))
    assert not is_fused(ZambaMambaMixer(zamba, 0))
    assert not is_fused(RecurrentGemmaRglru(gemma))


def test_a_convolution_beside_experts_is_none() -> None:
    model = random_model(Family("qwen3_next", COMMON | ROUTED | {"num_hidden_layers": 1}), 0, {})
    names = [name for name, module in model.named_modules() if is_fused(module)]
    assert names == ["model.layers.0.mlp.experts"]


def test_shared_experts_do_not_stand_for_the_routed_ones() -> None:
    fields = {"num_hidden_layers": 2, "n_routed_experts": 4, "n_shared_experts": 2, "num_experts_per_tok": 2}
    model = architectures.skeleton(AutoConfig.for_model("inkling_text", **(COMMON | fields)))
    banks = {type(fused_experts.of_block(block)).__name__ for block in architectures.decoder_blocks(model)[1]}
    assert banks <= {"InklingExperts", "NoneType"}
    assert "InklingExperts" in banks


@pytest.mark.parametrize("model_type", ["llama4_text", "jetmoe"])
def test_experts_that_are_not_handed_choices_are_refused_and_not_called_dense(model_type: str) -> None:
    fields = {"num_local_experts": 4, "num_experts_per_tok": 1, "kv_channels": 8, "intermediate_size_mlp": 64}
    with pytest.raises(ArchitectureError, match=r"Experts holds matrices of 4 experts, but is not handed which"):
        parameters.count(tiny(model_type, **fields))
