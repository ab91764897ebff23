"""Patterns: ``*`` stays in its segment, ``**`` does not, nothing else is special."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.policy.globs import matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("airflow:train/fit", "airflow:train/fit", True),
        ("airflow:train/*", "airflow:train/fit", True),
        ("airflow:train/*", "airflow:train/", True),
        ("airflow:train/*", "airflow:train", False),
        ("airflow:train/*", "airflow:train/fit/evil", False),
        ("airflow:*/fit", "airflow:train/fit", True),
        ("airflow:*", "airflow:train/fit", False),
        ("airflow:**", "airflow:train/fit/deep", True),
        ("**", "", True),
        ("*", "a/b", False),
        ("a*c", "abbc", True),
        ("a*c", "ac", True),
        ("A", "a", False),
        ("a.c", "abc", False),
        ("a?c", "abc", False),
        ("[ab]", "a", False),
        ("(a|b)", "a", False),
        ("a", "a\n", False),
        ("*", "a\nb", True),
        ("a", " a", False),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_matches(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(st.text(max_size=20).filter(lambda text: "*" not in text), st.text(max_size=20))
def test_without_a_star_only_the_text_itself_matches(pattern: str, text: str) -> None:
    assert matches(pattern, pattern)
    assert matches(pattern, text) == (pattern == text)


@given(st.lists(st.text(alphabet="ab/", max_size=4), min_size=1, max_size=4), st.data())
def test_a_star_never_crosses_a_slash(parts: list[str], data: st.DataObject) -> None:
    pattern = "*".join(parts)
    filled = "".join(
        part if not index else data.draw(st.text(alphabet="abc", max_size=3)) + part for index, part in enumerate(parts)
    )
    if "**" not in pattern:
        assert matches(pattern, filled)
        assert not matches(pattern, filled + "/x")
