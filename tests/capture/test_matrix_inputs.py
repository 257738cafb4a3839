"""Matrix inputs, and what attention is handed, are what hooks on the ordinary forward see, in each family."""

# Shapes: T position, C channel, E expert, H head, G key-value head, D channel of a head.

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, MOE, save_family
from families_table import Table
from forwards import CPU, whole_model
from outlier_features.capture.run import capture
from outlier_features.capture.scores import token_losses
from outlier_features.config.entries import Model
from outlier_features.kernels import reference
from outlier_features.models import architectures, fused_experts
from outlier_features.site_names import SITES
from outlier_features.sources.fetch import fetch
from outlier_features.statistics import shards
from outlier_features.statistics.shards import Statistics
from small_models import capture_settings, write_windows
from torch import nn
from transformers.models.gpt_oss import modeling_gpt_oss

WINDOWS, LENGTH = 3, 24
LINEAGE = {"statistics": "a", "checkpoint": "test", "tokens": "test"}
DOWN = ("mlp.down_proj", "mlp.dense_4h_to_h", "mlp.c_proj", "mlp.fc_out", "fc2")
SHARED = ("mlp.shared_expert.down_proj", "mlp.shared_experts.down_proj")
BY_ITSELF = {"gptj": range(3), "qwen3-next": range(3)}
"""Blocks whose attention is handed to no function of transformers."""
EXACT = ("first", "max", "min", "position_max_abs", "position_channel", "mmr")
EXACT += tuple(f"{kind}_{part}" for kind in ("magnitudes", "block16", "block32") for part in ("first", "rest"))


@dataclass
class Experts:
    """What the experts of one block did in one window, one expert after the other, from their own matrices."""

    x_TC: torch.Tensor
    choices_Tk: torch.Tensor
    weights_Tk: torch.Tensor
    hidden: list[torch.Tensor]
    output: list[torch.Tensor]
    tokens: list[torch.Tensor]

    @property
    def inputs(self) -> torch.Tensor:
        """What down projections read, in the order of tokens, then of experts."""
        keys = [tokens * len(self.hidden) + e for e, tokens in enumerate(self.tokens)]
        return torch.cat(self.hidden)[torch.cat(keys).argsort()]


Seen = dict[tuple[int, str], list[Any]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Statistics, Seen]:
    """The name of a family, what a capture keeps of it, and what hooks see of the ordinary forward."""
    name, root = request.param, tmp_path_factory.mktemp(request.param)
    original = save_family(FAMILIES[name], root / "original")
    fetch(Model(path=str(original)), root / "fetched", {"checkpoint": "test"})
    ids = np.random.default_rng(5).integers(0, 300, (WINDOWS, LENGTH))
    write_windows(root / "tokens.arrow", ids)
    settings = capture_settings(sites=tuple(SITES), experts_implementation="eager" if name in MOE else None)
    capture(root / "fetched", root / "tokens.arrow", root / "m.json", settings, LINEAGE, device=CPU)
    return name, Statistics([root / "m.json"]), ordinary(root / "fetched", ids, is_moe=name in MOE)


@torch.inference_mode()
def ordinary(checkpoint: Path, ids: np.ndarray, *, is_moe: bool) -> Seen:
    """Return what hooks on matrices, experts and blocks see, and what products of attention are handed."""
    full = whole_model(checkpoint, torch.float32)
    if is_moe:
        full.set_experts_implementation("eager")
    _, blocks = architectures.decoder_blocks(full)
    seen: Seen = {}
    with ExitStack() as hooks, attention_seen(blocks, seen):
        for index, block in enumerate(blocks):
            modules = dict(block.named_modules())
            for site, names in (("down_in", DOWN), ("shared_down_in", SHARED)):
                for module in (modules[name] for name in names if name in modules):
                    hooks.callback(module.register_forward_pre_hook(handed(seen, (index, site))).remove)
            if (bank := fused_experts.of_block(block)) is not None:
                routed = by_a_loop(seen, (index, "experts"))
                hooks.callback(bank.register_forward_pre_hook(routed, with_kwargs=True).remove)
            for module in (modules[name] for name in ("mlp.shared_expert", "mlp.shared_experts") if name in modules):
                hooks.callback(module.register_forward_hook(added(seen, (index, "shared"), block.mlp)).remove)
            hooks.callback(block.register_forward_hook(passing(seen, (index, "block")), with_kwargs=True).remove)
        for row in torch.from_numpy(ids).long():
            logits = full(input_ids=row[None], use_cache=False).logits[0]
            seen.setdefault((0, "losses"), []).append(token_losses(logits, row).numpy())
    return seen


