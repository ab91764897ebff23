"""Patterns: ``*`` stays in its segment, ``**`` does not, nothing else is special."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow.policy.globs import (
    check_place,
    hides,
    holds,
    includes,
    inside,
    matches,
    overlaps,
    place_pattern,
    reaches,
    readings,
)
from sealflow.storage.local import LocalStorage


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


# --- What patterns say of each other, against all texts of a small alphabet ---

ALPHABET = "ab/"
TEXTS = ["".join(item) for length in range(5) for item in itertools.product(ALPHABET, repeat=length)]
small = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), max_size=4).map("".join)
sound = small.filter(lambda text: "***" not in text)


def oracle(pattern: str, text: str) -> bool:
    """Match by trying everything."""
    if not pattern:
        return not text
    if pattern.startswith("**"):
        return any(oracle(pattern[2:], text[index:]) for index in range(len(text) + 1))
    if pattern[0] == "*":
        end = (text + "/").index("/")
        return any(oracle(pattern[1:], text[index:]) for index in range(end + 1))
    return bool(text) and text[0] == pattern[0] and oracle(pattern[1:], text[1:])


@settings(max_examples=2 * settings().max_examples)
@given(st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), max_size=7).map("".join), st.text("ab/", max_size=8))
def test_matching_is_what_it_says(pattern: str, text: str) -> None:
    """Few wildcards and many are matched by different means."""
    assume("***" not in pattern)
    assert matches(pattern, text) is oracle(pattern, text)


@settings(max_examples=2 * settings().max_examples)
@given(sound, sound)
def test_includes_is_sound(wide: str, narrow: str) -> None:
    if includes(wide, narrow):
        for text in TEXTS:
            assert matches(wide, text) or not matches(narrow, text), text


@settings(max_examples=2 * settings().max_examples)
@given(sound, sound)
def test_overlaps_is_complete(first: str, second: str) -> None:
    common = [text for text in TEXTS if matches(first, text) and matches(second, text)]
    assert overlaps(first, second) or not common, common[:1]
    assert overlaps(first, second) is overlaps(second, first)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("**", "*", True),
        ("*", "**", False),
        ("*", "a", True),
        ("*", "a/b", False),
        ("a/**", "a/b/*", True),
        ("a/**", "a", False),
        ("a/**", "a/**", True),
        ("a/*", "a/**", False),
        ("a/*", "a/*", True),
        ("a/*/c", "a/b/c", True),
        ("a/**/c", "a/*/c", True),
        ("airflow:train/*", "airflow:train/fit", True),
        ("airflow:train/*", "airflow:*/fit", False),
        ("airflow:*/*", "airflow:**", False),
        ("s3://models/**", "s3://**", False),
        ("s3://models/**", "s3://model*/**", False),
        ("s3://models/**", "s3://models/../secret/**", True),
    ],
)
def test_includes(wide: str, narrow: str, expected: bool) -> None:
    assert includes(wide, narrow) is expected


@settings(max_examples=2 * settings().max_examples)
@given(sound, st.text("ab/", min_size=1, max_size=3).filter(lambda text: not text.endswith("/")))
def test_reaching_into_a_folder(pattern: str, folder: str) -> None:
    """Whatever lies below and matches is found, but for patterns whose ** stands for a part of the folder itself."""
    below = [f"{folder}/{text}" for text in TEXTS if text]
    found = [text for text in below if matches(pattern, text)]
    if reaches(pattern, folder):
        assert any(matches(pattern, f"{folder}/{text}") for text in TEXTS)
    elif "**" not in pattern:
        assert not found


@pytest.mark.parametrize(
    ("pattern", "folder", "expected"),
    [
        ("s3://m/prod/**", "s3://m", True),
        ("s3://m/prod/**", "s3://m/", True),
        ("s3://m/prod/**", "s3://m/prod", True),
        ("s3://m/prod/**", "s3://m/pro", False),
        ("s3://m/prod/**", "s3://m/production", False),
        ("s3://m/prod/**", "s3://m/dev", False),
        ("s3://m/*/x/**", "s3://m/prod", True),
        ("s3://m/*/x/**", "s3://m/prod/y", False),
        ("s3://m*/x", "s3://models", True),
        ("s3://m/x", "s3://m/x", False),
        ("s3://m/**/x", "s3://m", True),
        ("s3://m/**/x", "s3://m/a", False),
        ("**/x", "s3://m/a", False),
        ("file:///data/**", "file:///", True),
    ],
)
def test_reaches(pattern: str, folder: str, expected: bool) -> None:
    assert reaches(pattern, folder) is expected


@settings(max_examples=2 * settings().max_examples)
@given(sound, st.text("ab/", min_size=1, max_size=3).filter(lambda text: not text.endswith("/")))
def test_what_a_folder_holds_is_found_at_last(pattern: str, folder: str) -> None:
    names = [text for text in TEXTS if text]
    found = [text for text in names if matches(pattern, f"{folder}/{text}")]
    assert bool(found) == holds(pattern, folder, names)
    if found:
        assert matches(pattern, folder) or reaches(pattern, folder) or hides(pattern)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s3://m/**/x", True),
        ("s3://m/**/*", True),
        ("s3://m/**.bin", True),
        ("**/x", True),
        ("**/a/**", True),
        ("**", False),
        ("s3://m/**", False),
        ("s3://m/*/x/**", False),
        ("s3://m/x", False),
    ],
)
def test_what_only_a_listing_shows(pattern: str, expected: bool) -> None:
    assert hides(pattern) is expected


def test_hostile_patterns_take_no_time() -> None:
    started = time.process_time()
    assert not matches("**a" * 300 + "b", "a" * 4000)
    assert not matches("*a" * 300 + "*b", "a" * 4000)
    assert matches("**" + "a*" * 300, "a" * 4000)
    assert time.process_time() - started < 10


# --- Locations ---


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/data/x", "file:///data/x"),
        ("/data/ü x/**", "file:///data/%C3%BC%20x/**"),
        ("file:///data/x", "file:///data/x"),
        ("file:///data/ü x/*", "file:///data/%C3%BC%20x/*"),
        ("file:///data/%C3%BC%20x/*", "file:///data/%C3%BC%20x/*"),
        ("file:///d%61ta/100%25", "file:///data/100%25"),
        ("file:///data/%FF", "file:///data/%FF"),
        ("file://localhost/data", "file:///data"),
        ("FILE:///data", "file:///data"),
        ("file:/data", "file:///data"),
        ("s3://B/K", "s3://B/K"),
        ("S3://b/k", "s3://b/k"),
        ("minio://b/k", "s3://b/k"),
        ("s3a://b/k", "s3://b/k"),
        ("gcs://b/k", "gs://b/k"),
        ("abfss://c/k", "abfs://c/k"),
        ("ssh://h/k", "sftp://h/k"),
        ("airflow:train/*", "airflow:train/*"),
        ("**", "**"),
    ],
)
def test_place_pattern(pattern: str, expected: str) -> None:
    assert place_pattern(pattern) == expected
    assert place_pattern(expected) == expected


@given(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text and "*" not in text))
def test_a_path_is_written_as_its_location(text: str) -> None:
    path = os.path.abspath("/" + text)
    try:
        location = LocalStorage().canonical(path)
    except UsageError:
        return
    assert matches(place_pattern(path if not path.startswith("//") else path[1:]), location)
    assert place_pattern(location) == location
    assert readings(location)[0] == location


READINGS: dict[str, set[str]] = {
    "s3://b/a//c": {"s3://b/a//c", "s3://b/a/c"},
    "s3://b/a/../c": {"s3://b/a/../c", "s3://b/c"},
    "s3://b/../c": {"s3://b/../c", "s3://b/c"},
    "s3://b/a%2Fc": {"s3://b/a%2Fc", "s3://b/a/c"},
    "s3://b/%2e%2e/c": {"s3://b/%2e%2e/c", "s3://b/../c", "s3://b/c"},
    "minio://b/a": {"s3://b/a"},
    "S3A://b/a": {"s3://b/a"},
    "gcs://b/a": {"gs://b/a"},
    "s3://b/": {"s3://b/", "s3://b"},
    "gs://b": {"gs://b"},
    "s3://b/a": {"s3://b/a"},
}


@pytest.mark.parametrize("location", READINGS)
def test_readings(location: str) -> None:
    assert set(readings(location)) == READINGS[location]


def test_readings_of_a_link() -> None:
    assert readings("file:///a/link", "file:///b/c") == ("file:///a/link", "file:///b/c")


@pytest.mark.parametrize(
    "pattern",
    ["", "models/**", "s3:/models/**", "s3:models", "name:", "s3a://m/**", "gcs://m/**", "az://c/x", "abfss://c/x",
     "arn:aws:s3:::m/**", "s3://m//x", "/data//x", "/data/./x", "/data/../x", "s3://m/../x", "/data/", "s3://m/",
     "s3://m/***", "file://host/x", "airflow:train/*", "C:\\models",
     "file:/data//x", "file:/data/./x", "file:/data/../x", "file:/data/", "file:/", "file:///data/%2E%2E/x",
     "file:///data%2F%2Fx", "file:///data%2F", "file:///data/%2A", "s3://", "s3:///m", "s3:///**", "gs:///m"],
)  # fmt: skip
def test_patterns_that_can_match_no_location(pattern: str) -> None:
    assert check_place(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["/data/**", "s3://m", "s3://m/**", "gs://m/x*", "file:///data/*", "file:/data/x", "file://localhost/x", "**",
     "*/x", "*://m/**", "s3*://m/**", "name:*", "name:churn-*", "abfs://c/x", "memory://x/y", "file://**", "FILE:///x"],
)  # fmt: skip
def test_patterns_over_locations(pattern: str) -> None:
    assert check_place(pattern) == ""


def test_what_lies_inside() -> None:
    assert inside("s3://b/a/", "c d") == "s3://b/a/c d"
    assert inside("file:///a", "ü/c d") == "file:///a/%C3%BC/c%20d"
    assert inside("file:///", "c") == "file:///c"
