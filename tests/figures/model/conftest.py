"""A mixture of experts that several figures are drawn of."""

import pytest
from portraits_of_models import model, router, with_routers


@pytest.fixture(scope="session")
def mixture():
    """A model whose blocks 1 and 3 have experts; expert 2 of block 1 sees no token, expert 3 of block 3 is super."""
    table = with_routers(
        router(1, [0.5, 0.25, 0.0, 0.25], outputs=[1.0, 2.0, None, 3.0]),
        router(3, [0.25] * 4, outputs=[1.0, 2.0, 3.0, 400.0], super_experts=[3]),
    )
    return model(layers=table)
