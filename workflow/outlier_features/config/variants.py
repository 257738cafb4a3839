"""Variants: the entries `variants`, `interventions` and `vary` of config.yaml, as strict, frozen types. Data only."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from outlier_features.config.entries import Name, Strict
from outlier_features.config.suggestions import nearest
from outlier_features.format_names import FORMATS, WEIGHT_ONLY
from outlier_features.site_names import MatrixInput

OPTIONS = ("keep_above", "keep_channels", "smooth", "rotate")
Place = Literal["attn_in", "mlp_in", "router", "experts"]
"""Where an intervention can be; `mlp_in` of a mixture is both of its router and its experts."""


class Calibrated(Strict):
    """What takes ranges, channel maxima or means from windows that the plain model runs first."""

    calibration: Literal["training", "measured"] | None = None
    """Whose windows: the training text of the corpus, which is not measured on, or the first that are measured; by
    default the training text where the corpus has one."""
    windows: int = Field(default=4, ge=1)
    """How many of them; where that is not said and there are fewer, all of them."""
    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """The blocks that are changed, counted from 0; by default all."""
    models: tuple[Name, ...] | None = None
    """The models it is for; by default every model of the experiment."""

    @property
    def asks_for_windows(self) -> bool:
        """Whether it says how many windows there have to be."""
        return "windows" in self.model_fields_set

    def is_for(self, model: str) -> bool:
        """Return whether a model has it."""
        return self.models is None or model in self.models

    def result(self) -> dict[str, Any]:
        """Return what of the entry the results of a model follow from: the form that enters a lineage."""
        return self.canonical(without={"models"})


class Variant(Calibrated):
    """A model whose matrices and their inputs are rounded to a format, with at most one option."""

    format: str
    """One of the formats of DEFINITIONS; `none` rounds nothing."""
    keep_above: float | None = Field(default=None, gt=0)
    """Channels of an input with any |x| above it in a window stay in 16 bit there (LLM.int8(): 6.0)."""
    keep_channels: int | None = Field(default=None, ge=1)
    """The so many channels of largest |x| over the calibration windows stay in 16 bit."""
    smooth: float | None = Field(default=None, ge=0, le=1)
    """The strength of SmoothQuant's scales at attn_in and mlp_in."""
    rotate: Literal["hadamard"] | int | None = None
    """Rotate inputs and matrices by a Hadamard matrix of their width, or in blocks of so many channels."""
    sites: tuple[MatrixInput, ...] | None = None
    """The matrix inputs that are quantised, with the matrices that read them; by default every matrix."""
    weights_only: bool = False
    keep_places: tuple[Annotated[str, Field(pattern=r"^\d+\.[a-z_]+$")], ...] = ()
    """Blocks and sites that stay in 16 bit, as `3.down_in`, with every matrix that reads them."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.format not in FORMATS:
            raise ValueError(
                f"unknown format {self.format!r}{nearest(self.format, FORMATS)}; known: {', '.join(FORMATS)}"
            )
        given = [name for name in OPTIONS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: a variant has one option at most; make each a variant of its own")
        if self.format == "none" and given:
            raise ValueError(f"{given[0]}: format none rounds nothing, so no option can help it; choose a format")
        is_weight_only = self.weights_only or self.format in WEIGHT_ONLY
        if is_weight_only and self.keep_above is not None:
            raise ValueError("keep_above is for formats that quantise inputs; with weights only use keep_channels")
        if self.weights_only and self.format in WEIGHT_ONLY:
            raise ValueError(f"weights_only: format {self.format} quantises nothing else; leave it out")
        if isinstance(self.rotate, int) and (self.rotate < 2 or self.rotate & (self.rotate - 1)):
            raise ValueError(f"rotate: blocks of {self.rotate} channels; give hadamard, or a power of two such as 32")
        return self

    @property
    def option(self) -> str:
        """What is done besides the format, in words; empty where nothing is."""
        words = [f"{name} {getattr(self, name):g}" for name in OPTIONS[:3] if getattr(self, name) is not None]
        if self.rotate is not None:
            words.append(f"rotate {self.rotate}")
        words += ["weights_only"] * self.weights_only
        words += [f"sites {'+'.join(self.sites)}"] if self.sites is not None else []
        words += [f"keep {' '.join(self.keep_places)}"] if self.keep_places else []
        words += [f"blocks {','.join(map(str, self.blocks))}"] if self.blocks is not None else []
        return ", ".join(words)


class Largest(Strict):
    """The channels of largest |x| in the capture, over attn_in and mlp_in of all blocks."""

    largest: int = Field(ge=1)


class Controls(Strict):
    """How many draws of each control."""

    random: int = Field(default=0, ge=0)
    """As many other channels, replaced alike."""
    equal_size: int = Field(default=0, ge=0)
    """A change of the same norm at every position, in other directions."""


class Intervention(Calibrated):
    """Channels that are replaced at some places, or experts that are switched off."""

    channels: Name | tuple[Annotated[int, Field(ge=0)], ...] | Largest | None = None
    """The outlier features of a definition, these channels, or the largest."""
    experts: Literal["super"] | dict[int, tuple[Annotated[int, Field(ge=0)], ...]] | None = None
    """The super experts, or these experts by block; their outputs become 0."""
    at: tuple[Place, ...] = ("attn_in", "mlp_in")
    set_to: tuple[Literal["zero", "mean"], ...] = Field(default=("zero",), min_length=1)
    controls: Controls = Controls()
    seed: int = 0

    @property
    def names_findings(self) -> bool:
        """Whether it names channels or experts that a capture is to find."""
        return isinstance(self.channels, str | Largest) or self.experts == "super"

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.channels is None) == (self.experts is None):
            raise ValueError("give exactly one of channels, experts")
        if self.experts is not None and self.controls.equal_size:
            raise ValueError("controls.equal_size is for channels; experts have random ones only")
        if self.channels is not None and not self.at:
            raise ValueError(f"at: name at least one of {', '.join(get_args(Place))}")
        return self


class Vary(Strict):
    """How variants are measured."""

    sqnr_windows: int = Field(default=4, ge=0)
    """Windows whose inputs and outputs of every matrix are compared."""
    noise: bool = True
    """Run each format once more with its inputs changed by 2^-18."""
