"""Experts: what is kept of their outputs is what they put out, however transformers runs them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from families import COMMON, ROUTED, Family, random_model
from families import MOE as FAMILIES
from outlier_features.artefacts import tables
from outlier_features.capture import expert_outputs
from outlier_features.capture.run import capture
from outlier_features.errors import ArchitectureError, NonFiniteActivations
from outlier_features.metrics import layers as metrics
from outlier_features.models import architectures, fused_experts
from outlier_features.statistics.shards import Statistics
from safetensors.torch import load_file, save_file
from small_models import LENGTH, MOE, capture_settings, save_checkpoint, write_windows
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel
from transformers.integrations import moe

IMPLEMENTATIONS = ("eager", "grouped_mm", "grouped_mm_fallback", "batched_mm")
IDS = torch.arange(3, 14)[None]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A way in which transformers runs experts."""
    if request.param == "grouped_mm_fallback":
        monkeypatch.setattr(moe, "_can_use_grouped_mm", lambda *_: False)
    return request.param.removesuffix("_fallback")


def model_of(family: Family, implementation: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model = random_model(family, 0, {3: 12.0}).to(dtype)
    model.set_experts_implementation(implementation)
    return model


def banks_of(model: nn.Module) -> list[nn.Module]:
    return [bank for bank in map(fused_experts.of_block, architectures.decoder_blocks(model)[1]) if bank is not None]


@torch.inference_mode()
def seen_and_handed(model: PreTrainedModel) -> tuple[list[torch.Tensor], list[tuple]]:
    """Return what is seen of the experts of every bank in one forward, and what each bank is handed."""
    seen: list[torch.Tensor] = []
    handed: list[tuple] = []
    with ExitStack() as hooks:
        for bank in banks_of(model):
            hooks.enter_context(expert_outputs.observed(bank, lambda found: seen.append(found.largest_E)))
            hook = bank.register_forward_pre_hook(lambda _, *given: handed.append(all_of(*given)), with_kwargs=True)
            hooks.callback(hook.remove)
        model(IDS, use_cache=False)
    return seen, handed


def all_of(args: tuple, kwargs: dict) -> tuple:
    return (*args, *kwargs.values())


def by_a_loop(bank: nn.Module, x_TC: torch.Tensor, choices_Tk: torch.Tensor) -> list[float]:
    """Return the largest |output| of each expert, computed from the bank's parameters one expert after the other."""
    is_gpt_oss = hasattr(bank, "down_proj_bias")
    found = []
    for expert in range(fused_experts.expert_count(bank)):
        x = x_TC[(choices_Tk == expert).any(1)]
        into, out = bank.gate_up_proj[expert].to(x.dtype), bank.down_proj[expert].to(x.dtype)
        if is_gpt_oss:
            hidden = bank._apply_gate(x @ into + bank.gate_up_proj_bias[expert].to(x.dtype))
            y = hidden @ out + bank.down_proj_bias[expert].to(x.dtype)
        else:
            gate, up = nn.functional.linear(x, into).chunk(2, dim=-1)
            y = nn.functional.linear(nn.functional.silu(gate) * up, out)
        found.append(y.abs().max().item() if len(x) else expert_outputs.NONE)
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_the_largest_output_of_every_expert_is_that_of_its_own_matrices(name: str, implementation: str) -> None:
    model = model_of(FAMILIES[name], implementation)
    assert model.config._experts_implementation == implementation
    banks = banks_of(model)
    seen, handed = seen_and_handed(model)
    assert len(seen) == len(banks) > 0
    with torch.inference_mode():
        for bank, largest_E, (x_TC, choices_Tk, _) in zip(banks, seen, handed, strict=True):
            assert largest_E.dtype == torch.float32
            exact = by_a_loop(bank, x_TC.double(), choices_Tk)
            np.testing.assert_allclose(largest_E, exact, rtol=1e-5)
            if implementation == "eager":  # the loop of the model is that of the test, so no bit differs
                assert largest_E.tolist() == by_a_loop(bank, x_TC, choices_Tk)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_outputs_are_taken_as_they_are(name: str) -> None:
    model = model_of(FAMILIES[name], "eager", torch.bfloat16)
    seen, handed = seen_and_handed(model)
    with torch.inference_mode():
        for bank, largest_E, (x_TC, choices_Tk, _) in zip(banks_of(model), seen, handed, strict=True):
            assert largest_E.tolist() == by_a_loop(bank, x_TC, choices_Tk)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_looking_leaves_logits_untouched_and_is_over_afterwards(name: str, implementation: str) -> None:
    model = model_of(FAMILIES[name], implementation)
    plain = model(IDS, use_cache=False).logits
    with ExitStack() as hooks:
        for bank in banks_of(model):
            hooks.enter_context(expert_outputs.observed(bank, lambda *_: None))
        assert torch.equal(model(IDS, use_cache=False).logits, plain)
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in model.modules())


