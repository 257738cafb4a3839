"""Errors a user can act on: each says what is wrong, where, and what to do."""


class OutlierFeaturesError(Exception):
    """Base of every error this package raises on purpose; its text is one line."""


class ConfigError(OutlierFeaturesError):
    """The configuration is wrong; nothing has been run."""


class SourceError(OutlierFeaturesError):
    """A model or a text cannot be obtained or is not usable."""


class ArchitectureError(OutlierFeaturesError):
    """The structure of a model does not answer where a site is."""


class DamagedFile(OutlierFeaturesError):
    """A file of the results is cut, altered or missing."""


class StaleFile(OutlierFeaturesError):
    """A file of the results was made from other inputs than the ones asked for."""


class OutOfMemory(OutlierFeaturesError):
    """A device or the host has no memory left for what has to be there at once."""


class ForwardFailed(OutlierFeaturesError):
    """The code of a model raised in a forward pass."""


class NonFiniteActivations(OutlierFeaturesError):
    """A forward pass produced NaN or infinity."""
