"""URLs of Git repositories: which texts are some, and which of them are taken."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from sealflow.errors import UsageError
from sealflow.findings import printable

_MAX_URL: Final = 2048

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::?//|[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCP: Final = re.compile(r"[^\s/@:]+@[^\s/@:]+:.+", re.DOTALL)
_USER: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
# What a path may hold: nothing that a shell, a terminal or another reader of URLs takes for something else.
_PATH: Final = r"[A-Za-z0-9._~%+@=,:/-]+"
_HTTPS: Final = re.compile(rf"https://{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_SSH: Final = re.compile(rf"ssh://(?:{_USER}@)?{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
_PORTS: Final = {"https": 443, "ssh": 22}
_FILE: Final = re.compile(rf"file:///(?!/){_PATH}")
_SHORT: Final = re.compile(rf"{_USER}@{_HOST}:(?!-){_PATH}")


def is_git_url(text: str) -> bool:
    """Tell whether a text is to be taken for the URL of a Git repository, and not for a folder.

    Everything with a scheme is one, also where :func:`cloned` will refuse it (``http://``, ``git://``, ``ext::``), and
    so is ``user@host:path``. Plain paths are not. ``file:`` URLs are where they end in ``.git``; others have always
    meant the folder itself.
    """
    if text[:5].lower() == "file:":
        return text.rstrip("/").endswith(".git")
    return _SCHEME.match(text) is not None or _SCP.fullmatch(text) is not None


def check_url(url: str) -> str:
    """Return the protocol that a URL of a Git repository uses: ``https``, ``ssh`` or ``file``.

    Raises:
        UsageError: ``GIT_URL_REFUSED``: another protocol, credentials in the URL, or a form that two readers could
            understand in two ways. The message does not repeat the URL, which may hold a password.
    """
    scheme = url.partition(":")[0].lower() if _SCHEME.match(url) else ""
    if len(url) > _MAX_URL or printable(url, _MAX_URL) != url or not url.isascii():
        raise _bad_url("It is too long, or holds characters that no URL has.")
    if "::" in url.partition("/")[0]:
        raise _bad_url(f"{printable(scheme, 40)}:: would start a program.")
    user, at, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    # A lone user name in front of https is a token as often as not.
    if at and (scheme == "https" or (scheme == "ssh" and ":" in user)):
        raise _bad_url(
            "It holds credentials, which would end up in verdicts and logs.",
            "Leave them out; for a private repository use ssh with an agent.",
        )
    if _HTTPS.fullmatch(url):
        return "https"
    if _SSH.fullmatch(url) or (not scheme and _SHORT.fullmatch(url)):
        return "ssh"
    if scheme == "file" and _is_plain_file(url):
        return "file"
    if scheme and scheme not in ("https", "ssh", "file"):
        raise _bad_url(f"The protocol {printable(scheme, 40)!r} is not allowed.")
    raise _bad_url("It is not of the form of a plain URL.")


def plain_url(url: str) -> str:
    """Return a URL that :func:`check_url` takes with its server in one spelling, for whoever compares text.

    The host is in lower case, and the port that its scheme has anyway is left out.
    """
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    host, colon, port = host.lower().rpartition(":") if _PORT.search(host) else (host.lower(), "", "")
    if port and int(port) == _PORTS.get(scheme):
        colon = port = ""
    return f"{scheme}{mark}{user}{at}{host}{colon}{port}{slash}{path}"


def _is_plain_file(url: str) -> bool:
    path = unquote(urlsplit(url).path)
    return (
        _FILE.fullmatch(url) is not None
        and printable(path, len(path) + 1) == path
        # Git takes a URL's path as it stands, others resolve it first.
        and not {"", ".", ".."} & set(path.strip("/").split("/"))
    )


def _bad_url(problem: str, step: str = "") -> UsageError:
    return UsageError(
        f"The URL of the Git repository is refused. {problem}",
        code="GIT_URL_REFUSED",
        next_step=step or "Give https://host/path, ssh://user@host/path, user@host:path or file:///path.",
    )
