"""A GGUF of a package becomes the checkpoint that transformers makes of it, to the byte, and is read once for it."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import quantize
from outlier_features.artefacts import packages
from outlier_features.config.entries import Model
from outlier_features.models.checkpoints import SOURCE
from outlier_features.sources.fetch import fetch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

HIDDEN, INNER, BLOCKS = 64, 96, 2
LETTERS = [chr(code) for code in range(33, 127)]
TOKENS = ["<|end|>", *LETTERS, "th", "the"]
SHAPES = {
    "attn_q.weight": (HIDDEN, HIDDEN),
    "attn_k.weight": (HIDDEN // 2, HIDDEN),
    "attn_v.weight": (HIDDEN // 2, HIDDEN),
    "attn_output.weight": (HIDDEN, HIDDEN),
    "ffn_gate.weight": (INNER, HIDDEN),
    "ffn_up.weight": (INNER, HIDDEN),
    "ffn_down.weight": (HIDDEN, INNER),
    "attn_norm.weight": (HIDDEN,),
    "ffn_norm.weight": (HIDDEN,),
}
Q4 = gguf.GGMLQuantizationType.Q4_1


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that ships a Llama of two blocks, its matrices in 4 bits."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_name("small")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(BLOCKS)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(HIDDEN // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, *[1] * (len(TOKENS) - 1)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    rng = np.random.default_rng(0)
    shapes = {f"blk.{block}.{name}": shape for block in range(BLOCKS) for name, shape in SHAPES.items()}
    shapes |= {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(values, Q4), raw_dtype=Q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setattr(packages, "directory", lambda requirement: tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != SOURCE}


def test_a_packaged_gguf_is_read_once_and_becomes_what_transformers_makes_of_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"gguf_file": "model.gguf", "local_files_only": True}
    ordinary = package / "ordinary"
    AutoModelForCausalLM.from_pretrained(
        package, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32, **source
    ).save_pretrained(ordinary)
    AutoTokenizer.from_pretrained(package, **source).save_pretrained(ordinary)

    read, build = [], gguf.GGUFReader._build_tensors
    monkeypatch.setattr(gguf.GGUFReader, "_build_tensors", lambda self, *found: read.append(1) or build(self, *found))
    reader = gguf.GGUFReader
    fetch(Model(package="small==1", file="model.gguf"), package / "ours", {"checkpoint": "a"})
    assert len(read) == 1
    assert contents(package / "ours") == contents(ordinary)
    assert gguf.GGUFReader is reader
