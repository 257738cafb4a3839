"""Texts in many alphabets, tokenizers trained on them, and the windows they are cut into."""

# Shapes: S sequence (window), T position.

import json

# Shapes: N tensor, S sequence, T position, C channel.
from pathlib import Path
from typing import Any

from outlier_features.config.entries import Corpus
from outlier_features.text.tokenize import tokenize
from outlier_features.text.windows import TokenWindows, read_windows
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

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


def trimming_tokenizer() -> Tokenizer:
    tokenizer = byte_level_tokenizer()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def sentencepiece_like_tokenizer() -> Tokenizer:
    """Return a tokenizer that adds a space of its own before the text and falls back to bytes, as Mixtral's does."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    letters = sorted({character for text in DOCUMENTS for character in text if "!" <= character <= "~"})
    specials = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    _train(tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=specials, limit_alphabet=len(letters)))
    # the trainer registers byte tokens as special ones, which would match the text "<0x0A>"; the model keeps them
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def _train(tokenizer: Tokenizer, trainer: trainers.BpeTrainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(DOCUMENTS, trainer)


def save_checkpoint(directory: Path, tokenizer: Tokenizer, **special: str) -> Path:
    """Save what `tokenize` reads of a checkpoint: the tokenizer and a configuration."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)
    config = {"model_type": "llama", "max_position_embeddings": CONTEXT}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def stream(checkpoint: Path) -> list[int]:
    """Return the tokens of all documents, each with its separator, straight from the tokenizer."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    return [token for text in DOCUMENTS for token in tokenizer.encode(f"{text}\n\n", add_special_tokens=False).ids]


def windows(checkpoint: Path, output: Path, **corpus: Any) -> TokenWindows:
    tokenize(checkpoint, Corpus(**corpus), output, LINEAGE)
    return read_windows(output, LINEAGE["tokens"])


def tokens_of(checkpoint: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab()


def naive_windows(checkpoint: Path, texts: list[str], sequences: int, length: int) -> list[str]:
    """Return the texts of the windows, word for word as they are defined."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    length = min(length, tokenizer.model_max_length)
    found: list[str] = []
    buffer = ""
    for text in texts:
        buffer = buffer + " " + text
        held = len(tokenizer.encode(buffer, add_special_tokens=False))
        while held >= length and len(found) < sequences:
            ids = tokenizer.encode(buffer, add_special_tokens=False)
            found.append(tokenizer.decode(ids[:length], skip_special_tokens=True))
            moved_on = ids[length // 2 :]
            buffer, held = tokenizer.decode(moved_on, skip_special_tokens=True), len(moved_on)
    return found
