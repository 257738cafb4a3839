"""What the command line says of itself: a short tour, the commands by what a person wants, and ten words."""

import textwrap
from collections.abc import Iterable, Mapping

WIDTH = 100

TOUR = """outlier-features: which channels of a language model carry outlier features, where, and what breaks.

One model, a folder or a hub id; no configuration, no Snakemake:
  outlier-features measure PATH_OR_HUB_ID
  outlier-features measure PATH_OR_HUB_ID --text my_texts.jsonl --threshold 8

What the words mean:                outlier-features explain
All commands:                       outlier-features --help
The experiments of a config.yaml:   snakemake --cores 1 --resources gpu=1
                                    outlier-features show
"""

EXAMPLES = """examples:
  outlier-features measure ./my-checkpoint
  outlier-features measure Qwen/Qwen3-0.6B Qwen/Qwen3-1.7B --sequences 8 --length 1024
  outlier-features show --layers --definition llm_int8
  outlier-features plan --experiment moe_vs_dense
"""

WORDS = {
    "channel": "One coordinate of a hidden state: SmolLM2-135M has 576 of them, the same in every block.",
    "block": "A decoder layer, attention and MLP. Blocks count from 0.",
    "site": (
        "Where in a block activations are read, by what consumes them: attn_in (input of attention), out_proj_in "
        "(input of its output projection), mlp_in (input of the MLP or the experts), residual (output of the block)."
    ),
    "tensor": "One site of one block.",
    "window": "One sequence of tokens that is run; the first token of it is position 0.",
    "hit": "An activation with |x| at or over the threshold (6, after Dettmers et al. 2022).",
    "outlier feature": (
        "A channel with hits in at least 25 % of the tensors and at 6 % of the positions: the same few channels, all "
        "through the model. They stretch the scale that int8 rounds with, and something may hang on them."
    ),
    "massive activation": (
        "A value of the residual stream over 100 and 1,000 times the median: a handful, mostly at position 0."
    ),
    "kurtosis": "How unequal channels are: 1 if all are alike, as many as there are channels if one holds everything.",
    "mixture of experts": (
        "A model whose MLP is many experts, of which a router sends each token to a few: total and active parameters "
        "differ."
    ),
}
"""The words of the page, the terminal and the README, each explained once."""


def explanation() -> str:
    """Return the words as they are printed in a terminal."""
    wide = max(map(len, WORDS)) + 2
    return "\n".join(_paragraph(word, text, wide) for word, text in WORDS.items())


def grouped(groups: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    """Return commands and their words, a heading for each group."""
    parts = []
    for heading, commands in groups.items():
        parts += [f"{heading}:", *(_paragraph(f"  {name}", words, 14) for name, words in commands), ""]
    return "\n".join(parts)


def _paragraph(head: str, text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=head.ljust(indent), subsequent_indent=" " * indent)
