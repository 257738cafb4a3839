"""Text to train on, made by a rule."""

import random


def synthetic_documents() -> list[str]:
    """Return sentences in which the first word settles the others, so that only the order of words can be learned."""
    chance = random.Random(0)
    sentences = ["red foxes run far. ", "old owls sleep late. ", "big bears eat fish. ", "wet newts hide well. "]
    return ["".join(chance.choices(sentences, k=40)) for _ in range(12)]
