"""Stored formats: a dequantised tensor is to the bit what the words of its format say, or the checkpoint is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import COMMON, FAMILIES, MXFP4, ROUTED, Family, random_model, save_family, tiled, write_files
from number_formats import fp4_pairs, of_groups, of_tiles, plain, real, rounded
from outlier_features.capture import engine
from outlier_features.errors import SourceError
from outlier_features.models.architectures import Quantization
from outlier_features.models.stored_formats import Stored, pairs
from outlier_features.models.weights import Weights
from safetensors.torch import load_file
from silent import Silent
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LLAMA = Family("llama", COMMON | {"hidden_size": 40, "intermediate_size": 24})
"""24 rows in tiles of 16 have two rows of scales, and 40 rows three: neither count divides its rows into 16."""
ONE = (10**6, 10**6)
"""A tile larger than any matrix: one scale for all of it."""

Tensors = dict[str, torch.Tensor]


def scales_of(weight: torch.Tensor, tile: tuple[int, int], largest: float = 448) -> torch.Tensor:
    """Return a scale for each tile, the largest magnitude in it over the largest that can be stored."""
    of_rows = [part.split(tile[1], dim=1) for part in weight.float().abs().split(tile[0])]
    return torch.tensor([[part.max() for part in parts] for parts in of_rows]) / largest


def powers(scales: torch.Tensor) -> torch.Tensor:
    """Return the least power of two that is no smaller than each scale, as the byte of its exponent."""
    return (scales.log2().ceil() + 127).to(torch.uint8)


@dataclass(frozen=True)
class Case:
    """A way to store matrices in eight bits."""

    tile: tuple[int, int]
    block_size: list[int] | None = None
    suffix: str = "weight_scale_inv"
    values: torch.dtype = torch.float8_e4m3fn
    form: Callable[[torch.Tensor], torch.Tensor] = lambda scales: scales
    """How the scales are stored."""


CASES = {
    "tiles": Case((16, 16), [16, 16]),
    "oblong": Case((8, 32), [8, 32]),
    "rows-of-32": Case((1, 32), [1, 32], form=powers),
    "larger-than-the-matrix": Case((128, 128), [128, 128]),
    "powers-of-two": Case((16, 16), [16, 16], form=lambda s: powers(s).view(torch.float8_e8m0fnu)),
    "bfloat16-scales": Case((16, 16), [16, 16], form=lambda s: s.bfloat16()),
    "e5m2": Case((16, 16), [16, 16], values=torch.float8_e5m2),
    "deepseek-v4-name": Case((16, 16), [16, 16], suffix="scale"),
    "mistral-large-name": Case((16, 16), [16, 16], suffix="qscale_weight"),
    "one-number": Case(ONE, form=lambda s: s.reshape(())),
    "one-in-a-list": Case(ONE, suffix="weight_scale", form=lambda s: s.reshape(1)),
    "channels": Case((1, 10**6)),
    "channels-in-a-list": Case((1, 10**6), suffix="weight_scale", form=lambda s: s.reshape(-1)),
    "input-channels": Case((10**6, 1)),
}


def stored_as(directory: Path, case: Case) -> tuple[Path, Tensors]:
    """Write a checkpoint whose matrices are stored as in `case`; return it and what its matrices stand for."""
    model = random_model(LLAMA, 0, {3: 12.0})
    model.save_pretrained(directory)
    whole = directory / "model.safetensors"
    stored, meant = load_file(whole), {}
    whole.unlink()
    for name in [name for name in stored if name.endswith("_proj.weight")]:
        stem = name.removesuffix("weight")
        scales = scales_of(stored[name], case.tile)
        kept = case.form(scales)
        grid = real(kept).reshape(scales.shape)
        parts = torch.from_numpy(of_tiles(np.ones(stored[name].shape), grid, case.tile))
        stored[name] = (stored[name].double() / parts).clamp(-448, 448).float().to(case.values)
        stored[f"{stem}{case.suffix}"] = kept.contiguous()
        stored[f"{stem}activation_scale"] = torch.tensor(0.5)
        meant[name] = rounded(of_tiles(real(stored[name]), grid, case.tile))
    write_files(stored, directory, is_pickled=False)
    describe(directory, {"quant_method": "fp8", "weight_block_size": case.block_size, "activation_scheme": "static"})
    return directory, meant


def describe(directory: Path, quantization: dict[str, Any] | None) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))


def read(checkpoint: Path, dtype: torch.dtype) -> Tensors:
    """Return what the blocks of a checkpoint hold when they are read."""
    weights = Weights(checkpoint, dtype, CPU)
    return {
        f"model.layers.{block}.{name}": tensor.clone()
        for block in range(len(weights.blocks))
        for name, tensor in weights.read(block).items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fp8_is_an_element_times_the_scale_of_its_tile(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint, meant = stored_as(tmp_path / "model", case)
    found = read(checkpoint, dtype)
    assert len(meant) == 21
    for name, values in meant.items():
        assert torch.equal(found[name], values.to(dtype)), name


def test_losses_are_those_of_the_matrices_that_the_tiles_stand_for(tmp_path: Path) -> None:
    checkpoint, _ = stored_as(tmp_path / "model", CASES["tiles"])
    ids = torch.randint(0, 300, (32,), generator=torch.Generator().manual_seed(1))
    (found,) = engine.run(Weights(checkpoint, torch.float32, CPU), [ids], lambda _, logits: logits.clone(), Silent())
    model = AutoModelForCausalLM.from_pretrained(plain(checkpoint), dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(input_ids=ids[None], use_cache=False).logits[0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("form", ["tiles", "one", "each"])
def test_experts_that_are_stored_together_have_tiles_of_their_own(form: str, tmp_path: Path) -> None:
    family = FAMILIES["gpt-oss"]
    model = random_model(family, 0, {3: 12.0})
    model.save_pretrained(tmp_path)
    stored, meant = load_file(tmp_path / "model.safetensors"), {}
    (tmp_path / "model.safetensors").unlink()
    size = 20 if form == "tiles" else 128
    for name in [name for name in stored if stored[name].dim() == 3]:
        values, scales = tiled(stored[name], size)
        kept = scales.amax(0).reshape(1) if form == "one" else scales
        stored |= {name: values, f"{name}_scale_inv": kept}
        grid = real(kept).reshape(1, 1, 1) if form == "one" else real(kept)
        meant[name] = rounded(of_tiles(real(values), np.broadcast_to(grid, scales.shape), (size, size)))
    write_files(stored, tmp_path, is_pickled=False)
    block_size = [20, 20] if form == "tiles" else None
    describe(tmp_path, {"quant_method": "fp8", "weight_block_size": block_size})
    found = read(tmp_path, torch.bfloat16)
    assert len(meant) == 8
    for name, values in meant.items():
        assert torch.equal(found[name], values.bfloat16()), name


def test_four_bits_beside_eight_have_a_scale_for_32_columns(tmp_path: Path) -> None:
    family = Family("mixtral", COMMON | ROUTED | {"hidden_size": 64, "intermediate_size": 96})
    random_model(family, 0, {}).save_pretrained(tmp_path)
    stored, meant = load_file(tmp_path / "model.safetensors"), {}
    (tmp_path / "model.safetensors").unlink()
    draw = torch.Generator().manual_seed(0)
    for name in [name for name in stored if ".experts." in name]:
        rows, columns = stored[name].shape
        values = torch.randint(-128, 128, (rows, columns // 2), generator=draw, dtype=torch.int8)
        scales = torch.randint(115, 125, (rows, columns // 32), generator=draw, dtype=torch.uint8)
        stored |= {name: values, f"{name.removesuffix('weight')}scale": scales.view(torch.float8_e8m0fnu)}
        meant[name] = rounded(of_tiles(fp4_pairs(values), real(scales), (1, 32)))
    write_files(stored, tmp_path, is_pickled=False)
    describe(tmp_path, {"quant_method": "fp8", "weight_block_size": [128, 128], "expert_dtype": "fp4"})
    found = read(tmp_path, torch.float32)
    for block in range(3):
        down = torch.stack([meant[f"model.layers.{block}.block_sparse_moe.experts.{e}.w2.weight"] for e in range(4)])
        assert torch.equal(found[f"model.layers.{block}.mlp.experts.down_proj"], down)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mxfp4_is_an_element_times_a_power_of_two_of_its_group(dtype: torch.dtype, tmp_path: Path) -> None:
    """Every byte and every scale: 0 is 2^-127, 254 is 2^127 and 255 is NaN."""
    checkpoint = save_family(FAMILIES["gpt-oss"], tmp_path / "model")
    stored = {name: t for file in checkpoint.glob("*.safetensors") for name, t in load_file(file).items()}
    draw = torch.Generator().manual_seed(0)
    for name in [name for name in stored if name.endswith(("_blocks", "_scales"))]:
        count = torch.arange(stored[name].numel()).roll(int(torch.randint(256, (1,), generator=draw)))
        stored[name] = (count % 256).to(torch.uint8).reshape(stored[name].shape)
    write_files(stored, checkpoint, is_pickled=False)
    found = read(checkpoint, dtype)
    for block in range(4):
        for name in ("gate_up_proj", "down_proj"):
            key = f"model.layers.{block}.mlp.experts.{name}"
            meant = rounded(of_groups(stored[f"{key}_blocks"], stored[f"{key}_scales"])).to(dtype)
            assert meant.isnan().any()
            assert torch.equal(found[key].isnan(), meant.isnan())
            assert torch.equal(found[key][~meant.isnan()], meant[~meant.isnan()])


def test_mxfp4_does_not_need_to_be_told_what_is_not_converted(tmp_path: Path) -> None:
    checkpoint = save_family(FAMILIES["gpt-oss"], tmp_path / "model")
    expected = read(checkpoint, torch.float32)
    describe(checkpoint, {"quant_method": MXFP4["quant_method"]})
    found = read(checkpoint, torch.float32)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def refusal(checkpoint: Path) -> str:
    with pytest.raises(SourceError) as raised:
        Weights(checkpoint, torch.float32, CPU)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    ("block_size", "words"),
    [
        ([32, 16], "(40, 24) and its scales {} are (3, 2), not (2, 2) for tiles of 32 by 16"),
        (None, "(40, 24) and its scales {} are (3, 2), not one scale, or one for each row or column"),
    ],
)
def test_scales_that_do_not_fit_are_refused_with_both_shapes(block_size: object, words: str, tmp_path: Path) -> None:
    checkpoint, _ = stored_as(tmp_path / "model", CASES["tiles"])
    describe(checkpoint, {"quant_method": "fp8", "weight_block_size": block_size})
    name = "model.layers.0.mlp.down_proj.weight"
    said = refusal(checkpoint)
    assert f"{name} is {words.format(f'{name}_scale_inv')}" in said
    assert "fetch the model again" not in said  # it would bring the same files


def test_tiles_are_of_matrices() -> None:
    stored = {name: Stored(Path("a"), 0, 0, "F8_E4M3", (side,)) for name, side in (("b", 24), ("b_scale_inv", 2))}
    with pytest.raises(SourceError, match=r"b is \(24,\) .* not a matrix with scales for tiles of 16 by 16"):
        pairs(stored, Quantization("fp8", (16, 16)), "model")


@pytest.mark.parametrize("block_size", [[128], [0, 128], ["a", 1], 128, [True, 2]])
def test_a_tile_that_is_none_is_refused(block_size: object, tmp_path: Path) -> None:
    checkpoint, _ = stored_as(tmp_path / "model", CASES["tiles"])
    describe(checkpoint, {"quant_method": "fp8", "weight_block_size": block_size})
    assert f"weight_block_size of quantization_config in config.json is {block_size}" in refusal(checkpoint)


def test_eight_bits_without_a_word_of_their_scales_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = stored_as(tmp_path / "model", CASES["tiles"])
    describe(checkpoint, None)
    said = refusal(checkpoint)
    assert "and 20 more is stored in eight bits, and config.json lacks the quantization_config" in said


def test_other_formats_of_eight_bits_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint, _ = stored_as(tmp_path / "model", CASES["channels"])
    describe(checkpoint, {"quant_method": "compressed-tensors", "format": "float-quantized"})
    assert "quantised (compressed-tensors); of quantised checkpoints only mxfp4 and fp8 can be read" in refusal(
        checkpoint
    )
