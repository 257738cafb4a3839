r"""imatrix.gguf beside what llama.cpp's own tool writes of the same text, and whether its quantiser takes it.

PYTHONPATH=workflow:tests/support python benchmarks/imatrix.py CHECKPOINT TEXT --llama-cpp SOURCE --bin BIN

SOURCE is a checkout of llama.cpp, or the one that the sdist of llama-cpp-python has under vendor/; BIN holds
`llama-imatrix` and `llama-quantize` built from it. Its conversion wants the package sentencepiece. The checkpoint is
converted to float32 and run on the windows that the tool cuts the text into; so are tiny random models of other
architectures, which have its tokenizer.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
import page
import torch
from exports import Exported
from outlier_features.capture.run import capture
from outlier_features.models.checkpoints import seal
from outlier_features.site_names import SITES
from small_models import capture_settings, write_windows
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

COMMON = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
EXPERTS = {"num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "shared_expert_intermediate_size": 256,
    "num_hidden_layers": 4,
}
TINY = {
    "gpt2": {"n_embd": 256, "n_layer": 3, "n_head": 4, "n_positions": 1024, "bos_token_id": 1, "eos_token_id": 2},
    "mixtral": COMMON | EXPERTS,
    "olmoe": COMMON | EXPERTS | {"num_key_value_heads": 4},
    "qwen3_moe": COMMON | EXPERTS | {"norm_topk_prob": True},
    "qwen3_next": COMMON | EXPERTS | LINEAR | {"norm_topk_prob": True},
}
"""Architectures whose forward llama.cpp has as transformers does, with the options that it takes for granted."""
TYPES = ("IQ2_XXS", "Q4_K_M")
FLOAT32 = ("-fa", "off", "-ctk", "f32", "-ctv", "f32")


def main() -> None:
    """Print the table, and write it where asked to."""
    options = _options()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        models = {"checkpoint": options.checkpoint}
        models |= {name: tiny(name, Path(folder) / name, options.checkpoint) for name in TINY}
        rows = [row(name, model, Path(folder), options) for name, model in models.items()]
    text = section(rows, options)
    print(text)
    if options.output:
        page.write(options.output, "imatrix", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a directory with config.json, safetensors and tokenizer.json")
    parser.add_argument("text", type=Path, help="a text of at least CHUNKS x LENGTH tokens")
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--output", type=Path, help="the page to write the table into, such as docs/benchmarks.md")
    return parser.parse_args()


def tiny(name: str, folder: Path, tokenizer: Path) -> Path:
    """Save a random model with the tokenizer of another."""
    torch.manual_seed(0)
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = AutoConfig.for_model(name, vocab_size=vocabulary, **TINY[name])
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    written = json.loads((folder / "config.json").read_text()) | {"n_ctx": 1024}  # conversion of GPT-2 asks for it
    (folder / "config.json").write_text(json.dumps(written))
    seal(folder, {"path": name}, {"checkpoint": "benchmark"})
    return folder


def row(name: str, model: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the table's row of one model."""
    whole, theirs = folder / f"{name}.gguf", folder / f"{name}.imatrix.gguf"
    convert = [sys.executable, options.llama_cpp / "convert_hf_to_gguf.py", model, "--outtype", "f32"]
    run(*convert, "--outfile", whole, *(["--no-mtp"] if name == "qwen3_next" else []))
    length = str(options.length)
    sizes = ["-c", length, "-b", length, "-ub", length, "--chunks", str(options.chunks)]
    run(options.bin / "llama-imatrix", "-m", whole, "-f", options.text, "-o", theirs, *sizes, "--no-ppl", *FLOAT32)
    ours = exported(model, folder / f"{name}.ours", options)
    accepted = [run(options.bin / "llama-quantize", "--imatrix", ours, whole, folder / "q.gguf", to) for to in TYPES]
    assert len(accepted) == len(TYPES)
    label = options.checkpoint.name if name == "checkpoint" else f"{name}, tiny"
    return [label, *differences(read(theirs), read(ours)), ", ".join(TYPES)]


def run(*command: object) -> str:
    """Run a command and return what it says; its failure is one."""
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def exported(model: Path, folder: Path, options: argparse.Namespace) -> Path:
    """Capture and export a model on the windows that llama.cpp cuts the text into."""
    ids = AutoTokenizer.from_pretrained(model)(options.text.read_text(), add_special_tokens=False)["input_ids"]
    folder.mkdir()
    count = options.chunks * options.length
    tokens = write_windows(folder / "tokens.arrow", np.array(ids[:count]).reshape(options.chunks, -1))
    settings = capture_settings(sites=tuple(SITES))
    capture(model, tokens, folder / "m.json", settings, {"statistics": "test"})
    return Exported(folder, [folder / "m.json"], tokens).folder / "imatrix.gguf"


def read(path: Path) -> dict[str, np.ndarray]:
    """Return what is in an imatrix."""
    return {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}


def differences(theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> list[str]:
    """Return how many matrices both have, only one has, differ in a count, and how far sums are apart."""
    both = sorted(theirs.keys() & ours.keys())
    assert all(theirs[name].shape == ours[name].shape for name in both)
    counts = [name for name in both if name.endswith(".counts")]
    apart = [np.abs(theirs[name] / ours[name] - 1).ravel() for name in both if name.endswith(".in_sum2")]
    alone = [sum(name.endswith(".counts") for name in only) for only in (theirs.keys() - ours, ours.keys() - theirs)]
    unequal = sum(not np.array_equal(theirs[name], ours[name]) for name in counts)
    every = np.concatenate(apart)
    return [str(len(counts)), *map(str, alone), str(unequal), f"{np.median(every):.1e}", f"{every.max():.1e}"]


def section(rows: list[list[str]], options: argparse.Namespace) -> str:
    """Return the table in words."""
    header = ["model", "matrices", "only theirs", "only ours", "counts apart", "median", "largest", "quantised to"]
    words = (
        "`PYTHONPATH=workflow:tests/support python benchmarks/imatrix.py CHECKPOINT TEXT --llama-cpp SOURCE --bin BIN "
        f"--chunks {options.chunks} --length {options.length}`: sums of squares and counts that `llama-imatrix` writes "
        "of a float32 model beside those of imatrix.gguf, by matrix (experts are one, with a count each); relative "
        "difference of sums over all channels. Both run in float32; llama.cpp has GELU from a table in half precision. "
        "Only ours are names that older conversions gave (`ssm_in`)."
    )
    return f"## imatrix.gguf beside llama.cpp's own\n\n{words}\n\n{page.table(header, rows)}"


if __name__ == "__main__":
    main()
