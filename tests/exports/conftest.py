"""An export of each small model, shared by the tests of what is in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import Exported, consumers
from outlier_features.capture.run import capture
from outlier_features.site_names import SITES
from small_models import LENGTH, capture_settings
from torch import nn
from transformers import AutoModelForCausalLM

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def captured(checkpoints: dict[str, Path], tokens: Path, tmp_path_factory) -> dict[str, Path]:
    """The manifest of a capture of each small model that keeps every site."""
    folder = tmp_path_factory.mktemp("captured")
    settings = capture_settings(sites=tuple(SITES))
    for kind in checkpoints:
        capture(checkpoints[kind], tokens, folder / f"{kind}.json", settings, {"statistics": "test"})
    return {kind: folder / f"{kind}.json" for kind in checkpoints}


@pytest.fixture(scope="session")
def exported(captured: dict[str, Path], tokens: Path, tmp_path_factory) -> dict[str, Exported]:
    return {kind: Exported(tmp_path_factory.mktemp(kind), [path], tokens) for kind, path in captured.items()}


def keep(seen: list[np.ndarray]) -> Callable[[Any, tuple], None]:
    return lambda _module, args: seen.append(args[0].reshape(LENGTH, -1).double().numpy())


def keep_experts(seen: dict[str, list[np.ndarray]], name: str) -> Callable[[nn.Module, tuple], None]:
    """Keep what the matrices of each expert read, computed from its own matrices for the tokens it was sent."""

    def before(bank: nn.Module, args: tuple) -> None:
        x, choices_Tk, weights_Tk = args
        x_TC = x.reshape(LENGTH, -1)
        for expert in range(len(bank.down_proj)):
            is_sent_T = (choices_Tk == expert).any(1)
            gate, up = nn.functional.linear(x_TC[is_sent_T], bank.gate_up_proj[expert]).chunk(2, dim=-1)
            hidden = nn.functional.silu(gate) * up
            output = nn.functional.linear(hidden, bank.down_proj[expert]).double().norm(dim=1)
            weight = (weights_Tk * (choices_Tk == expert)).sum(1)[is_sent_T].double()
            rows = {"gate_proj": x_TC[is_sent_T], "up_proj": x_TC[is_sent_T], "down_proj": hidden}
            for part, values in (rows | {"saliency": (weight * output)[:, None]}).items():
                seen.setdefault(f"{name}.{expert}.{part}", []).append(values.double().numpy())

    return before


@pytest.fixture(scope="session")
def all_inputs(checkpoints: dict[str, Path], ids: np.ndarray) -> dict[str, tuple[Arrays, Arrays]]:
    """Per model, what each matrix reads (S, T, C), and what those of each expert do (N, C), by hooks, in float64."""
    result = {}
    for kind, checkpoint in checkpoints.items():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        model.set_experts_implementation("eager")
        seen: dict[str, list[np.ndarray]] = {}
        of_experts: dict[str, list[np.ndarray]] = {}
        for name in dict.fromkeys(name for names in consumers(kind).values() for name in names):
            module = model.get_submodule(name)
            routed = keep_experts(of_experts, name)
            module.register_forward_pre_hook(routed if name.endswith("experts") else keep(seen.setdefault(name, [])))
        with torch.inference_mode():
            for window in ids:
                model(torch.from_numpy(window).long()[None], use_cache=False)
        experts = {name: np.concatenate(parts) for name, parts in of_experts.items()}
        result[kind] = ({name: np.stack(parts) for name, parts in seen.items()}, experts)
    return result


@pytest.fixture(scope="session")
def inputs(all_inputs: dict[str, tuple[Arrays, Arrays]]) -> dict[str, Arrays]:
    """Per model, what each matrix outside of experts reads (S, T, C)."""
    return {kind: found for kind, (found, _) in all_inputs.items()}


@pytest.fixture(scope="session")
def expert_inputs(all_inputs: dict[str, tuple[Arrays, Arrays]]) -> Arrays:
    """What the matrices of each expert of the mixture read (N, C), and the weight times norm of what it puts out."""
    return all_inputs["moe"][1]
