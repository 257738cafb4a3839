"""What can be named: models, corpora and definitions of a configuration, figures and sites of the library."""

from collections.abc import Callable

from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus, Model
from outlier_features.figures import catalogue
from outlier_features.metrics import criteria
from outlier_features.site_names import SITES


def models(config: Config) -> dict[str, str]:
    """Return the models, and where each comes from."""
    return {name: f"{model.named(name)}: {_model(model)}, {model.dtype}" for name, model in config.models.items()}


def corpora(config: Config) -> dict[str, str]:
    """Return the corpora, and how they are cut."""
    return {
        name: f"{_corpus(corpus)}; {corpus.sequences} x {corpus.length} tokens"
        for name, corpus in config.corpora.items()
    }


def definitions(config: Config) -> dict[str, str]:
    """Return the definitions of an outlier feature; each has a scale-free twin, its name with _rms."""
    return {name: criteria.words(found) for name, found in config.definitions.items()}


def figures(_: Config) -> dict[str, str]:
    """Return every figure, of an experiment, of a training series or of a model."""
    return {name: f"{figure.title} (of {SCOPES[figure.scope]})" for name, figure in catalogue.FIGURES.items()}


def sites(_: Config) -> dict[str, str]:
    """Return the places where activations are read."""
    return dict(SITES.items())


LISTS: dict[str, Callable[[Config], dict[str, str]]] = {
    "models": models,
    "corpora": corpora,
    "definitions": definitions,
    "figures": figures,
    "sites": sites,
}


def _model(model: Model) -> str:
    if model.train is not None:
        return "trained here"
    return next(f"{kind} {value}" for kind in ("hub", "path", "package") if (value := getattr(model, kind)))


def _corpus(corpus: Corpus) -> str:
    return next(f"{kind} {value}" for kind in ("hub", "path", "package") if (value := getattr(corpus, kind)))


SCOPES = {
    "experiment": "an experiment",
    "series": "a training series",
    "model": "each model",
    "mixture": "each mixture of experts",
}
"""What figures are of."""
