"""Local sources: the folders, files and packages that the chosen experiment names are there.

Asked when the configuration is checked, before anything is planned; only names are looked up, nothing is read.
"""

from collections.abc import Iterator
from pathlib import Path

from outlier_features.artefacts import packages
from outlier_features.config.config import Config
from outlier_features.errors import ConfigError, SourceError
from outlier_features.models.weight_files import ADAPTER_CONFIG
from outlier_features.text import documents

CONFIG = "config.json"
REMEDY = "give the directory of a checkpoint; a path is relative to where the command runs."


def require(config: Config, where: str = "config.yaml", *, has_packages: bool = True) -> None:
    """Raise ConfigError, one line a mistake, where a model or a text of the chosen experiment is not there.

    Without `has_packages` those of this process are not the ones that count, and none is looked up.
    """
    found = [*_of_models(config, has_packages), *_of_texts(config, has_packages)]
    if found:
        raise ConfigError("\n".join(f"{where}: {mistake}" for mistake in found))


def _of_models(config: Config, has_packages: bool) -> Iterator[str]:
    for name in dict.fromkeys(config.chosen.models):
        model = config.models[name]
        try:
            if model.path is not None:
                _require_model(Path(model.path))
            elif model.package is not None and has_packages:
                packages.file(model.package, str(model.file))
        except SourceError as error:
            yield f"models.{name}.{'path' if model.path else 'package'}: {error}"


def _of_texts(config: Config, has_packages: bool) -> Iterator[str]:
    """Yield what is wrong with the texts that are measured and trained on."""
    trained_on = [recipe.corpus for name in config.chosen.models if (recipe := config.models[name].train)]
    wanted: list[tuple[str, documents.Part]] = [(config.chosen.corpus, "files")]
    wanted += [(name, "training") for name in trained_on]
    for name, part in dict.fromkeys(wanted):
        corpus = config.corpora[name]
        try:
            if corpus.path is not None or (corpus.package is not None and has_packages):
                documents.files(corpus, part)
        except SourceError as error:
            yield f"corpora.{name}.{'path' if corpus.path else 'package'}: {error}"


def _require_model(path: Path) -> None:
    if not path.is_dir():
        raise SourceError(f"{path}: {'is no' if path.exists() else 'no such'} directory; {REMEDY}")
    if not any((path / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        raise SourceError(f"{path}: has no {CONFIG}; {REMEDY}")
