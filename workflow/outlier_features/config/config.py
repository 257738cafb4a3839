"""Config: the experiments as strict, frozen types: config.yaml is checked in full before anything runs.

Data only. No result follows from the code of this module, so it is left out of lineages: what a stage reads of the
configuration is hashed by value instead.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from outlier_features.config import parts, series, yaml_places
from outlier_features.config.entries import Capture, Corpus, Definition, Experiment, Model, Name, Strict
from outlier_features.config.mistakes import explained, keys, outermost, require_known
from outlier_features.config.suggestions import nearest
from outlier_features.config.variants import Calibrated, Intervention, Variant, Vary
from outlier_features.errors import ConfigError
from outlier_features.site_names import SiteName
from outlier_features.thresholds import exact, grid


class Config(Strict):
    """All of config.yaml."""

    experiment: Name
    experiments: dict[Name, Experiment]
    models: dict[Name, Model]
    corpora: dict[Name, Corpus]
    definitions: dict[Name, Definition]
    capture: Capture
    variants: dict[Name, Variant] = Field(default_factory=dict)
    interventions: dict[Name, Intervention] = Field(default_factory=dict)
    vary: Vary = Vary()

    @classmethod
    def read(cls, path: Path) -> "Config":
        """Read and check a configuration file. Raises ConfigError, one line a mistake."""
        return cls.check(yaml_places.read(path), str(path), [path])

    @classmethod
    def check(cls, values: Any, where: str = "config.yaml", files: Sequence[Path] = ()) -> "Config":
        """Check plain values. Raises ConfigError, one line a mistake, with its line in the `files` they came from."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            mistakes = [(found, yaml_places.place(files, keys(found))) for found in outermost(error)]
            words = [f"{place or where}: {explained(cls, found)}" for found, place in mistakes]
            raise ConfigError("\n".join(words)) from error

    @model_validator(mode="before")
    @classmethod
    def _each_revision_is_a_model(cls, values: Any) -> Any:
        return series.expanded(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        require_known("experiment", self.experiment, self.experiments)
        for name, experiment in self.experiments.items():
            require_known(f"experiments.{name}.corpus", experiment.corpus, self.corpora)
            for model in experiment.models:
                require_known(f"experiments.{name}.models", model, self.models)
        for name, entry in self.models.items():
            if re.search(f"{parts.PART}$", name):
                raise ValueError(f"models.{name}: ends like a part of a scattered capture; give it another name")
            if entry.train:
                require_known(f"models.{name}.train.corpus", entry.train.corpus, self.corpora)
                if not self.corpora[entry.train.corpus].training:
                    raise ValueError(f"models.{name}.train: corpora.{entry.train.corpus} names no training files")
        return self

    @model_validator(mode="after")
    def _every_part_has_a_window(self) -> Self:
        windows = self.corpora[self.chosen.corpus].sequences
        if self.capture.scatter > windows:
            raise ValueError(
                f"capture.scatter: {self.capture.scatter} jobs cannot share {windows} windows out "
                f"(corpora.{self.chosen.corpus}.sequences); give 1 to {windows}"
            )
        return self

    @model_validator(mode="after")
    def _definitions_can_be_answered(self) -> Self:
        for name, definition in self.definitions.items():
            for site in definition.sites:
                if site not in self.capture.sites:
                    raise ValueError(f"definitions.{name}.sites: {site} is not among capture.sites; add it there")
            for key in ("thresholds", "rms_thresholds"):
                on_grid = getattr(self.capture, key)
                if exact(definition.threshold) not in grid(on_grid):
                    raise ValueError(
                        f"definitions.{name}.threshold {definition.threshold:g} is not on the grid capture.{key} "
                        f"({', '.join(f'{value:g}' for value in on_grid)}); choose one of these or add it there"
                    )
        return self

    @model_validator(mode="after")
    def _variants_can_be_made(self) -> Self:
        entries: dict[str, Calibrated] = {f"variants.{name}": entry for name, entry in self.variants.items()}
        entries |= {f"interventions.{name}": entry for name, entry in self.interventions.items()}
        corpus = self.corpora[self.chosen.corpus]
        for name, entry in entries.items():
            for model in entry.models or ():
                require_known(f"{name}.models", model, self.models)
            if entry.calibration == "training" and not corpus.training:
                raise ValueError(
                    f"{name}.calibration: corpora.{self.chosen.corpus} names no training files; name some, or give "
                    "calibration: measured"
                )
            too_many = entry.asks_for_windows and entry.windows > corpus.sequences
            if too_many and self.calibrates_on(entry) == "measured":
                raise ValueError(
                    f"{name}.windows: {entry.windows} are more than corpora.{self.chosen.corpus}.sequences "
                    f"({corpus.sequences}); lower it"
                )
        for name, intervention in self.interventions.items():
            if isinstance(intervention.channels, str):
                require_known(f"interventions.{name}.channels", intervention.channels, self.definitions)
        if both := set(self.variants) & set(self.interventions):
            raise ValueError(f"interventions.{min(both)}: a variant has this name too; give it another")
        return self

    def calibrates_on(self, entry: Calibrated) -> Literal["training", "measured"]:
        """Return whose windows an entry takes ranges and means from."""
        has_training = bool(self.corpora[self.chosen.corpus].training)
        return entry.calibration or ("training" if has_training else "measured")

    def variants_of(self, model: str) -> dict[str, Variant]:
        """Return the variants that a model has."""
        return {name: entry for name, entry in self.variants.items() if entry.is_for(model)}

    def interventions_of(self, model: str) -> dict[str, Intervention]:
        """Return the interventions that a model has."""
        return {name: entry for name, entry in self.interventions.items() if entry.is_for(model)}

    def is_varied(self, model: str) -> bool:
        """Return whether a model has variants or interventions."""
        return bool(self.variants_of(model) or self.interventions_of(model))

    def needs_capture(self, model: str) -> bool:
        """Return whether an intervention of a model names what a capture of it found."""
        return any(entry.names_findings for entry in self.interventions_of(model).values())

    def training_windows(self) -> int:
        """Return how many windows of training text variants calibrate on; 0 where none does."""
        entries: list[Calibrated] = [*self.variants.values(), *self.interventions.values(), Calibrated()]
        asked = [entry.windows for entry in entries if self.calibrates_on(entry) == "training"]
        return max(asked, default=0)

    @property
    def chosen(self) -> Experiment:
        """The experiment that `experiment` names."""
        return self.experiments[self.experiment]

    def model(self, name: str) -> Model:
        """Return the entry of a model. Raises ConfigError where there is none."""
        if name not in self.models:
            known = ", ".join(self.models)
            raise ConfigError(f"unknown model {name!r}{nearest(name, self.models)}; known: {known}")
        return self.models[name]

    def label(self, model: str) -> str:
        """Return the name of a model on plots and in tables."""
        return self.model(model).named(model)

    @property
    def counted_sites(self) -> tuple[SiteName, ...]:
        """The sites whose hits are counted, because a definition asks for them."""
        wanted = {site for definition in self.definitions.values() for site in definition.sites}
        return tuple(site for site in self.capture.sites if site in wanted)

    @property
    def coverages(self) -> tuple[tuple[SiteName, ...], ...]:
        """The sets of sites over which definitions ask whether a position is hit in any tensor."""
        return tuple(sorted({tuple(sorted(definition.sites)) for definition in self.definitions.values()}))
