"""Every family of the sweep runs through the same engine and probes, with nothing per architecture."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from outlier_features import engine, parameters, sites
from outlier_features.weights import Weights
from test_engine import Silent
from transformers import AutoConfig, AutoModelForCausalLM

COMMON = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
ROUTED = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GROUPED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 4,
}
GPT = {"vocab_size": 160, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "bos_token_id": None}
GPT |= {"eos_token_id": None}

DENSE = {
    "llama": COMMON,
    "qwen3": COMMON,
    "gemma3_text": COMMON,
    "olmo2": COMMON | {"pad_token_id": None},
    "gpt_neox": COMMON,
    "opt": COMMON | {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 4},
}
MOE = {
    "olmoe": COMMON | ROUTED,
    "mixtral": COMMON | ROUTED,
    "qwen3_moe": COMMON | ROUTED,
    "gpt_oss": COMMON | ROUTED,
    "qwen3_next": COMMON | ROUTED | LINEAR,
    "glm4_moe": COMMON | ROUTED | GROUPED,
    "deepseek_v3": COMMON | ROUTED | GROUPED | LATENT,
}


@pytest.mark.parametrize("family", [*DENSE, *MOE])
def test_logits_are_those_of_the_ordinary_forward_and_no_site_is_empty(family: str, tmp_path: Path) -> None:
    architecture = (DENSE | MOE)[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **architecture)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    windows = list(torch.randint(0, 160, (2, 24)))

    weights = Weights(tmp_path, torch.float32, torch.device("cpu"))
    rows: Counter[tuple[int, str]] = Counter()
    with ExitStack() as hooks:
        for index, block in enumerate(weights.blocks):
            probes = sites.probes(block, sites.SITES)
            hooks.enter_context(sites.observed(probes, count_rows(rows, index)))
        found = engine.run(weights, windows, lambda _, logits: logits.clone(), Silent())

    full = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        for window, logits in zip(windows, found, strict=True):
            assert torch.equal(full(input_ids=window[None], use_cache=False).logits[0], logits)
    assert rows == {(block, site): 48 for block in range(len(weights.blocks)) for site in sites.SITES}
    assert parameters.count(weights.model, weights.blocks).kind == ("moe" if family in MOE else "dense")


def count_rows(rows: Counter, block: int):
    def record(site: str, x: torch.Tensor) -> None:
        rows[block, site] += len(x)

    return record
