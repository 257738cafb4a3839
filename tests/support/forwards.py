"""A model run block by block and as transformers runs it, with what each site saw."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from number_formats import plain
from observers import Silent
from outlier_features.capture import engine
from outlier_features.capture.hooks import observed
from outlier_features.models import architectures, sites
from outlier_features.models.weights import Weights
from outlier_features.site_names import POSITIONAL
from torch import nn
from transformers import PreTrainedModel

CPU = torch.device("cpu")
READERS: dict[str, tuple[str, ...]] = {
    "attn_in": (
        "self_attn.q_proj",
        "self_attn.q_a_proj",
        "linear_attn.in_proj_qkvz",
        "attention.query_key_value",
        "attn.c_attn",
        "attn.q_proj",
    ),
    "out_proj_in": (
        "self_attn.o_proj",
        "linear_attn.out_proj",
        "self_attn.out_proj",
        "attention.dense",
        "attn.c_proj",
        "attn.out_proj",
    ),
    "mlp_in": ("mlp.gate", "mlp.router", "mlp.gate_proj", "mlp.dense_h_to_4h", "mlp.c_fc", "mlp.fc_in", "fc1"),
}
"""The matrices that read each site, by the names the architectures give them; the library knows none of these."""
Seen = dict[tuple[int, str], list[torch.Tensor]]


def run_engine(weights: Weights, windows: list[torch.Tensor]) -> tuple[Seen, list[torch.Tensor]]:
    """Return what the probes see, and the logits, when the engine runs block by block."""
    seen: Seen = defaultdict(list)
    with ExitStack() as hooks:
        for index, block in enumerate(weights.blocks):
            hooks.enter_context(observed(sites.probes(block, POSITIONAL), keep(seen, index)))
        logits = engine.run(weights, windows, lambda _, logits: logits.clone(), Silent())
    return seen, logits


def keep(seen: Seen, block: int) -> Callable[[str, torch.Tensor], None]:
    return lambda site, x: seen[block, site].append(x.clone())


@torch.inference_mode()
def run_ordinary(full: PreTrainedModel, windows: list[torch.Tensor]) -> tuple[Seen, list[torch.Tensor]]:
    """Return the same from an ordinary forward, the sites read at the matrices that `READERS` names.

    The output of a block is what the next block, or the norm at the end, receives.
    """
    _, blocks = architectures.decoder_blocks(full)
    seen: Seen = defaultdict(list)
    with ExitStack() as hooks:
        for index, block in enumerate(blocks):
            for site, names in READERS.items():
                hooks.callback(spy(first_of(block, names), seen, (index, site)).remove)
            hooks.callback(block.register_forward_hook(returned(seen, (index, "residual"))).remove)
        logits = [full(input_ids=window[None].to(full.device), use_cache=False).logits[0] for window in windows]
    return seen, logits


def whole_model(checkpoint: Path, dtype: torch.dtype, device: torch.device = CPU) -> PreTrainedModel:
    """Return the model as transformers loads it from the tensors that the checkpoint stands for."""
    config = architectures.read(checkpoint)
    automatic = architectures.automatic(config)
    return automatic.from_pretrained(plain(checkpoint), dtype=dtype, device_map={"": device}).eval()


def first_of(block: nn.Module, names: tuple[str, ...]) -> nn.Module:
    modules = dict(block.named_modules())
    return next(modules[name] for name in names if name in modules)


def spy(module: nn.Module, seen: Seen, key: tuple[int, str]):
    def before(_module: nn.Module, args: tuple) -> None:
        seen[key].append(args[0].reshape(-1, args[0].shape[-1]).clone())

    return module.register_forward_pre_hook(before)


def returned(seen: Seen, key: tuple[int, str]) -> Callable:
    def after(_module: nn.Module, _args: tuple, output: object) -> None:
        x = output if isinstance(output, torch.Tensor) else output[0]
        seen[key].append(x.reshape(-1, x.shape[-1]).clone())

    return after
