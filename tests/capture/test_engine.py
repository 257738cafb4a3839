"""The layer-major engine gives what an ordinary forward gives, to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BLOCKS, DENSE, save_checkpoint
from outlier_features.capture import engine
from outlier_features.capture.prefetch import Reading
from outlier_features.capture.scores import token_losses
from outlier_features.errors import ArchitectureError, SourceError
from outlier_features.models.weights import Weights
from safetensors.torch import load_file, save_file
from silent import Silent, windows_of
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


def full_logits(checkpoint: Path, ids: np.ndarray, dtype: torch.dtype) -> list[torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
    with torch.inference_mode():
        return [model(input_ids=row[None], use_cache=False).logits[0] for row in windows_of(ids)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_logits_and_losses_equal_the_ordinary_forward_to_the_bit(
    kind: str, dtype: torch.dtype, checkpoints: dict[str, Path], ids: np.ndarray
) -> None:
    windows = windows_of(ids)
    weights = Weights(checkpoints[kind], dtype, CPU)
    found = engine.run(weights, windows, lambda _, logits: logits.clone(), Silent())
    for window, logits, expected in zip(windows, found, full_logits(checkpoints[kind], ids, dtype), strict=True):
        assert torch.equal(logits, expected)
        losses = torch.nn.functional.cross_entropy(expected[:-1].float(), window[1:], reduction="none")
        assert torch.equal(token_losses(logits, window), losses)


def test_only_the_running_block_holds_weights(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["moe"], torch.float32, CPU)

    present: list[set[int]] = []

    class Watch(Silent):
        def enter(self, block: int, window: int) -> None:
            held = {i for i, b in enumerate(weights.blocks) if any(not p.is_meta for p in b.parameters())}
            present.append(held)

    engine.run(weights, windows_of(ids), lambda *_: None, Watch())
    assert present == [{block} for block in range(BLOCKS) for _ in ids]
    assert all(p.is_meta for p in weights.blocks.parameters())


def test_the_model_can_run_again_after_an_error_in_a_block(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["dense"], torch.float32, CPU)
    windows = windows_of(ids)

    class Failing(Silent):
        def leave(self, block: int, outputs: object) -> None:
            if block == 1:
                raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        engine.run(weights, windows, lambda _, logits: logits.clone(), Failing())
    found = engine.run(weights, windows, lambda _, logits: logits.clone(), Silent())
    assert torch.equal(found[0], full_logits(checkpoints["dense"], ids, torch.float32)[0])


def test_a_change_on_disk_changes_the_logits(tmp_path: Path, ids: np.ndarray) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", DENSE)
    before = engine.run(Weights(checkpoint, torch.float32, CPU), windows_of(ids), lambda _, x: x.clone(), Silent())
    edit(checkpoint, "model.layers.1.mlp.up_proj.weight", lambda tensor: tensor + 1e-3)
    after = engine.run(Weights(checkpoint, torch.float32, CPU), windows_of(ids), lambda _, x: x.clone(), Silent())
    assert not torch.equal(before[0], after[0])
    assert torch.equal(after[0], full_logits(checkpoint, ids, torch.float32)[0])


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(name: str, tmp_path: Path, ids: np.ndarray) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", DENSE)
    edit(checkpoint, name, None)
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        engine.run(Weights(checkpoint, torch.float32, CPU), windows_of(ids), lambda *_: None, Silent())


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path, ids: np.ndarray) -> None:
    checkpoint = save_checkpoint(tmp_path / "model", DENSE)
    edit(checkpoint, "model.layers.2.mlp.up_proj.weight", lambda tensor: tensor[:-1].contiguous())
    with pytest.raises(SourceError, match="do not fit"):
        engine.run(Weights(checkpoint, torch.float32, CPU), windows_of(ids), lambda *_: None, Silent())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"config\.json"):
        Weights(tmp_path, torch.float32, CPU)


def test_a_model_that_visits_a_block_twice_is_refused(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["dense"], torch.float32, CPU)
    first, _, last = weights.blocks
    weights.model.model.layers = torch.nn.ModuleList([first, first, last])
    with pytest.raises(ArchitectureError, match="once each, in order"):
        engine.run(weights, windows_of(ids), lambda *_: None, Silent())


def edit(checkpoint: Path, name: str, change: object) -> None:
    for file in checkpoint.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensor = tensors.pop(name)
            if change is not None:
                tensors[name] = change(tensor)
            save_file(tensors, file, metadata={"format": "pt"})
            return
    raise KeyError(name)


def test_blocks_that_stay_on_the_device_are_not_read_again(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["moe"], torch.float32, torch.device("cpu"), keep_bytes=1e9)
    readings: list[Reading] = []

    class Noting(Silent):
        def begin(self, block: int, reading: Reading) -> None:
            readings.append(reading)

    passes = [engine.run(weights, windows_of(ids), lambda _, logits: logits.clone(), Noting()) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*passes, strict=True))
    first, second = readings[: len(weights.blocks)], readings[len(weights.blocks) :]
    in_blocks = [sum(p.numel() for p in block.parameters()) * 4 for block in weights.blocks]
    assert [reading.bytes for reading in first] == in_blocks
    assert [reading.bytes for reading in second] == [0] * len(weights.blocks)


def test_only_as_many_blocks_stay_as_fit(checkpoints: dict[str, Path], ids: np.ndarray) -> None:
    weights = Weights(checkpoints["dense"], torch.float32, torch.device("cpu"))
    size = sum(p.numel() for p in weights.blocks[0].parameters()) * 4
    weights = Weights(checkpoints["dense"], torch.float32, torch.device("cpu"), keep_bytes=1.5 * size)
    engine.run(weights, windows_of(ids), lambda _, logits: logits.clone(), Silent())
    assert [bool(weights.ranges(block)) for block in range(len(weights.blocks))] == [False, True, True]
