"""Units: numbers of parameters and seconds as people say them."""

import pytest
from outlier_features.units import human, measured


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (134_500_000, "134.5M"),
        (30_500_000_000, "30.5B"),
        (999_999_999, "1B"),
        (3_100, "3.1K"),
        (12, "12"),
        (1e12, "1T"),
    ],
)
def test_parameters_are_written_as_people_say_them(count, words):
    assert human(count) == words


def test_what_is_rounded_up_to_a_unit_is_written_in_it_whatever_the_digits():
    assert (human(999_600_000, digits=3), human(999_600_000)) == ("1B", "999.6M")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "0.00 s"), (0.41, "0.41 s"), (4.12, "4.1 s"), (128.3, "128 s"), (744, "12.4 min"), (11232, "3.12 h")],
)
def test_measured_times_have_about_three_digits(seconds, said):
    assert measured(seconds) == said
