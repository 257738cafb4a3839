"""Parameter counts: which parameters are those of experts, known from what a forward pass does with them."""

import pytest
from families import COMMON
from outlier_features.errors import ArchitectureError
from outlier_features.models import architectures, fused_experts, parameters
from transformers import AutoConfig, PreTrainedModel


def tiny(model_type: str, **fields: object) -> PreTrainedModel:
    return architectures.skeleton(AutoConfig.for_model(model_type, **(COMMON | fields)))


def test_no_block_of_rwkv_holds_experts() -> None:
    model = tiny("rwkv", attention_hidden_size=32)
    assert [fused_experts.of_block(block) for block in architectures.decoder_blocks(model)[1]] == [None] * 3
    assert parameters.count(model).facts()["kind"] == "dense"


@pytest.mark.parametrize("model_type", ["llama4_text", "jetmoe"])
def test_experts_that_are_not_handed_choices_are_refused_and_not_called_dense(model_type: str) -> None:
    fields = {"num_local_experts": 4, "num_experts_per_tok": 1, "kv_channels": 8, "intermediate_size_mlp": 64}
    with pytest.raises(ArchitectureError, match=r"Experts holds matrices of 4 experts, but is not handed which"):
        parameters.count(tiny(model_type, **fields))
