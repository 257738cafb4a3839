"""Expressions: how far a regular expression can look is found by its syntax, or it is not taken apart."""

import pytest
from outlier_features.text.expressions import Expression, UnknownSyntax


@pytest.mark.parametrize(
    "pattern", ["(a|b)*", r"(?<!a)b", r"(a)\1", r"(?<name>a)", r"\K", "a{2}+", "(ab){1,3}", r"[a[b]", "(?m:.)"]
)
def test_an_expression_that_can_look_anywhere_is_not_taken_apart(pattern) -> None:
    with pytest.raises(UnknownSyntax):
        Expression(pattern)


def test_an_expression_reaches_past_as_many_runs_as_it_has_classes() -> None:
    text = "aaa bbb ccc ddd eee fff ggg hhh iii jjj"
    reached = Expression(r" ?[a-z]+|\s+(?!\S)").reach(text, 4)
    assert reached is not None
    assert reached > text.index(" ccc")
    assert Expression(r" ?[a-z]+").reach("x" * 100, 4) is None
    assert Expression("ab").reach("x" * 100, 4) == 4 + 2 + 1
