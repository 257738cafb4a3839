"""Format names: the formats of DEFINITIONS that variants can have, without the code that rounds to them."""

FORMATS = (
    "none",
    "absmax",
    "row_wise",
    "vector_wise",
    "zeropoint",
    "zeropoint_vector",
    "w8a8_static",
    "int8_weight_g128",
    "int4_weight_g128",
    "int4",
    "fp8_tensor",
    "fp8_token",
    "mxfp8",
    "mxfp4",
    "nvfp4",
)
"""`none` rounds nothing: what it shows is that changing a model does not."""

WEIGHT_ONLY = ("int8_weight_g128", "int4_weight_g128")
"""Those that leave activations alone."""
