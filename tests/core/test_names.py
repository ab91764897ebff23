"""File names are hostile input."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import ArtifactError
from sealflow.names import MAX_COMPONENT, MAX_NAME, check_name, check_tree, fold

FINE = [
    "a",
    "a/b/c",
    "a b",
    " leading and trailing ",
    ".hidden",
    "..hidden",
    "...",
    "a..b",
    "a.",
    "a/.b/..c",
    "größe/模型/\U0001f916",
    "-rf",
    "~",
    "$(touch x)",
    "a:b:0:5",
    "*?[",
    "x" * MAX_COMPONENT,
    "/".join(["x" * 255] * 16),
]

HOSTILE = {
    "": "empty",
    "/a": "absolute",
    "//a": "absolute",
    "/": "absolute",
    "a/": "shortest form",
    "a//b": "shortest form",
    ".": "shortest form",
    "./a": "shortest form",
    "a/.": "shortest form",
    "a/./b": "shortest form",
    "..": r"through '\.\.'",
    "../a": r"through '\.\.'",
    "a/..": r"through '\.\.'",
    "a/../b": r"through '\.\.'",
    "a\\b": "backslash",
    "..\\a": "backslash",
    "a\0b": r"U\+0000",
    "a\nb": r"U\+000A",
    "a\x1b[2Jb": r"U\+001B",
    "a\x7f": r"U\+007F",
    "a\x85b": r"U\+0085",
    "exe\u202egnp.bin": r"U\+202E",
    "a\u2066b": r"U\+2066",
    "a\u200eb": r"U\+200E",
    "a\u2028b": r"U\+2028",
    "a\udcffb": "UTF-8",
    "x" * 256: "exceeds 255 bytes",
    "é" * 128: "exceeds 255 bytes",
    "/".join(["x" * 255] * 17): "longer than 4096 bytes",
}


@pytest.mark.parametrize("name", FINE, ids=lambda name: name[:24])
def test_fine(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:24]))
def test_hostile(name: str) -> None:
    with pytest.raises(ArtifactError, match=HOSTILE[name]) as caught:
        check_name(name)
    assert str(caught.value).isprintable(), "a hostile name must not reach a terminal as it is"


@given(st.text(max_size=40))
def test_what_passes_stays_inside_and_can_be_shown(name: str) -> None:
    try:
        check_name(name)
    except ArtifactError:
        return
    parts = name.split("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name)
    assert len(name.encode()) <= MAX_NAME
    assert "\\" not in name


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"],
        ["Model.bin", "model.bin"],
        ["dir/A", "DIR/a"],
        ["é", "e\u0301"],
        ["straße", "STRASSE"],
        ["a", "a/b"],
        ["a/b", "A"],
        ["a/b/c/d", "A/B"],
        ["x", "a/b", "y", "a/b/c"],
    ],
    ids=ascii,
)
def test_names_that_cannot_lie_side_by_side(names: list[str]) -> None:
    for order in (names, names[::-1]):
        with pytest.raises(ArtifactError, match="side by side"):
            check_tree(order)


def test_a_collision_names_the_pair() -> None:
    with pytest.raises(ArtifactError, match=r"'Model\.bin' and 'model\.bin'"):
        check_tree(["other", "Model.bin", "zzz", "model.bin"])
    with pytest.raises(ArtifactError, match="'a' and 'a/b'"):
        check_tree(["a", "a/b"])


def test_names_that_only_look_alike() -> None:
    check_tree(["a", "a-b", "a.txt", "ab/c", "a b"])
    check_tree(f"dir-{number}/file" for number in range(1000))


@given(st.lists(st.text(alphabet="aAbB/é", min_size=1, max_size=6), max_size=8))
def test_check_tree_agrees_with_the_slow_definition(names: list[str]) -> None:
    folded = [fold(name) for name in names]
    folders = {key[:position] for key in folded for position, char in enumerate(key) if char == "/" and position}
    clash = len(set(folded)) < len(folded) or bool(folders & set(folded))
    if clash:
        with pytest.raises(ArtifactError):
            check_tree(names)
    else:
        check_tree(names)


@given(st.text(max_size=20))
def test_fold_ignores_case_and_form(name: str) -> None:
    for form in ("NFC", "NFD"):
        assert fold(unicodedata.normalize(form, name)) == fold(name)
    if name.isascii():
        assert fold(name.upper()) == fold(name.lower()) == fold(name)