@torch.inference_mode()
def test_looking_ends_with_an_error_of_the_model() -> None:
    model = model_of(FAMILIES["mixtral"], "grouped_mm")
    bank = banks_of(model)[0]
    with (
        pytest.raises(AttributeError),
        expert_outputs.observed(bank, lambda *_: pytest.fail("the forward did not end")),
    ):
        bank(torch.randn(4, 32), torch.zeros(4, 2, dtype=torch.long), None)
    assert "forward" not in vars(bank)
    assert torch.overrides._get_current_function_mode() is None


@pytest.mark.parametrize("inner", [16, 32])
def test_a_down_projection_is_told_from_a_matrix_of_the_same_width(inner: int, implementation: str) -> None:
    """With 16, gate and up together are as wide as the hidden state; with 32, the down projection is a square."""
    model = model_of(Family("mixtral", COMMON | ROUTED | {"intermediate_size": inner}), implementation)
    seen, handed = seen_and_handed(model)
    for bank, largest_E, (x_TC, choices_Tk, _) in zip(banks_of(model), seen, handed, strict=True):
        np.testing.assert_allclose(largest_E, by_a_loop(bank, x_TC.double(), choices_Tk), rtol=1e-5)


@torch.inference_mode()
def test_matrices_that_share_a_storage_are_told_apart(implementation: str) -> None:
    model = model_of(FAMILIES["mixtral"], implementation)
    bank = banks_of(model)[0]
    together = torch.cat([bank.gate_up_proj.flatten(), bank.down_proj.flatten()])
    parts = together.split([bank.gate_up_proj.numel(), bank.down_proj.numel()])
    for name, part in zip(("gate_up_proj", "down_proj"), parts, strict=True):
        setattr(bank, name, nn.Parameter(part.view(getattr(bank, name).shape), requires_grad=False))
    seen, handed = seen_and_handed(model)
    np.testing.assert_allclose(seen[0], by_a_loop(bank, handed[0][0].double(), handed[0][1]), rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@torch.inference_mode()
def test_tokens_with_nan_or_infinity_are_left_out(value: float, implementation: str) -> None:
    bank = banks_of(model_of(FAMILIES["mixtral"], implementation))[0]
    x_TC, weights_Tk = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)), torch.full((6, 2), 0.5)
    choices_Tk = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [2, 1]])
    x_TC[[2, 5]] = value
    seen: list[torch.Tensor] = []
    with expert_outputs.observed(bank, lambda found: seen.append(found.largest_E)):
        bank(x_TC, choices_Tk, weights_Tk)
    finite = [0, 1, 3, 4]
    expected = by_a_loop(bank, x_TC[finite].double(), choices_Tk[finite])
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5)
    assert expected[2:] == [expert_outputs.NONE, expert_outputs.NONE]


class HostReads(TorchDispatchMode):
    """Counts the calls for which the host waits for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter = Counter()

    def __torch_dispatch__(self, function: Callable, _types: object, args: tuple = (), kwargs: dict | None = None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.found[function] += 1
        return function(*args, **(kwargs or {}))


def test_the_host_waits_for_nothing_more(implementation: str) -> None:
    model = model_of(FAMILIES["gpt-oss"], implementation)
    reads = []
    for contexts in ([], [expert_outputs.observed(bank, lambda *_: None) for bank in banks_of(model)]):
        with ExitStack() as hooks, HostReads() as counted, torch.no_grad():
            for context in contexts:
                hooks.enter_context(context)
            model(IDS, use_cache=False)
        reads.append(counted.found)
    assert reads[0] == reads[1]
    assert (reads[1].total() > 0) == (implementation == "eager")


@contextmanager
def running(forward: Callable) -> Iterator[None]:
    """Let transformers run grouped experts in another way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(moe.ExpertsInterface._global_mapping, "grouped_mm", forward)
        yield


