"""Entries: what may be written under each key of config.yaml, as strict, frozen types. Data only."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from outlier_features.config import series
from outlier_features.site_names import PositionalSite, SiteName

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@step\d+)?$")]
"""A key of config.yaml: the wildcard, the folder and the default label. `@step…` names one revision of a series."""
Dtype = Literal["float32", "bfloat16", "float16"]
Share = Annotated[float, Field(ge=0, le=1)]
Threshold = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
Thresholds = Annotated[tuple[Threshold, ...], Field(min_length=1, max_length=120)]


class Strict(BaseModel):
    """An entry that knows all of its keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical(self, *, without: set[str] | None = None) -> dict[str, Any]:
        """Return what was set, as plain values: the form that enters a lineage.

        What equals its default is left out, so a new key moves no lineage; a default, once there, never changes.
        """
        return self.model_dump(mode="json", exclude_defaults=True, exclude=without)


class Recipe(Strict):
    """How a model of this project is trained from scratch."""

    corpus: Name
    """The corpus whose training part is read."""
    architecture: dict[str, Any]
    """Fields of a transformers configuration; `model_type` names it. The vocabulary size comes from the tokenizer."""
    vocabulary: int = Field(ge=300)
    """Size of the byte-level BPE vocabulary, trained on the same text."""
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    """Windows a step."""
    length: int = Field(ge=2)
    """Tokens a window."""
    learning_rate: float = Field(gt=0)
    seed: int = 0

    @model_validator(mode="after")
    def _names_an_architecture(self) -> Self:
        if "model_type" not in self.architecture:
            raise ValueError("architecture needs a model_type, as transformers names it (qwen3, qwen3_moe, ...)")
        return self


SOURCES = ("hub", "path", "package", "train")
"""The keys of a model that say where it comes from."""


class Model(Strict):
    """One language model: exactly one of `hub`, `path`, `package`, `train` says where it comes from."""

    label: str | None = None
    """The name on plots and in tables; the key by default."""
    dtype: Dtype = "bfloat16"
    """The precision of the forward pass."""
    experts_implementation: Literal["eager", "batched_mm", "grouped_mm"] | None = None
    """How transformers runs routed experts; by default grouped products, or one after the other where they cannot."""
    hub: str | None = None
    revision: str | None = None
    """The commit of a hub model."""
    revisions: tuple[str, ...] | dict[int, str] | None = None
    """Revisions of one training run, by name (`step1000`) or by training step: one model each, named `key@step1000`."""
    series: Name | None = None
    """The training run this model is a step of; set for each of `revisions`."""
    step: int | None = Field(default=None, ge=0)
    """How many steps the model has been trained for."""
    keep_weights: bool = True
    """Whether a checkpoint stays once everything has been made from it."""
    path: str | None = None
    """A local directory with config.json, tokenizer and safetensors."""
    package: str | None = None
    """`name==version` of an installed Python package that ships a model."""
    file: str | None = None
    """The GGUF file inside the package."""
    train: Recipe | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        _exactly_one(self, *SOURCES)
        _belongs(self, "hub", "revision")
        _belongs(self, "hub", "revisions")
        _belongs(self, "package", "file")
        if self.train and not self.keep_weights:
            raise ValueError("keep_weights is for models that can be fetched again; a trained one stays")
        if self.package and not self.file:
            raise ValueError("package needs file: the GGUF file inside the package")
        return self

    @model_validator(mode="after")
    def _is_one_step_of_a_series(self) -> Self:
        if self.revisions is not None:
            raise ValueError(series.refusal(self.revisions, self.revision))
        if (self.series is None) != (self.step is None):
            raise ValueError("series and step belong together: the training run, and how far into it")
        return self

    @property
    def source(self) -> str:
        """Which of SOURCES the model comes from."""
        return next(name for name in SOURCES if getattr(self, name) is not None)

    def named(self, key: str) -> str:
        """Return the name of the model called `key` in config.yaml on plots and in tables."""
        return self.label or key if self.series is None else f"{self.label or self.series} step {self.step}"