def handed(seen: Seen, key: tuple[int, str]) -> Callable:
    return lambda _, args: seen.setdefault(key, []).append(args[0].reshape(-1, args[0].shape[-1]).clone())


def passing(seen: Seen, key: tuple[int, str]) -> Callable:
    def after(_module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        y = output if isinstance(output, torch.Tensor) else output[0]
        seen.setdefault(key, []).append((x[0].double().numpy(), y[0].double().numpy()))

    return after


def added(seen: Seen, key: tuple[int, str], mixture: nn.Module) -> Callable:
    """Take down the sum of squares of what a shared expert adds, by its gate where it has one."""

    def after(_module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        gate = mixture.shared_expert_gate(args[0]).sigmoid() if hasattr(mixture, "shared_expert_gate") else 1.0
        seen.setdefault(key, []).append(float((gate * output).double().square().sum()))

    return after


def by_a_loop(seen: Seen, key: tuple[int, str]) -> Callable:
    """Compute what each expert reads and puts out, as the loop of the model does."""

    def before(bank: nn.Module, args: tuple, kwargs: dict) -> None:
        x, choices_Tk, weights_Tk = (*args, *kwargs.values())
        x_TC = x.reshape(-1, x.shape[-1])
        found = Experts(x_TC.clone(), choices_Tk, weights_Tk, [], [], [])
        for expert in range(fused_experts.expert_count(bank)):
            tokens = (choices_Tk == expert).any(1).nonzero()[:, 0]
            into, out = bank.gate_up_proj[expert], bank.down_proj[expert]
            if hasattr(bank, "down_proj_bias"):  # GPT-OSS, transposed
                hidden = bank._apply_gate(x_TC[tokens] @ into + bank.gate_up_proj_bias[expert])
                output = hidden @ out + bank.down_proj_bias[expert]
            else:
                gate, up = nn.functional.linear(x_TC[tokens], into).chunk(2, dim=-1)
                hidden = nn.functional.silu(gate) * up
                output = nn.functional.linear(hidden, out)
            found.hidden.append(hidden)
            found.output.append(output)
            found.tokens.append(tokens)
        seen.setdefault(key, []).append(found)

    return before


@contextmanager
def attention_seen(blocks: nn.ModuleList, seen: Seen) -> Iterator[None]:
    """See queries, keys and values where torch's own attention computes scores, or GPT-OSS does."""
    where: list[int] = []
    sdpa, repeat = nn.functional.scaled_dot_product_attention, modeling_gpt_oss.repeat_kv

    def watched(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        seen.setdefault((where[-1], "attention"), []).append((query[0], key[0], value[0], kwargs.get("scale")))
        return sdpa(query, key, value, *args, **kwargs)

    def repeated(heads: torch.Tensor, times: int) -> torch.Tensor:
        """See keys, then values, where GPT-OSS repeats them for its query heads."""
        pair = seen.setdefault((where[-1], "repeated"), [])
        pair.append(heads[0])
        if len(pair) == 2:
            seen.setdefault((where[-1], "attention"), []).append((None, pair[0], pair.pop(), None))
            pair.clear()
        return repeat(heads, times)

    def entered(index: int) -> Callable:
        return lambda *_: where.append(index)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as hooks:
        patch.setattr(nn.functional, "scaled_dot_product_attention", watched)
        patch.setattr(modeling_gpt_oss, "repeat_kv", repeated)
        for index, block in enumerate(blocks):
            hooks.callback(block.register_forward_pre_hook(entered(index)).remove)
        yield


def test_looking_at_all_of_it_leaves_the_losses_as_they_are_to_the_bit(family: tuple[str, Statistics, Seen]) -> None:
    _, statistics, seen = family
    np.testing.assert_array_equal(statistics.losses(), seen[0, "losses"])


def test_down_inputs_are_those_of_independent_hooks(
    family: tuple[str, Statistics, Seen], families_table: Table
) -> None:
    name, statistics, seen = family
    equal: Counter = Counter()
    for block in range(statistics.blocks):
        table = statistics.block(block)
        for site in ("down_in", "shared_down_in"):
            tensors = seen.get((block, site), [])
            if site == "down_in" and (block, "experts") in seen:
                tensors = [window.inputs for window in seen[block, "experts"]]
            assert (site in table.sites) == bool(tensors), (name, block, site)
            if tensors:
                check_rows(table.site(site).rows, tensors, FAMILIES[name].model_type)
                equal[site] += sum(map(len, tensors))
    families_table.add_rows(name, equal)


def check_rows(rows: Any, tensors: list[torch.Tensor], name: str) -> None:
    """Compare what is kept of some windows with what the reference keeps of tensors; every value to the bit."""
    grids = capture_settings().grids
    for index, x_RC in enumerate(tensors):
        expected = reference.reduce(x_RC, grids, spread=True, first=len(x_RC) // LENGTH)
        for column in EXACT:
            np.testing.assert_array_equal(rows[column][index].values.to_numpy(), expected[column], err_msg=column)
        wide = x_RC.double().numpy()[len(x_RC) // LENGTH :]
        np.testing.assert_allclose(rows["sum_2"][index].values.to_numpy(), (wide**2).sum(0), rtol=1e-5, err_msg=name)


def test_keys_and_values_are_what_scores_are_computed_of(
    family: tuple[str, Statistics, Seen], families_table: Table
) -> None:
    name, statistics, seen = family
    equal: Counter = Counter()
    for block in range(statistics.blocks):
        table = statistics.block(block)
        is_absent = block in BY_ITSELF.get(name, ())
        for site, place in (("keys", 1), ("values", 2)):
            assert (site in table.sites) != is_absent, (name, block)
            assert (f"{block}.{site}" in statistics.facts["absent"]) == is_absent
            if is_absent:
                continue
            rows, tensors = table.site(site).rows, [window[place] for window in seen[block, "attention"]]
            heads = rows["heads"][0].as_py()
            kept = [x[:: len(x) // heads].transpose(0, 1).flatten(1) for x in tensors]
            check_rows(rows, kept, name)
            equal[site] += sum(map(len, kept))
    families_table.add_rows(name, equal)


def test_sampled_attention_is_that_of_float64(family: tuple[str, Statistics, Seen]) -> None:
    name, statistics, seen = family
    for block in range(statistics.blocks):
        if block in BY_ITSELF.get(name, ()) or name in ("gpt-oss", "gemma3", "gemma3-vision"):
            continue  # sinks and windows: tests/capture/test_attention.py
        found = statistics.block(block).site("attention")
        for index, (query, key, _, scale) in enumerate(seen[block, "attention"]):
            expected = sampled_by_numpy(query.double().numpy(), key.double().numpy(), scale)
            kept = [found.values(f"attention_{what}")[index] for what in ("top1", "entropy", "sink")]
            np.testing.assert_allclose(kept, expected, rtol=2e-5, err_msg=f"{name} {block}")


def sampled_by_numpy(query: np.ndarray, key: np.ndarray, scale: float | None) -> list[float]:
    """Return largest probability, entropy and probability of position 0, by the definition."""
    heads, length, width = query.shape
    key = np.repeat(key, heads // len(key), 0)
    positions = np.unique(np.linspace(length / 8, length - 1, min(64, length)).astype(int))
    values = []
    for head in range(heads):
        for t in positions:
            scores = key[head, : t + 1] @ query[head, t] * (scale or width**-0.5)
            p = np.exp(scores - scores.max())
            p /= p.sum()
            values.append((p.max(), -(p[p > 0] * np.log(p[p > 0])).sum(), p[0]))
    return list(np.mean(values, 0))


def test_what_a_block_adds_is_told_by_its_input_and_output(family: tuple[str, Statistics, Seen]) -> None:
    name, statistics, seen = family
    for block in range(statistics.blocks):
        site = statistics.block(block).site("residual")
        for index, (x_TC, y_TC) in enumerate(seen[block, "block"]):
            norms = [np.linalg.norm(each, axis=1) for each in (x_TC, y_TC)]
            cosine = (x_TC * y_TC).sum(1) / norms[0] / norms[1]
            np.testing.assert_allclose(site.lists("input_cosine")[index], cosine, rtol=1e-4, atol=1e-6, err_msg=name)
            rms = norms[0] / np.sqrt(x_TC.shape[1])
            np.testing.assert_allclose(site.lists("input_rms")[index], rms, rtol=1e-5, err_msg=name)


def test_each_expert_has_what_it_read_and_put_out(family: tuple[str, Statistics, Seen]) -> None:
    name, statistics, seen = family
    for block in range(statistics.blocks):
        windows: list[Experts] = seen.get((block, "experts"), [])
        if not windows:
            continue
        table = statistics._read(shards.experts_name(block)).to_pandas()
        for expert in range(len(windows[0].hidden)):
            parts = {
                "mlp_in": [window.x_TC[window.tokens[expert]] for window in windows],
                "down_in": [window.hidden[expert] for window in windows],
            }
            for site, tensors in parts.items():
                (row,) = table[(table["site"] == site) & (table["expert"] == expert)].to_dict("records")
                x = torch.cat(tensors).double().numpy()
                assert row["tokens"] == len(x)
                np.testing.assert_allclose(row["sum_2"], (x**2).sum(0), rtol=1e-12, err_msg=name)
                np.testing.assert_array_equal(row["max_abs"], np.abs(x).max(0), err_msg=name)
            assert row["saliency"] == pytest.approx(sum(saliency(window, expert) for window in windows), rel=1e-5)


def saliency(window: Experts, expert: int) -> float:
    """Return the sum of the router's weight times the norm of an expert's output (REAP), in float64."""
    tokens = window.tokens[expert]
    weights = (window.weights_Tk * (window.choices_Tk == expert)).sum(1)[tokens].double()
    return float((weights * window.output[expert].double().norm(dim=1)).sum())


def test_the_shared_expert_and_the_routed_ones_have_the_energy_they_add(family: tuple[str, Statistics, Seen]) -> None:
    name, statistics, seen = family
    for block in range(statistics.blocks):
        if (block, "experts") not in seen:
            continue
        router = statistics.block(block).site("router")
        assert router.rows["shared_energy"].null_count == (0 if (block, "shared") in seen else WINDOWS)
        if (block, "shared") in seen:
            np.testing.assert_allclose(router.values("shared_energy"), seen[block, "shared"], rtol=1e-4, err_msg=name)
        for index, window in enumerate(seen[block, "experts"]):
            total = torch.zeros_like(window.x_TC, dtype=torch.float64)
            for expert, (tokens, output) in enumerate(zip(window.tokens, window.output, strict=True)):
                weight = (window.weights_Tk * (window.choices_Tk == expert)).sum(1)[tokens]
                total[tokens] += weight[:, None].double() * output.double()
            assert router.values("routed_energy")[index] == pytest.approx(float((total**2).sum()), rel=1e-4), name
