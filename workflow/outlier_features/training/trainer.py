"""Training of a small causal language model from scratch, the same for every architecture of transformers.

Recipes that agree in corpus, vocabulary, length, batch, steps and seed read the same tokens in the same order, whatever
their architecture: then nothing but the architecture sets two models apart.
"""

# Shapes: W windows of the text, B windows of a step, T position in a window.

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler
from torch.utils import deterministic
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

from outlier_features.config.entries import Recipe
from outlier_features.errors import ConfigError, SourceError
from outlier_features.training.tokenizer import train_tokenizer

WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises; it then falls to zero along a cosine."""
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0
"""Gradients of a larger norm are scaled down to this one."""
REPORTED_STEPS = 20
"""The final loss is the mean of so many last steps."""


def train(recipe: Recipe, documents: Iterable[str], directory: Path) -> dict[str, int | float]:
    """Train the tokenizer and the model of `recipe` on `documents` and save both into `directory`.

    Returns steps, tokens_seen, final_loss (nats a token, without the loss of the routers), seed, vocabulary and the
    number of threads.
    The same recipe, documents, machine and number of threads give the same bits. Nothing is written before the end.
    Raises SourceError if the documents do not fill the windows of one step or the loss does not stay finite, and
    ConfigError if transformers does not know the architecture.
    """
    texts = list(documents)
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    config = _configuration(recipe, tokenizer)
    windows_WT = cut_windows(texts, tokenizer, recipe.length)
    _check_count(len(windows_WT), recipe)
    with _reproducible(recipe.seed):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        losses = _fit(model, windows_WT, recipe)
    model.save_pretrained(directory)
    tokenizer.model_max_length = getattr(config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.save_pretrained(directory)
    return _facts(recipe, losses, len(tokenizer))


def cut_windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int) -> torch.Tensor:
    """Return the documents, each ended by the eos token, as token ids (W, T = `length`); a shorter rest is dropped."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    ids = [token for encoding in encodings for token in (*encoding.ids, tokenizer.eos_token_id)]
    count = len(ids) // length
    return torch.tensor(ids[: count * length], dtype=torch.long).view(count, length)


def _configuration(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    model_type = recipe.architecture["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(f"train.architecture.model_type: {model_type!r} is no model type of transformers.")
    from_tokenizer = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    return AutoConfig.for_model(**{**recipe.architecture, **from_tokenizer})


def _check_count(windows: int, recipe: Recipe) -> None:
    if windows < recipe.batch:
        raise SourceError(
            f"the training text of corpus {recipe.corpus} gives {windows} windows of {recipe.length} tokens, but at "
            f"least {recipe.batch} are needed (one batch); name more training files, or lower batch or length."
        )


def _facts(recipe: Recipe, losses: Sequence[float], vocabulary: int) -> dict[str, int | float]:
    reported = losses[-REPORTED_STEPS:]
    return {
        "steps": recipe.steps,
        "tokens_seen": recipe.steps * recipe.batch * recipe.length,
        "final_loss": sum(reported) / len(reported),
        "seed": recipe.seed,
        "vocabulary": vocabulary,
        "threads": torch.get_num_threads(),
    }


def _fit(model: PreTrainedModel, windows_WT: torch.Tensor, recipe: Recipe) -> list[float]:
    """Train `model` in place and return the cross-entropy of every step."""
    accelerator = Accelerator(mixed_precision="no")
    optimizer = _optimizer(model, recipe.learning_rate)
    schedule = _schedule(optimizer, recipe.steps)
    model, optimizer, schedule = accelerator.prepare(model.train(), optimizer, schedule)
    losses: list[float] = []
    with _progress(recipe) as progress:
        for batch_BT in _batches(windows_WT, recipe):
            cross_entropy, objective = _losses(model, batch_BT.to(accelerator.device))
            accelerator.backward(objective)
            accelerator.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(_finite(cross_entropy.item(), step=len(losses)))
            progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            progress.update(batch_BT.numel())
    return losses


def _optimizer(model: PreTrainedModel, learning_rate: float) -> torch.optim.Optimizer:
    # gains and biases are not decayed, as is usual: a decayed gain would shrink the channels that are measured later
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP_SHARE * steps), steps)


def _progress(recipe: Recipe) -> tqdm:
    """Return a bar on stderr that counts tokens and shows loss, tokens a second and the time left."""
    tokens = recipe.steps * recipe.batch * recipe.length
    name = f"train {recipe.architecture['model_type']}"
    return tqdm(total=tokens, unit=" tokens", unit_scale=True, desc=name, mininterval=1)


def _batches(windows_WT: torch.Tensor, recipe: Recipe) -> Iterator[torch.Tensor]:
    for chosen_B in _order(len(windows_WT), recipe.steps * recipe.batch, recipe.seed).split(recipe.batch):
        yield windows_WT[chosen_B]


def _order(windows: int, wanted: int, seed: int) -> torch.Tensor:
    """Return `wanted` indices of windows: all of them shuffled, then all again in another order, as often as needed."""
    generator = torch.Generator().manual_seed(seed)
    rounds = math.ceil(wanted / windows)
    return torch.cat([torch.randperm(windows, generator=generator) for _ in range(rounds)])[:wanted]


def _losses(model: PreTrainedModel, batch_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the next-token cross-entropy in nats, and what is minimised: with the balancing loss of the routers."""
    options = {"output_router_logits": True} if hasattr(model.config, "output_router_logits") else {}
    output = model(batch_BT[:, :-1], use_cache=False, **options)
    cross_entropy = functional.cross_entropy(output.logits.flatten(0, 1), batch_BT[:, 1:].flatten())
    if not options:
        return cross_entropy, cross_entropy
    return cross_entropy, cross_entropy + model.config.router_aux_loss_coef * output.aux_loss


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise SourceError(f"training diverged: the loss of step {step} is {loss}; lower learning_rate in the recipe.")
    return loss


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch and ask for deterministic algorithms while the context is open; afterwards both are as before."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        # warn_only: an operation without a deterministic form on CUDA costs repeatability there, not the training
        torch.use_deterministic_algorithms(True, warn_only=True)
        # filling every new tensor with NaN would cost a seventh of the time on a CPU
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
