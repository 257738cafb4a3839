"""Admission: whether a model can be measured, as far as its configuration and tokenizer tell, before its weights come.

No number follows from what is refused here, so it is left out of lineages.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from outlier_features.config.config import Config
from outlier_features.config.entries import Corpus
from outlier_features.models import architectures, checkpoint_code, footprint
from outlier_features.models.sizes import Footprint
from outlier_features.site_names import SITES, SiteName
from outlier_features.text import tokenize


@dataclass(frozen=True)
class Use:
    """What a model is wanted for: where it is read, and on which text."""

    sites: Sequence[SiteName] = tuple(SITES)
    corpus: Corpus | None = None

    @classmethod
    def of(cls, config: Config) -> "Use":
        """Return what the chosen experiment wants its models for."""
        return cls(config.capture.sites, config.corpora[config.chosen.corpus])


def admit(directory: Path, where: object, use: Use, *, has_tokenizer: bool = True) -> Footprint:
    """Return the sizes of the model whose config.json and tokenizer lie in `directory`.

    Says on stderr that code of the checkpoint is not run, where it asks for any. Raises SourceError,
    ArchitectureError or ConfigError, naming the model as `where`, where it cannot be read or measured.
    """
    found = admit_configuration(architectures.read(directory, where), where, use)
    if has_tokenizer:
        tokenize.require_tokenizer(directory, use.corpus, where)
    if wanted := checkpoint_code.asked_for(directory):
        files, classes = " and ".join(wanted), ", ".join(wanted.values())
        print(
            f"note: {where}: auto_map of {files} wants code of the checkpoint ({classes}), which is never run; "
            f"transformers' own {found.architecture} and tokenizer are used instead",
            file=sys.stderr,
        )
    return found


def admit_configuration(config: PreTrainedConfig, where: object, use: Use) -> Footprint:
    """Return the sizes of the model that `config` describes. Raises as `admit` does."""
    found = footprint.of_config(config, where, use.sites)
    if use.corpus is not None:
        tokenize.require_context(use.corpus, config.get_text_config(), where)
    return found
