"""Lists: everything that can be named."""

import pytest
from outlier_features.cli import commands
from outlier_features.cli.listing import LISTS


@pytest.mark.parametrize("name", LISTS)
def test_everything_that_can_be_listed_is(name: str, capsys) -> None:
    commands.main(["list", name])
    first = {"models": "smollm2-135m", "corpora": "sotu", "definitions": "arb8020", "sites": "attn_in"}
    assert capsys.readouterr().out.startswith(first.get(name, "residual_stream"))
