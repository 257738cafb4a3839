"""The windows of 2025 straight from their definition."""

from pathlib import Path

from transformers import AutoTokenizer


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
