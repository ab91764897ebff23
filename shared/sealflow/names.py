"""Names of files inside an artifact are hostile input: one check, used wherever a name enters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from sealflow.errors import ArtifactError
from sealflow.findings import printable

#: Longest accepted name in bytes (PATH_MAX of Linux) and longest accepted component (NAME_MAX).
MAX_NAME: Final = 4096
MAX_COMPONENT: Final = 255
#: Most levels of folders, the file included.
MAX_LEVELS: Final = 128

# One search covers the usual tricks: control characters (C0, DEL, C1), line and paragraph separators, direction
# overrides, surrogates (a name that is not UTF-8), backslashes (a separator elsewhere, an escape in sha256sum),
# absolute names, empty, `.` and `..` components. Compiled for the first name that looks odd.
_HOSTILE: Final = (
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\]|^/|/$|//|(?:^|/)\.{1,2}(?:/|$)|^$"
)


def check_name(name: str) -> None:
    """Refuse a name that could escape the artifact, hide in a terminal, or mean different files to different readers.

    Args:
        name: Path relative to the artifact's root with ``/`` as the separator (OMS v1.0 section 6.1.2).

    Raises:
        ArtifactError: The name and the reason.
    """
    # What nearly every name looks like is recognised without the pattern: this runs once a file.
    plain = name.isprintable() and "\\" not in name and "//" not in name and "/." not in name
    match = None if plain and name[:1] not in "./" and name[-1] != "/" else re.search(_HOSTILE, name)
    if match is not None:
        raise ArtifactError(f"The file name {printable(name)!r} is refused: {_reason(name, match[0])}.")
    if len(name) > MAX_COMPONENT // 4:  # a character has up to four bytes
        if len(name.encode("utf-8")) > MAX_NAME:
            raise ArtifactError(f"The file name {printable(name, 80)!r} is longer than {MAX_NAME} bytes.")
        # Whoever walks the tree holds a folder open, and a stack frame, at each level.
        if name.count("/") >= MAX_LEVELS:
            raise ArtifactError(f"The file name {printable(name, 80)!r} has more than {MAX_LEVELS} levels.")
        if any(len(part.encode("utf-8")) > MAX_COMPONENT for part in name.split("/")):
            raise ArtifactError(f"A part of the file name {printable(name, 80)!r} exceeds {MAX_COMPONENT} bytes.")


def _reason(name: str, found: str) -> str:
    if not name:
        return "it is empty"
    if "\\" in found:
        return "it holds a backslash, which is a separator on other systems"
    if found.startswith("/") and name.startswith("/"):
        return "it is absolute"
    if ".." in found:
        return "it leaves the artifact through '..'"
    if "/" in found or "." in found:
        return "it is not in its shortest form"
    if "\ud800" <= found[0] <= "\udfff":
        return "it is not valid UTF-8"
    return f"it holds the character U+{ord(found[0]):04X}"


def check_tree(names: Iterable[str]) -> None:
    """Refuse names that collide: twice the same, equal but for case or Unicode form, a file that is also a folder.

    Raises:
        ArtifactError: Names the pair.
    """
    listed = list(names)
    if not listed:
        return
    # Folded in one piece: a name holds no line feed, and no character composes or folds across one.
    seen = dict(zip(fold("\n".join(listed)).split("\n"), listed, strict=True))
    folders: set[str] = set()
    for folder in {key.rpartition("/")[0] for key in seen}:
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    if len(seen) == len(listed) and folders.isdisjoint(seen):
        return
    first: dict[str, str] = {}
    for name in listed:
        key = fold(name)
        if key in first:
            raise _collision(first[key], name)
        first[key] = name
    clash = min(folders & seen.keys())
    raise _collision(seen[clash], next(name for name in listed if fold(name).startswith(clash + "/")))


def _collision(one: str, other: str) -> ArtifactError:
    return ArtifactError(
        f"The file names {printable(one)!r} and {printable(other)!r} cannot lie side by side on every file system."
    )


def fold(name: str) -> str:
    """Return the form in which two names collide on a file system that ignores case and Unicode form."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
