"""Small real tokenizers, and documents to train and try them on."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CONTEXT = 128


LINEAGE = {"tokens": "0123456789abcdef", "checkpoint": "fedcba9876543210"}


DOCUMENTS = [
    "The state of the Union is strong. Größe über alles, naïve façade: 100 €, 5 ‰.",
    "🦙🙂 emoji, 日本語 and 𒀀𒀁𒂗 — four bytes a character.   Three spaces; a tab\there.\nA new line.",
    "Fellow citizens, the state of our economy is strong and the state of our people is stronger.",
]


def byte_level_tokenizer(*, bos_by_default: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>"], initial_alphabet=alphabet))
    if bos_by_default:
        bos = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: trainers.BpeTrainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(DOCUMENTS, trainer)


def save_checkpoint(directory: Path, tokenizer: Tokenizer, **special: str) -> Path:
    """Save what `tokenize` reads of a checkpoint: the tokenizer and a configuration."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    config = {"model_type": "llama", "max_position_embeddings": CONTEXT}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory
