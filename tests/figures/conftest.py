"""Figures that several tests look at."""

import pandas as pd
import pytest
from figures_of_rows import NOTHING_PUBLISHED, PUBLISHED, empty_row, of_experiment, published_as_measured, row


@pytest.fixture(scope="session")
def two():
    """A dense model and a mixture of experts, nothing published."""
    rows = [row("Dense", total=2e9, layer=30, position=60), row("Sparse", "moe", 4e10, 3e9, layer=50, position=40)]
    return of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED)


@pytest.fixture(scope="session")
def empty():
    """Two models of the same active size without outlier features, one with."""
    rows = [
        empty_row("None dense", total=3e6),
        empty_row("None sparse", kind="moe", total=8e6, active=3e6),
        row("Some"),
    ]
    return of_experiment("moe_vs_dense", pd.DataFrame(rows), NOTHING_PUBLISHED)


@pytest.fixture(scope="session")
def joined():
    """Twelve measured models, each of them published too."""
    return of_experiment("moe_vs_dense", published_as_measured(is_same_hub=True), PUBLISHED)


@pytest.fixture(scope="session")
def crowded():
    """Twelve measured models among twelve published ones that are not known to be the same."""
    return of_experiment("moe_vs_dense", published_as_measured(is_same_hub=False), PUBLISHED)
