"""Treatments: the one that an entry of `variants` asks for at a matrix input."""

from dataclasses import replace

from outlier_features.config.variants import Variant
from outlier_features.variants.formats.catalogue import FORMATS
from outlier_features.variants.formats.format import Format
from outlier_features.variants.options.keeping import KeepAbove, KeepChannels
from outlier_features.variants.options.rotated import Rotated
from outlier_features.variants.options.smoothed import Smoothed
from outlier_features.variants.options.treatment import Known, Treatment


def format_of(entry: Variant) -> Format:
    """Return the format of a variant, without its activations where only weights are quantised."""
    found = FORMATS[entry.format]
    return (
        replace(found, activations=None, activation_bits=16, needs_calibration=False) if entry.weights_only else found
    )


def treatment(entry: Variant, known: Known) -> Treatment:
    """Return what a variant does to a matrix input of which so much is known."""
    form = format_of(entry)
    if entry.keep_above is not None:
        return KeepAbove(form, known, entry.keep_above)
    if entry.keep_channels is not None:
        return KeepChannels(form, known, entry.keep_channels)
    if entry.smooth is not None:
        return Smoothed(form, known, entry.smooth)
    if entry.rotate is not None:
        return Rotated(form, known, None if entry.rotate == "hadamard" else int(entry.rotate))
    return Treatment(form, known)
