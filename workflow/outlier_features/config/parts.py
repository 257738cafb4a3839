"""Parts: which windows each of several captures of one model runs, so that they can run on several devices.

A part is named as Snakemake names scatter items, `2-of-4`. The only part of one is the whole and has no name.
"""

from outlier_features.errors import ConfigError

PART = r"\.\d+-of-\d+"
"""What the name of a part adds to that of its model; no model is called so."""


def parts(scatter: int) -> list[str | None]:
    """Return the names of so many parts, in the order of their windows; None for the whole."""
    return [f"{index}-of-{scatter}" for index in range(1, scatter + 1)] if scatter > 1 else [None]


def windows(part: str | None, total: int) -> range:
    """Return the windows of a part among `total`: neighbours, as many as in every other part or one more.

    Raises ConfigError if there is no such part, or if there are more parts than windows.
    """
    if part is None:
        return range(total)
    index, scatter = map(int, part.split("-of-"))
    if not 1 <= index <= scatter <= total:
        raise ConfigError(
            f"part {part} of {total} windows: there is no such part; capture.scatter is 1 to {total} here, "
            "and parts count from 1."
        )
    return range((index - 1) * total // scatter, index * total // scatter)
