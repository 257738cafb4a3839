"""Pages: words and legend stay on them."""

import pytest
from drawings import is_within


@pytest.mark.parametrize("case", ["two", "empty", "joined", "crowded"])
def test_words_and_legend_stay_on_the_page(case, request):
    figure = request.getfixturevalue(case)
    for artist in (*figure.texts, *figure.legends):
        assert is_within(artist.get_window_extent(), figure.bbox)
