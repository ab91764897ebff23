"""DVC's configuration file, read strictly: one reader for the cache, for templates and for the remote.

DVC reads it with ConfigObj. What is accepted here has the same meaning there; what ConfigObj could read in more than
one way, or across lines, is refused. Only the file's own words count: nothing is taken from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.lineage.files import MalformedError

#: Largest configuration that is read, in bytes.
MAX_CONFIG: Final = 1 << 20

Value = str | tuple[str, ...]
#: Section → option → value, names in lower case as DVC compares them; ``remote "x"`` for the remote ``x``.
Sections = Mapping[str, Mapping[str, Value]]

# Each section and option stands on a line of its own; what else could end a line somewhere is refused.
_CONTROL: Final = re.compile(r"[^\S \t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
_SECTION: Final = re.compile(
    r"""\[[ \t]*(?:'(?P<single>[^'\[\]#]*)'|"(?P<double>[^"\[\]#]*)"|(?P<bare>[^'"\s\[\]#][^'\[\]#]*?))[ \t]*\]"""
    r"""[ \t]*(?:\#.*)?"""
)
_OPTION: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)")
_QUOTED: Final = re.compile(r"""(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")[ \t]*(?:\#.*)?""")
# ConfigObj would put another option in its place.
_INTERPOLATION: Final = re.compile(r"%\([^)]*\)s")

_REMOTE: Final = re.compile(r'\s*remote\s*"(.*)"\s*')
#: Remotes that stand on one another, at most.
_MAX_CHAIN: Final = 8


class Remote(NamedTuple):
    """A remote of the configuration, after those that it stands on.

    Attributes:
        url: As written; a relative path is relative to the folder ``.dvc``.
        versioned: Whether DVC keeps the data there under its own names, in versions of the store.
    """

    url: str
    versioned: bool


def parse_configuration(data: bytes, what: str) -> Sections:
    """Read ``.dvc/config``.

    Args:
        data: The file.
        what: Its name for messages.

    Raises:
        MalformedError: DVC would not read it either, or could read it in another way than we.
    """
    if len(data) > MAX_CONFIG:
        raise MalformedError(f"{what} has more than {MAX_CONFIG} bytes.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"{what} is not UTF-8.") from None
    sections: dict[str, dict[str, Value]] = {}
    section: dict[str, Value] | None = None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if _CONTROL.search(line):
            raise MalformedError(f"{what} holds a control character or an unusual space (line {number}).")
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if match := _SECTION.fullmatch(line):
            name = next(group for group in match.groups() if group is not None).lower()
            if not name.strip() or name in sections:
                raise MalformedError(f"{what} has the section {printable(name, 80)!r} twice (line {number}).")
            section = sections[name] = {}
            continue
        match = _OPTION.fullmatch(line)
        if match is None:
            raise MalformedError(f"{what} holds neither a section nor an option in line {number}.")
        name = match[1].lower()
        if section is None or name in section:
            problem = "twice" if section is not None else "outside of a section"
            raise MalformedError(f"{what} has the option {printable(name, 80)!r} {problem} (line {number}).")
        section[name] = _value(match[2], what, number)
    return sections


def _value(text: str, what: str, number: int) -> Value:
    if _INTERPOLATION.search(text):
        raise MalformedError(f"{what} takes a value from elsewhere (line {number}); write it out.")
    if match := _QUOTED.fullmatch(text):
        return next(group for group in match.groups() if group is not None)
    text = text.partition("#")[0].rstrip()
    if "," not in text and text[:1] not in ("'", '"'):
        return text
    items = [item.strip() for item in text.split(",")]
    if items[-1] == "":
        items.pop()
    if any(not item or "'" in item or '"' in item for item in items):
        raise MalformedError(f"{what} holds a value whose quotes or commas are not plain (line {number}).")
    return tuple(items)


def text_of(sections: Sections, section: str, option: str, what: str = ".dvc/config") -> str | None:
    """Return one option, ``None`` when it is not set.

    Raises:
        MalformedError: It is a list.
    """
    value = sections.get(section, {}).get(option)
    if isinstance(value, tuple):
        raise MalformedError(f"{what} has a list as {option!r} of {printable(section, 80)!r}; write it in quotes.")
    return value


def is_remote_name(text: str) -> bool:
    """Tell whether a caller's text names a remote of the configuration; everything with a ``/`` is a location."""
    return bool(text) and "/" not in text


def remote_url(configuration: bytes | None, name: str | None) -> str:
    """Return where a remote lies, by the committed configuration alone.

    Args:
        configuration: Bytes of the committed ``.dvc/config``, ``None`` when there is none. Neither
            ``.dvc/config.local`` nor the settings of a user or a machine belong here: they are no part of a commit.
        name: The remote; ``None`` for the default one.

    Returns:
        The URL as written. A relative path is relative to the folder ``.dvc``.

    Raises:
        MalformedError: The file cannot be read, or the remote has no location in it.
        EvidenceError: ``REMOTE_NOT_NAMED``, no default remote is committed.
        UsageError: ``REMOTE_NOT_NAMED``, the named remote is not in the file.
        UnavailableError: ``REMOTE_UNSUPPORTED``, the remote keeps data by its own names and versions.
    """
    sections = parse_configuration(configuration or b"", ".dvc/config")
    if name is None and not text_of(sections, "core", "remote"):
        raise EvidenceError("The committed .dvc/config names no default remote.", code="REMOTE_NOT_NAMED")
    wanted = name if name is not None else text_of(sections, "core", "remote") or ""
    remote = _remote(sections, wanted.lower(), 0)
    if remote.versioned:
        raise UnavailableError(
            f"The remote {printable(wanted, 80)!r} keeps data under its own names, in versions of the store "
            "(version_aware, worktree); its objects have no digest to be found by.",
            code="REMOTE_UNSUPPORTED",
        )
    return remote.url


def _remote(sections: Sections, name: str, depth: int) -> Remote:
    found = [section for section in sections if (match := _REMOTE.fullmatch(section)) and match[1] == name]
    if not found:
        raise UsageError(
            f"The committed .dvc/config has no remote {printable(name, 80)!r}.",
            code="REMOTE_NOT_NAMED",
            next_step="Name one of its remotes, or commit the remote: dvc remote add.",
        )
    if len(found) > 1 or depth > _MAX_CHAIN:
        raise MalformedError(f".dvc/config has the remote {printable(name, 80)!r} in a circle, or twice.")
    section = found[0]
    url = text_of(sections, section, "url")
    if not url:
        raise MalformedError(f".dvc/config has no 'url' for the remote {printable(name, 80)!r}.")
    flags = {option: _flag(sections, section, option) for option in ("version_aware", "worktree")}
    if not url.lower().startswith("remote://"):
        return Remote(url, any(flags.values()))
    try:
        parts = urlsplit(url)
    except ValueError:
        raise MalformedError(f".dvc/config has an 'url' of {printable(name, 80)!r} that is none.") from None
    base = _remote(sections, parts.netloc.lower(), depth + 1)
    rest = parts.path.lstrip("/")
    # A flag that is set here covers the one below; to be sure, both count.
    return Remote(f"{base.url}/{rest}", base.versioned or any(flags.values()))


def _flag(sections: Sections, section: str, option: str) -> bool:
    value = (text_of(sections, section, option) or "false").lower()
    if value not in ("true", "false"):
        raise MalformedError(f".dvc/config has neither true nor false as {option!r} of {printable(section, 80)!r}.")
    return value == "true"