def test_a_bank_whose_down_projection_is_not_recognised_stops_the_run(checkpoints, tokens, tmp_path) -> None:
    def on_copies(bank: nn.Module, x_TC: torch.Tensor, choices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        y_TC = nn.functional.linear(x_TC, bank.gate_up_proj.clone()[0])[:, : bank.intermediate_dim]
        return nn.functional.linear(y_TC, bank.down_proj.clone()[0])

    words = "block 1: no product with a down projection.*Qwen3MoeExperts; teach capture/expert_outputs.py"
    with running(on_copies), pytest.raises(ArchitectureError, match=words):
        capture(checkpoints["moe"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    assert not (tmp_path / "x.json").exists()


def test_an_expert_whose_output_is_missed_stops_the_run(checkpoints, tokens, tmp_path) -> None:
    def one_on_a_copy(
        bank: nn.Module, x_TC: torch.Tensor, choices: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        y_TC = torch.zeros_like(x_TC)
        for expert in range(6):
            rows, place = torch.where(choices == expert)
            gate, up = nn.functional.linear(x_TC[rows], bank.gate_up_proj[expert]).chunk(2, dim=-1)
            matrix = bank.down_proj[expert].clone() if expert == 3 else bank.down_proj[expert]
            y_TC[rows] += nn.functional.linear(bank.act_fn(gate) * up, matrix) * weights[rows, place, None]
        return y_TC

    with running(one_on_a_copy), pytest.raises(ArchitectureError, match="block 1, window 0: experts 3 were given"):
        capture(checkpoints["moe"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})


def test_shards_have_a_value_for_every_expert_with_tokens_and_null_for_the_others(checkpoints, tmp_path) -> None:
    ids = np.random.default_rng(3).integers(160, size=(4, 2))  # two tokens go to at most four of six experts
    tokens = write_windows(tmp_path / "tokens.arrow", ids)
    capture(checkpoints["moe"], tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    site = Statistics([tmp_path / "x.json"]).block(1).site("router")
    for chosen, found in zip(site.lists("expert_choices"), site.rows["expert_max_abs"].to_pylist(), strict=True):
        assert [value is not None for value in found] == [expert in chosen for expert in range(6)]
        assert all(value > 0 for value in found if value is not None)
        assert None in found


def layers_of(manifests: list[Path], folder: Path) -> pd.DataFrame:
    """Return the table of layers as it is read back."""
    table = metrics.layers(Statistics(manifests), hit_threshold=6.0)
    tables.write_table(folder / "layers.parquet", table, {"lineage": {"reduction": "test"}})
    return tables.read_table(folder / "layers.parquet")[0]


def scaled(directory: Path, factor: float) -> Path:
    """Return a checkpoint whose down projection of expert 4 in block 2 is scaled."""
    checkpoint = save_checkpoint(directory, MOE, seed=2)
    name = "model.layers.2.mlp.experts.4.down_proj.weight"
    (file,) = (file for file in checkpoint.glob("*.safetensors") if name in load_file(file))
    tensors = load_file(file)
    save_file(tensors | {name: tensors[name] * factor}, file, metadata={"format": "pt"})
    return checkpoint


def test_a_planted_super_expert_is_found(tokens: Path, tmp_path: Path) -> None:
    checkpoint = scaled(tmp_path / "model", 1000)
    capture(checkpoint, tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    layers = layers_of([tmp_path / "x.json"], tmp_path)
    routers = layers[layers["site"] == "router"].set_index("block")
    assert routers["super_experts"].map(list).to_dict() == {1: [], 2: [4]}
    assert routers["expert_max_abs"][2].argmax() == 4
    assert layers[layers["site"] != "router"][["expert_max_abs", "super_experts"]].isna().all(axis=None)


def test_an_expert_that_puts_out_infinity_stops_the_run_unless_it_is_to_be_counted(tokens, tmp_path) -> None:
    checkpoint = scaled(tmp_path / "model", float("inf"))
    with pytest.raises(NonFiniteActivations, match="block 2, residual, window 0"):
        capture(checkpoint, tokens, tmp_path / "x.json", capture_settings(), {"statistics": "test"})
    settings = capture_settings(count_nonfinite=True)
    capture(checkpoint, tokens, tmp_path / "x.json", settings, {"statistics": "test"})
    found = Statistics([tmp_path / "x.json"]).block(2).site("router").matrix("expert_max_abs")
    assert np.isnan(found).all(0).tolist() == [False, False, False, False, True, False]


def test_windows_shared_out_give_the_largest_outputs_of_one_pass(checkpoints, tokens, manifests, tmp_path) -> None:
    parts = [tmp_path / f"{name}.json" for name in "ab"]
    for part, windows in zip(parts, ([0, 3], [1, 2, 4]), strict=True):
        capture(checkpoints["moe"], tokens, part, capture_settings(), {"statistics": "test"}, windows=windows)
    found, whole = (layers_of(each, tmp_path).query("site == 'router'") for each in (parts, [manifests["moe"]]))
    columns = ["expert_max_abs", "super_experts", "expert_tokens"]
    assert found[columns].map(list).equals(whole[columns].map(list))
    assert len(found) == 2
    assert json.loads(parts[0].read_text())["facts"]["positions_per_window"] == [LENGTH] * 2
