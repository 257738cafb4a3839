"""Training of a small causal language model from scratch, the same for every architecture of transformers.

Recipes with the same corpus, vocabulary, length, batch, steps and seed read the same tokens in the same order, whatever
their architecture: models trained by them differ by nothing else.
"""

# Shapes: W windows of the text, B windows of a step, T position in a window, V vocabulary.

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from outlier_features.config import Recipe
from outlier_features.errors import ConfigError, SourceError
from outlier_features.training.tokenizer import train_tokenizer

WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises; it then falls to zero along a cosine."""
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0
"""Gradients are scaled down to this norm."""
REPORTED_STEPS = 20
"""The final loss is the mean of so many last steps."""


def train(recipe: Recipe, documents: Iterable[str], directory: Path) -> dict[str, int | float]:
    """Train the model of `recipe` and its tokenizer on `documents` and write both into `directory`.

    Returns steps, tokens_seen, final_loss (nats a token, without the router's loss), seed and vocabulary. On one machine
    the same recipe and documents give the same bits. Nothing is written before training has ended.
    Raises SourceError if the documents give fewer windows than one step reads or the loss does not stay finite, and
    ConfigError if transformers does not know the architecture.
    """
    texts = list(documents)
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    windows_WT = cut_windows(texts, tokenizer, recipe.length)
    if len(windows_WT) < recipe.batch:
        raise SourceError(
            f"the training text gives {len(windows_WT)} windows of {recipe.length} tokens, but at least {recipe.batch} "
            "are needed for one step; add training files to the corpus or lower batch or length in the recipe."
        )
    config = configuration(recipe, tokenizer)
    with _reproducible(recipe.seed):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        losses = _fit(model, windows_WT, recipe)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    reported = losses[-REPORTED_STEPS:]
    return {
        "steps": recipe.steps,
        "tokens_seen": recipe.steps * recipe.batch * recipe.length,
        "final_loss": sum(reported) / len(reported),
        "seed": recipe.seed,
        "vocabulary": len(tokenizer),
    }


def cut_windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int) -> torch.Tensor:
    """Return the documents as token ids (W, T = `length`), each ended by the eos token; what fills no window is left."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    ids = [token for encoding in encodings for token in (*encoding.ids, tokenizer.eos_token_id)]
    count = len(ids) // length
    return torch.tensor(ids[: count * length], dtype=torch.long).view(count, length)


def configuration(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Return the transformers configuration of a recipe, and tell the tokenizer the longest text the model takes."""
    model_type = recipe.architecture["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(f"train.architecture.model_type: this version of transformers knows no {model_type!r}.")
    from_tokenizer = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    config = AutoConfig.for_model(**{**recipe.architecture, **from_tokenizer})
    tokenizer.model_max_length = config.max_position_embeddings
    return config


def _fit(model: PreTrainedModel, windows_WT: torch.Tensor, recipe: Recipe) -> list[float]:
    """Train `model` in place and return the cross-entropy of every step."""
    accelerator = Accelerator(mixed_precision="no")
    optimizer = _optimizer(model, recipe.learning_rate)
    schedule = _schedule(optimizer, recipe.steps)
    model, optimizer, schedule = accelerator.prepare(model.train(), optimizer, schedule)
    losses = []
    for batch_BT in _batches(windows_WT, recipe):
        cross_entropy, objective = _losses(model, batch_BT.to(accelerator.device))
        accelerator.backward(objective)
        accelerator.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(cross_entropy.item())
    return losses


def _losses(model: PreTrainedModel, batch_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the next-token cross-entropy (nats) and what is minimised: with the router's balancing loss, if any."""
    routed = hasattr(model.config, "output_router_logits")
    output = model(batch_BT[:, :-1], use_cache=False, **({"output_router_logits": True} if routed else {}))
    cross_entropy = functional.cross_entropy(output.logits.flatten(0, 1), batch_BT[:, 1:].flatten())
    if not routed:
        return cross_entropy, cross_entropy
    return cross_entropy, cross_entropy + model.config.router_aux_loss_coef * output.aux_loss


def _optimizer(model: PreTrainedModel, learning_rate: float) -> torch.optim.Optimizer:
    # gains and biases are not decayed: pulling a norm's gain to zero would shape the very features that are measured
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP_SHARE * steps), steps)


def _batches(windows_WT: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    order = _order(len(windows_WT), recipe.steps * recipe.batch, recipe.seed)
    for chosen_B in order.split(recipe.batch):
        yield windows_WT[chosen_B]


def _order(windows: int, wanted: int, seed: int) -> torch.Tensor:
    """Return `wanted` window indices: all windows shuffled, then all again in another order, until there are enough."""
    generator = torch.Generator().manual_seed(seed)
    rounds = math.ceil(wanted / windows)
    return torch.cat([torch.randperm(windows, generator=generator) for _ in range(rounds)])[:wanted]


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch and ask it for deterministic algorithms while the context is open; both are put back afterwards."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = filled
