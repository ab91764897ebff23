"""The list of revocations: keys, identities and artifacts that count no longer, whatever else is signed.

One list for a deployment, signed with the policy's keys and delivered by the same channel. It is a document of its own,
so that a stolen key is out in minutes and nobody has to touch the rules for it.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from sealflow.errors import PolicyError
from sealflow.policy.document import GraceHours, Version, parse_document
from sealflow.policy.form import Form
from sealflow.policy.form_parts import About, Between, Matches, Size
from sealflow.policy.requirement import Revocations, Revoked
from sealflow.policy.values import Api, Moment, Text

#: Most entries of a list, and its largest form in bytes; an entry takes 140.
MAX_REVOCATIONS: Final = 100_000
MAX_LIST: Final = 32 << 20
#: Largest signed list in bytes: Base64 takes four bytes for three.
MAX_SIGNED_LIST: Final = 44 << 20

#: How a certificate name begins, as in the policy's identities.
CERTIFICATE_NAMES: Final = ("subject:", "email:", "dns:", "uri:")

# Patterns and not functions: a hundred thousand entries are read at the start of every task.
_KEY: Final = r"^sha256:[0-9a-f]{64}$"
_DIGEST: Final = r"^(sha256|dirHash):[0-9a-f]{64}$"
_IDENTITY: Final = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99}|(subject|email|dns|uri):[^\x00-\x1f\x7f-\x9f]{1,1000})$"
_SINCE: Final = (
    r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_TICKET: Final = r"^[A-Za-z0-9][A-Za-z0-9._:/#-]{0,199}$"


_Key = Annotated[str, Matches(_KEY)]
_Identity = Annotated[str, Matches(_IDENTITY)]
_Digest = Annotated[str, Matches(_DIGEST)]
_Ticket = Annotated[str, Matches(_TICKET)]


class Revocation(Form):
    """One key, identity or artifact that counts no longer."""

    key: Annotated[_Key | None, About("Fingerprint of a public key; of a certificate in a chain its key's.")] = None
    identity: Annotated[
        _Identity | None,
        About(
            "Name of an identity of the admin's policy: all its keys. Or a certificate name with its label "
            "(subject:, email:, dns:, uri:): all certificates with it, under whatever root."
        ),
    ] = None
    digest: Annotated[_Digest | None, About("Artifact digest.")] = None
    since: Annotated[
        str,
        Matches(_SINCE),
        About("From then on nothing counts that was signed. RFC 3339. An artifact is refused whatever it says."),
    ]
    reason: Text
    id: Annotated[_Ticket | None, About("Ticket of the incident.")] = None

    @property
    def at(self) -> datetime.datetime:
        """``since``, aware."""
        # Python 3.10 reads neither the letter Z nor fractions of any other length than three and six.
        text = self.since.upper().replace("Z", "+00:00")
        head, dot, rest = text.partition(".")
        if dot:
            digits = rest[: len(rest) - 6]
            text = f"{head}.{digits:0<6}{rest[-6:]}"
        return datetime.datetime.fromisoformat(text)

    @property
    def subject(self) -> str:
        """What is revoked, as messages name it."""
        return self.key or self.identity or self.digest or ""


class Withdrawal(Form):
    """An entry of an earlier list that holds no longer, or from later on. It stays, for whoever skipped a version."""

    key: _Key | None = None
    identity: _Identity | None = None
    digest: _Digest | None = None
    version: Annotated[
        int,
        Between(2, 2**53),
        About("Version of the list that took it back. What was revoked in that version or later is not excused."),
    ]
    reason: Text
    id: Annotated[_Ticket | None, About("Ticket.")] = None

    @property
    def subject(self) -> str:
        """What counts again."""
        return self.key or self.identity or self.digest or ""


class RevocationList(Form):
    """What counts no longer."""

    apiVersion: Api  # noqa: N815  (the name in the document)
    kind: Literal["Revocations"]
    version: Annotated[Version, About("Rises with every change.")]
    expires: Annotated[Moment, About("Until when the list is believed; a new version is signed before.")]
    grace_hours: Annotated[
        GraceHours, About("How long the last good list stands in for one that is expired or out of reach.")
    ] = 0
    revocations: Annotated[tuple[Revocation, ...], Size(0, MAX_REVOCATIONS)] = ()
    withdrawn: Annotated[
        tuple[Withdrawal, ...],
        Size(0, MAX_REVOCATIONS),
        About("Entries of earlier lists that hold no longer; one that is only left out is refused."),
    ] = ()

    def _check(self) -> None:
        for index, gone in enumerate(self.withdrawn):
            if (gone.key is None) + (gone.identity is None) + (gone.digest is None) != 2:
                raise ValueError(f"withdrawn[{index}] names not exactly one key, identity or digest")
            if gone.version > self.version:
                raise ValueError(f"withdrawn[{index}] is of version {gone.version}, and the list of {self.version}")
        for index, item in enumerate(self.revocations):
            if (item.key is None) + (item.identity is None) + (item.digest is None) != 2:
                raise ValueError(f"revocations[{index}] names not exactly one key, identity or digest")
            try:
                _ = item.at
            except ValueError:
                raise ValueError(f"revocations[{index}]: {item.since} is no time") from None


def parse_revocations(data: bytes, what: str = "The list of revocations") -> RevocationList:
    """Read a list from JSON.

    Raises:
        PolicyError: As :func:`sealflow.policy.document.parse_policy`.
    """
    return parse_document(RevocationList, data, what, MAX_LIST)


#: An entry as we write it, in plain ASCII without escapes; most lists hold no other.
_ENTRY: Final = re.compile(
    r'\{(?:"digest":"((?:sha256|dirHash):[0-9a-f]{64})",)?'
    r'(?:"id":"([A-Za-z0-9][A-Za-z0-9._:/#-]{0,199})",)?'
    r'(?:"identity":"([A-Za-z0-9][A-Za-z0-9._-]{0,99}|(?:subject|email|dns|uri):[ !#-\[\]-~]{1,1000})",)?'
    r'(?:"key":"(sha256:[0-9a-f]{64})",)?'
    r'"reason":"([ !#-\[\]-~]{1,2000})",'
    r'"since":"(2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)"\}([,\]])'
)
_LIST_BEGINS: Final = '"revocations":['


class Taken(NamedTuple):
    """An entry, as far as verifications ask for it.

    Attributes:
        key: Fingerprint with ``sha256:``; empty where it names something else, as the two that follow.
        identity: An identity or a certificate name.
        digest: An artifact digest.
        since: Since when, aware.
        text: Why.
    """

    key: str
    identity: str
    digest: str
    since: datetime.datetime
    text: str


class OwnForm:
    """A list whose entries all stand in it as we write them: not checked member by member, and as strictly read.

    Attributes:
        version: As in :class:`RevocationList`, like the three that follow.
        expires: Until when it is believed.
        grace_hours: How long it may stand in.
        withdrawn: What holds no longer.
        taken: Its entries.
    """

    def __init__(self, data: bytes, head: RevocationList, taken: list[Taken]) -> None:
        self._data = data
        self.version = head.version
        self.expires = head.expires
        self.grace_hours = head.grace_hours
        self.withdrawn = head.withdrawn
        self.taken = taken

    @functools.cached_property
    def revocations(self) -> tuple[Revocation, ...]:
        """The entries in full."""
        return parse_revocations(self._data).revocations


def read_own_form(data: bytes) -> OwnForm | None:
    """Read a list as we write it, in a third of the time; ``None`` for every other, which the strict way reads.

    The text between quotes holds neither quotes nor backslashes, so it means itself; each member is there once and has
    the form that the model asks for. All that stands around the entries is read strictly, without them.
    """
    if len(data) > MAX_LIST or not data.isascii():
        return None
    text = data.decode("ascii")
    begin = text.find(_LIST_BEGINS) + len(_LIST_BEGINS)
    times: dict[str, datetime.datetime] = {}
    taken: list[Taken] = []
    end, last = begin, ""
    for match in _ENTRY.finditer(text, begin):
        digest, ticket, identity, key, reason, since, last = match.groups()
        # Only what follows the one before without anything between them.
        if match.start() != end or (digest is None) + (identity is None) + (key is None) != 2:
            return None
        end = match.end()
        when = times.get(since)
        if when is None:
            try:
                when = times[since] = datetime.datetime.fromisoformat(since[:-1] + "+00:00")
            except ValueError:
                return None
        taken.append(Taken(key or "", identity or "", digest or "", when, f"{reason} ({ticket})" if ticket else reason))
        if last == "]":
            break
    if last != "]" or begin < len(_LIST_BEGINS) or len(taken) > MAX_REVOCATIONS:
        return None
    try:
        head = parse_document(RevocationList, f"{text[:begin]}]{text[end:]}".encode(), "The list", MAX_LIST)
    except PolicyError:
        return None  # the strict way says why
    return OwnForm(data, head, taken)


def compile_revocations(data: bytes, what: str, *, digest: str, uri: str) -> CompiledRevocations:
    """Return a list as verifications ask it; quickest in the form in which we write it.

    Args:
        data: JSON.
        what: Its name in messages.
        digest: Hex SHA-256 of ``data``.
        uri: Where it lies.

    Raises:
        PolicyError: As :func:`sealflow.policy.document.parse_policy`.
    """
    return CompiledRevocations(read_own_form(data) or parse_revocations(data, what), digest=digest, uri=uri)


def revocations_schema() -> dict[str, Any]:
    """Return the published JSON Schema of the list (draft 2020-12)."""
    from sealflow.policy.form_models import schema_of

    body = schema_of(RevocationList, "revocations")
    # What only the reader's code says otherwise.
    one = [{"required": [name]} for name in ("key", "identity", "digest")]
    for name in ("Revocation", "Withdrawal"):
        body["$defs"][name]["oneOf"] = one
    return body


class CompiledRevocations:
    """A list as verifications ask it.

    Attributes:
        document: The list.
        digest: Hex SHA-256 of the signed bytes.
        uri: Where it lies.
    """

    def __init__(self, document: RevocationList | OwnForm, *, digest: str, uri: str = "") -> None:
        self.document = document
        self.digest = digest
        self.uri = uri
        self._keys: dict[str, Revoked] = {}
        self._names: dict[str, Revoked] = {}
        self._digests: dict[str, str] = {}
        self._identities: dict[str, Revoked] = {}
        for item in document.taken if isinstance(document, OwnForm) else map(_taken, document.revocations):
            if item.digest:
                self._digests.setdefault(item.digest, item.text)
            elif item.key:
                _earliest(self._keys, item.key[7:], Revoked(item.since, item.text))
            else:
                named = item.identity.startswith(CERTIFICATE_NAMES)
                _earliest(self._names if named else self._identities, item.identity, Revoked(item.since, item.text))

    def names_key(self, hint: str) -> bool:
        """Tell whether a key is named, by its fingerprint without ``sha256:``."""
        return hint in self._keys

    def lacks(self, before: CompiledRevocations) -> str:
        """Return an entry of an earlier list that this one leaves out or dates later without a word; empty for none."""
        # A false alarm of long ago excuses nobody who was revoked since.
        seen = before.document.version
        withdrawn = {item.subject for item in self.document.withdrawn if item.version > seen}
        for mine, theirs, prefix in (
            (self._keys, before._keys, "sha256:"),
            (self._names, before._names, ""),
            (self._identities, before._identities, ""),
        ):
            for subject, entry in theirs.items():
                here = mine.get(subject)
                if (here is None or here.since > entry.since) and prefix + subject not in withdrawn:
                    return prefix + subject
        return next((item for item in before._digests if item not in self._digests and item not in withdrawn), "")

    @property
    def identities(self) -> Mapping[str, Revoked]:
        """Identities of the admin's policy that are named."""
        return self._identities

    def resolved(self, held: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> Revocations:
        """Return what counts no longer, with the identities that are named taken for what they hold.

        Args:
            held: Of each such identity of the admin's policy the fingerprints of its keys, without ``sha256:``, and its
                certificate names.
        """
        keys, names = self._keys, self._names
        if held:
            keys, names = dict(keys), dict(names)
        for identity, (hints, labels) in held.items():
            entry = self._identities[identity]
            for hint in hints:
                _earliest(keys, hint, entry)
            for label in labels:
                _earliest(names, label, entry)
        return Revocations(keys, self._digests, names, self.digest)


def _taken(item: Revocation) -> Taken:
    text = f"{item.reason} ({item.id})" if item.id else item.reason
    return Taken(item.key or "", item.identity or "", item.digest or "", item.at, text)


def _earliest(known: dict[str, Revoked], subject: str, entry: Revoked) -> None:
    before = known.get(subject)
    if before is None or entry.since < before.since:
        known[subject] = entry
