"""The tokenizer that is trained: text survives it to the character, and offsets name its bytes."""

from itertools import accumulate

from outlier_features.training.tokenizer import train_tokenizer
from synthetic_text import synthetic_documents

FRENCH = "Où est passée la naïveté ? « Ça coûte 3 € », dit-il — 日本語も、emoji 🦔🏽 aussi.\r\n\tFin\u00a0!"


def test_text_survives_the_tokenizer_to_the_character() -> None:
    tokenizer = train_tokenizer(synthetic_documents(), 320)
    assert tokenizer.decode(tokenizer(FRENCH)["input_ids"]) == FRENCH


def test_offsets_name_the_characters_whose_bytes_a_token_holds() -> None:
    tokenizer = train_tokenizer([FRENCH, *synthetic_documents()], 400)
    encoded = tokenizer(FRENCH, return_offsets_mapping=True)
    character_of_byte = [index for index, character in enumerate(FRENCH) for _ in character.encode()]
    # in the byte-level alphabet a token has one letter for each of its bytes
    sizes = [len(token) for token in tokenizer.convert_ids_to_tokens(encoded["input_ids"])]
    ends = list(accumulate(sizes))
    starts = [0, *ends[:-1]]
    expected = [(character_of_byte[a], character_of_byte[b - 1] + 1) for a, b in zip(starts, ends, strict=True)]
    assert encoded["offset_mapping"] == expected
    assert ends[-1] == len(FRENCH.encode())


def test_tokenizer_adds_no_tokens_and_keeps_to_its_size() -> None:
    tokenizer = train_tokenizer(synthetic_documents(), 300)
    assert len(tokenizer) == 300
    assert tokenizer.bos_token is None
    assert tokenizer("red foxes")["input_ids"] == tokenizer("red foxes", add_special_tokens=False)["input_ids"]
    assert tokenizer.eos_token_id not in tokenizer("red foxes")["input_ids"]
