"""The checkpoint of a trained model: like a fetched one, with the recipe as its source."""

from pathlib import Path

from outlier_features.artefacts import atomic
from outlier_features.artefacts.lineage import Lineage
from outlier_features.config.entries import Corpus, Recipe
from outlier_features.models.checkpoints import seal
from outlier_features.text.documents import documents
from outlier_features.training.trainer import train


def train_checkpoint(recipe: Recipe, corpus: Corpus, output: Path, lineage: Lineage) -> None:
    """Train a model on the training part of a corpus and put its checkpoint into the directory `output`."""
    with atomic.directory(output) as unfinished:
        facts = train(recipe, documents(corpus, "training"), unfinished)
        seal(unfinished, {"train": recipe.canonical(), "text": corpus.canonical(), **facts}, lineage)
