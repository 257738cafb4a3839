"""Targets of a command of Snakemake: figures that there are, and what is said of one that is not."""

import pytest
from outlier_features.errors import ConfigError
from outlier_features.figures import catalogue
from outlier_features.pipeline import targets


@pytest.mark.parametrize("scope", ["experiment", "model", "mixture"])
def test_figures_that_there_are_pass(scope: str) -> None:
    names = catalogue.names(scope)
    targets.check([f"results/plots/{name}.png" for name in names] + [f"results/plots/{name}/m.svg" for name in names])
    targets.check(["--cores", "1", "results/index.html", "all"])


def test_an_unknown_figure_is_refused_with_the_nearest_and_all_there_are() -> None:
    with pytest.raises(ConfigError, match=r"there is no figure moe_vs_dens \(did you mean 'moe_vs_dense'\?\)") as error:
        targets.check(["--cores", "1", "results/plots/moe_vs_dens.png"])
    assert str(error.value).endswith(", ".join(catalogue.FIGURES))
