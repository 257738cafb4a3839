r"""Predicted damage beside fake quantisation of the same activations of a model, format by format.

PYTHONPATH=workflow:tests/support python benchmarks/damage.py CHECKPOINT TOKENS

The model runs as transformers runs it, with plain hooks on the modules whose names end in one of the suffixes. What
they are handed is quantised by the formats of DEFINITIONS, and predicted from what a capture would keep of it. The
table says how far predictions are from that, in dB over tensors, and how well they rank tensors (Spearman).
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_quantisation
import numpy as np
import page
import pandas as pd
import torch
from kept_magnitudes import Kept
from outlier_features.metrics.damage import damage
from outlier_features.metrics.quantisers import FORMATS
from outlier_features.text.windows import read_windows
from transformers import AutoModelForCausalLM

SUFFIXES = {"attn_in": "q_proj", "out_proj_in": "o_proj", "mlp_in": "up_proj", "down_in": "down_proj"}
COLUMNS = {
    "predicted_sqnr_db": {},
    "predicted_sqnr_rest_db": {"without_channel": True},
    "predicted_sqnr_without_first_db": {"without_first": 1},
}
Windows = dict[str, list[np.ndarray]]


def main() -> None:
    """Print the table, and write it where asked to."""
    options = _options()
    dtype = getattr(torch, options.dtype)
    model = AutoModelForCausalLM.from_pretrained(options.checkpoint, dtype=dtype).eval()
    ids_ST = read_windows(options.tokens).ids_ST[: options.windows]
    blocks = activations(model, torch.as_tensor(ids_ST, dtype=torch.long), options.suffixes)
    text = section(blocks, options)
    print(text)
    if options.output:
        page.write(options.output, "damage", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a directory with config.json and safetensors")
    parser.add_argument("tokens", type=Path, help="the windows of a corpus, results/{corpus}/tokens/{model}.arrow")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--suffixes", type=_suffixes, default=SUFFIXES, metavar="SITE=SUFFIX,…")
    parser.add_argument("--output", type=Path, help="the page to write the table into, such as docs/benchmarks.md")
    return parser.parse_args()


def _suffixes(text: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in text.split(","))


def activations(model: torch.nn.Module, ids_ST: torch.Tensor, suffixes: dict[str, str]) -> list[Windows]:
    """Return, of each block, the windows that its matrices are handed at each site.

    Every block has to have one module of each suffix: the blocks are the modules of a suffix in their order.
    """
    found: dict[str, list[list[np.ndarray]]] = {site: [] for site in suffixes}
    hooks = [
        module.register_forward_pre_hook(_keep(kept))
        for site, suffix in suffixes.items()
        for module, kept in _modules(model, suffix, found[site])
    ]
    try:
        with torch.no_grad():
            for ids_T in ids_ST:
                model(ids_T[None])
    finally:
        for hook in hooks:
            hook.remove()
    return [dict(zip(found, windows, strict=True)) for windows in zip(*found.values(), strict=True)]


def _modules(
    model: torch.nn.Module, suffix: str, kept: list[list[np.ndarray]]
) -> Iterator[tuple[torch.nn.Module, list[np.ndarray]]]:
    for name, module in model.named_modules():
        if name.endswith(suffix):
            kept.append([])
            yield module, kept[-1]


def _keep(kept: list[np.ndarray]) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].reshape(-1, inputs[0].shape[-1]).float().numpy())

    return hook


def section(blocks: list[Windows], options: argparse.Namespace) -> str:
    """Return the table of how far predictions are from quantising."""
    predicted = damage(Kept(blocks)).set_index(["block", "site", "format"])
    rows = []
    for name in FORMATS:
        own = predicted.xs(name, level="format")
        direct = {place: _direct(blocks[place[0]][place[1]], name) for place in own.index}
        table = pd.DataFrame.from_dict(direct, orient="index", columns=list(COLUMNS)).reindex(own.index)
        cells = [_cell(own[column], table[column]) for column in COLUMNS]
        rank = own["predicted_sqnr_db"].rank().corr(table["predicted_sqnr_db"].rank())
        rows.append([name, *cells, f"{rank:.3f}"])
    header = ["format", "all", "without the largest channel", "without position 0", "rank correlation"]
    heading = (
        f"`PYTHONPATH=workflow:tests/support python benchmarks/damage.py {options.checkpoint} {options.tokens} "
        f"--windows {options.windows} --dtype {options.dtype}`: {len(own)} tensors; median and worst of |predicted - "
        "direct| in dB, in brackets the median with its sign."
    )
    return f"## Predicted damage\n\n{heading}\n\n{page.table(header, rows)}"


def _direct(x_STC: list[np.ndarray], name: str) -> list[float]:
    wide = [x_TC.astype(np.float64) for x_TC in x_STC]
    trips = fake_quantisation.round_trips(wide, name)
    return [fake_quantisation.ratio_db(wide, trips, **options) for options in COLUMNS.values()]


def _cell(predicted: pd.Series, direct: pd.Series) -> str:
    apart = (predicted - direct).replace([np.inf, -np.inf], np.nan).dropna()
    return f"{apart.abs().median():.2f}, {apart.abs().max():.2f} ({apart.median():+.2f})"


if __name__ == "__main__":
    main()
