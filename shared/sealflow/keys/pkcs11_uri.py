"""PKCS#11 URIs (RFC 7512): which key, on which token, and where its PIN comes from.

Through which library is not theirs to say (``module-path``, ``module-name``): a library is code, and URIs stand in
drafts and in policies of teams, which others read. A PIN itself is never part of a URI here: they stand in policies,
connections and logs. The RFC's ``pin-value`` is refused, and nothing that was given is repeated in the refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from sealflow.errors import UsageError
from sealflow.findings import printable

#: Attributes of the path that name a token, compared exactly (RFC 7512 section 2.3).
_TOKEN: Final = ("token", "serial", "manufacturer", "model", "slot-id")
_OBJECT: Final = ("object", "id", "type")
#: Attributes of the query. ``certificate`` is ours, as in every signer URI.
_QUERY: Final = ("pin-source", "certificate")
#: RFC 7512 section 2.3 also knows programs (``|…``): a URI comes from elsewhere, and starts nothing here.
_PIN_SOURCE = re.compile(r"/[^\0\n]*|file:(?:///|/(?!/))[^\0\n]*|env:[A-Za-z_][A-Za-z0-9_]*")
#: An escape that is none would be taken for its own text.
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True)
class Pkcs11Uri:
    """A key on a token.

    Attributes:
        text: The URI without its query, as messages show it.
        token: Attributes of the token that must match: ``token`` (its label), ``serial``, ``manufacturer``, ``model``,
            ``slot-id``.
        label: The object's label, ``None`` for any.
        id: The object's ``CKA_ID``, ``None`` for any.
        pin_source: ``env:NAME`` or the place of a file, ``None`` where the URI names none.
        certificate: Place of a PEM chain.
    """

    text: str
    token: tuple[tuple[str, str], ...]
    label: str | None
    id: bytes | None
    pin_source: str | None
    certificate: str | None


def parse_pkcs11_uri(uri: str) -> Pkcs11Uri:
    """Read a ``pkcs11:`` URI.

    Raises:
        UsageError: Not of that form, an attribute that is unknown or stands there twice, a PIN in it, or no key named.
    """
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    if "pin-value" in uri:
        # Nothing of the URI is shown: the PIN may stand anywhere in what somebody mistyped.
        raise UsageError(
            "A PKCS#11 URI holds a PIN.",
            next_step="Change the PIN, it may be in a log by now; then name its place: pin-source=/path or "
            "pin-source=env:NAME.",
        )
    if "module-" in query:
        raise UsageError(
            "A PKCS#11 URI names a library, which is code.",
            next_step="Leave it out; whoever runs the process names the library in SEALFLOW_PKCS11_MODULE.",
        )
    found = _attributes(path, ";", (*_TOKEN, *_OBJECT))
    options = _attributes(query, "&", _QUERY)
    shown = f"pkcs11:{path}"
    if found.get("type", "private") not in ("private", "public"):
        raise UsageError(f"{printable(shown)} names no key but an object of another type.")
    if "object" not in found and "id" not in found:
        raise UsageError(
            f"{printable(shown)} names no key.", next_step="Write object=<label> or id=%01, or both, after the token."
        )
    if not _PIN_SOURCE.fullmatch(unquote(options.get("pin-source", "/"))):
        # Not repeated: it may be the PIN itself.
        raise UsageError(
            f"The PIN source of {printable(shown)} is no place.",
            next_step="Name a file by its absolute path, or a variable as env:NAME.",
        )
    return Pkcs11Uri(
        shown,
        tuple((name, unquote(found[name])) for name in _TOKEN if name in found),
        unquote(found["object"]) if "object" in found else None,
        unquote_to_bytes(found["id"]) if "id" in found else None,
        *(unquote(options[name]) if name in options else None for name in _QUERY),
    )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in text.split(separator) if text else ():
        name, equals, value = item.partition("=")
        if name not in known or not equals:
            raise UsageError(
                "A PKCS#11 URI has an attribute that is not known here.",
                next_step=f"Known: {', '.join(known)} (RFC 7512), separated by {separator}",
            )
        if name in found:
            raise UsageError(f"A PKCS#11 URI has the attribute {name} twice.")
        if not value or not _ESCAPES.fullmatch(value):
            raise UsageError(f"The attribute {name} of a PKCS#11 URI is empty or not percent-encoded.")
        found[name] = value
    return found
