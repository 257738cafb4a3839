"""Checkpoint names: a module is called what the keys of its checkpoint call it."""

import pytest
from outlier_features.models.tensor_names import in_checkpoint


@pytest.mark.parametrize(
    ("module", "keys", "expected"),
    [
        ("mlp.gate", ["model.layers.4.block_sparse_moe.gate.weight"], "block_sparse_moe.gate"),
        ("mlp.gate", ["language_model.model.layers.4.moe.gate.weight", "model.layers.4.moe.gate.bias"], "moe.gate"),
        ("attn.qkv", ["model.layers.4.attn.q.weight", "model.layers.4.attn.k.weight"], "attn.qkv"),  # fused here only
        ("mlp.experts", [f"model.layers.4.moe.experts.{i}.w{k}.weight" for i in (0, 1) for k in (1, 2)], "moe.experts"),
        ("mlp.gate", ["transformer.h.4.moe.gate.weight"], "mlp.gate"),  # another list of blocks
        ("mlp.gate", [], "mlp.gate"),
    ],
)
def test_a_module_has_the_name_of_its_keys_or_its_own(module: str, keys: list[str], expected: str) -> None:
    assert in_checkpoint(module, keys, "model.layers.4") == expected