class Corpus(Strict):
    """One text and how it is cut into windows: exactly one of `package`, `path`, `hub` says where it comes from."""

    package: str | None = None
    """`name==version` of an installed Python package that ships text files."""
    path: str | None = None
    """A local file of text (.txt, .md), of rows (.jsonl, .ndjson, .json, .csv, .tsv, .parquet), or a directory that
    `files` picks from; each file may be compressed (.gz, .zst, .bz2, .xz)."""
    hub: str | None = None
    """A data set of the hub, streamed."""
    files: tuple[str, ...] = ()
    """Patterns of the files to measure on, below the package or the directory, in the order of their names."""
    training: tuple[str, ...] = ()
    """Patterns of the files that `train` recipes may read; never measured on."""
    name: str | None = None
    """Configuration of a hub data set."""
    split: str = "train"
    revision: str | None = None
    """The commit of a hub data set."""
    column: str = "text"
    """Where the text is in files of rows and in hub data sets."""
    sequences: int = Field(ge=1)
    """Windows to measure on."""
    length: int = Field(ge=2)
    """Tokens a window."""
    stride: int | None = Field(default=None, ge=1)
    """Tokens from the start of one window to the next; `length` by default."""
    bos: Literal["auto", "always", "never"] = "auto"
    """Whether a BOS token starts each window; `auto` puts before it what the tokenizer puts before a text by default,
    which can be another token or several."""
    windows: Literal["packed", "arb8020"] = "packed"
    """`packed` cuts a stream of tokens; `arb8020` repeats the 2025 sweep's windows, only to reproduce its table."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _exactly_one(self, "package", "path", "hub")
        _belongs(self, "hub", "name")
        _belongs(self, "hub", "revision")
        if self.hub and (self.files or self.training):
            raise ValueError("files and training pick files of a package or a directory; a hub data set has none")
        if self.package and not self.files:
            raise ValueError("package needs files: which of its files hold the text")
        if self.stride is not None and self.stride > self.length:
            raise ValueError(f"stride {self.stride} is longer than the window ({self.length}) and would skip text")
        if self.windows == "arb8020" and (self.stride is not None or self.bos != "auto"):
            raise ValueError("windows arb8020 overlap by half and take the tokenizer's BOS; leave out stride and bos")
        return self


class Definition(Strict):
    """A criterion for outlier features: |x| >= threshold in enough layers and at enough positions."""

    sites: tuple[PositionalSite, ...] = Field(min_length=1)
    """The tensors that count as layers: these sites of every block."""
    threshold: Threshold = 6.0
    min_layers: Share = 0.25
    min_positions: Share = 0.06
    scope: Literal["pooled", "sequence"] = "pooled"
    """`pooled` counts distinct channels over all sequences; `sequence` applies the criterion to each and sums."""
    rounding: Literal["bfloat16"] | None = None
    """Round activations before they are compared, and take magnitudes from the rounded values."""


class Capture(Strict):
    """What one forward pass keeps."""

    sites: tuple[SiteName, ...] = Field(min_length=1)
    thresholds: Thresholds
    """Magnitudes at which hits are counted; any of them can be asked for later without another pass."""
    rms_thresholds: Thresholds
    """The same in units of each tensor's RMS, for the scale-free twins."""
    statistics: Literal["all", "criteria"] = "all"
    """Everything that is kept of these sites, or only what definitions of outlier features need, of their sites."""
    nonfinite: Literal["error", "count"] = "error"
    """What NaN and infinity in activations, logits and losses do: stop the pass, or be counted and left out."""
    scatter: int = Field(default=1, ge=1)
    """How many jobs share the windows of a model out, at most one a window. No number depends on it."""
    memory_budget: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?(MB|GB)$")] | None = None
    """What a pass may take on its device, such as `24 GB`; by default most of what is free. No number depends on it:
    hidden states that do not fit beside the weights are offloaded to host memory, then to disk."""

    @property
    def memory_bytes(self) -> float | None:
        """The memory budget in bytes."""
        if self.memory_budget is None:
            return None
        return float(self.memory_budget[:-2]) * {"MB": 1e6, "GB": 1e9}[self.memory_budget[-2:]]


class Experiment(Strict):
    """Which models are measured together on which corpus."""

    models: tuple[Name, ...] = Field(min_length=1)
    corpus: Name


def _exactly_one(entry: BaseModel, *keys: str) -> None:
    given = [key for key in keys if getattr(entry, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(keys)} (found {', '.join(given) or 'none'})")


def _belongs(entry: BaseModel, owner: str, key: str) -> None:
    if getattr(entry, key) is not None and getattr(entry, owner) is None:
        raise ValueError(f"{key} is only for {owner} sources")
