"""Catalogue: every format by its name; one more is one more entry here and in `format_names`."""

from collections.abc import Mapping

from outlier_features.variants.formats.floats import ScaledE4m3
from outlier_features.variants.formats.format import Format
from outlier_features.variants.formats.integers import PerGroup, PerRow, PerTensor
from outlier_features.variants.formats.microscaling import Mx
from outlier_features.variants.formats.nvfp4 import Nvfp4
from outlier_features.variants.formats.static import StaticRange
from outlier_features.variants.formats.zeropoints import Asymmetric
from outlier_features.variants.rounding import e2m1, e4m3

SCALE = 16 / 128
"""Bits of a 16-bit scale for each of 128 values."""

FORMATS: Mapping[str, Format] = {
    "none": Format(None, None, 16, 16),
    "absmax": Format(PerTensor(127), PerTensor(127), 8, 8),
    "row_wise": Format(PerRow(127), PerTensor(127), 8, 8),
    "vector_wise": Format(PerRow(127), PerRow(127), 8, 8),
    "zeropoint": Format(Asymmetric(False), Asymmetric(False), 8, 8),
    "zeropoint_vector": Format(Asymmetric(True), Asymmetric(True), 8, 8),
    "w8a8_static": Format(StaticRange(), PerTensor(127), 8, 8, needs_calibration=True),
    "int8_weight_g128": Format(None, PerGroup(127, 128), 16, 8 + SCALE),
    "int4_weight_g128": Format(None, PerGroup(7, 128), 16, 4 + SCALE),
    "int4": Format(PerRow(7), PerRow(7), 4, 4),
    "fp8_tensor": Format(ScaledE4m3(False), ScaledE4m3(False), 8, 8),
    "fp8_token": Format(ScaledE4m3(True), ScaledE4m3(True), 8, 8),
    "mxfp8": Format(Mx(e4m3, 8), Mx(e4m3, 8), 8.25, 8.25),
    "mxfp4": Format(Mx(e2m1, 2), Mx(e2m1, 2), 4.25, 4.25),
    "nvfp4": Format(Nvfp4(), Nvfp4(), 4.5, 4.5),
}
"""In the order of DEFINITIONS."""
