"""Identity rules: the closed list of who may sign. Without one nothing passes.

Accepted forms of ``identities``, all JSON and all without secrets:

* ``"file:/keys/producer.pub.pem"``: a pinned public key (path, ``file:``, ``awskms:`` or PEM text);
* ``[…]``: several, each of which may speak alone;
* ``{"trainer": …}``: the same with names, which verdicts repeat;
* ``{"key": "…", "producers": ["airflow:train/*"], "builders": ["urn:…"]}``: a key that may speak only for these;
* ``{"certificate": {"roots": "file:/ca.pem", "names": ["email:trainer@example.org"]}, …}``: a certificate under given
  roots with one of these names (``subject:<RFC 4514>``, ``email:``, ``dns:``, ``uri:``), compared exactly.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.hashing import sha256_hex
from sealflow.policy.globs import includes, matches

if TYPE_CHECKING:
    from sealflow.evidence.bundle import Bundle
    from sealflow.keys import PublicKey

#: Most identity rules that one check takes.
MAX_IDENTITIES: Final = 64

_COMMON = frozenset({"name", "producers", "builders"})
_LABELS = ("subject:", "email:", "dns:", "uri:")


class Refused(NamedTuple):
    """Why an identity rule does not accept a bundle's signer.

    Attributes:
        code: A finding code.
        message: One sentence.
        found: What the bundle says.
        expected: What the rule asks for.
    """

    code: str
    message: str
    found: str = ""
    expected: str = ""


@dataclass(frozen=True)
class Identity(ABC):
    """One who may speak.

    Attributes:
        name: What verdicts call it.
        producers: Patterns of the producers for which it may speak; empty for all.
        builders: Builder ids for which it may speak; empty for all.
        company: Producers for which anybody who holds this key may speak, over all identities of a policy; ``None``
            where no policy says so, empty for all.
        valid_from: Before then nothing that it signed counts; aware.
        expires: From then on nothing that it signed counts; aware.
        canonical: Whether its key stands in the policy in the one spelling that fingerprints are made from.
    """

    name: str
    producers: tuple[str, ...]
    builders: tuple[str, ...]
    company: tuple[str, ...] | None = field(default=None, kw_only=True)
    valid_from: datetime.datetime | None = field(default=None, kw_only=True)
    expires: datetime.datetime | None = field(default=None, kw_only=True)
    canonical: bool = field(default=False, kw_only=True)

    @abstractmethod
    def key_for(self, bundle: Bundle, at: datetime.datetime) -> PublicKey | Refused:
        """Return the public key under which the bundle must verify, or why this identity has nothing to do with it.

        Raises:
            UnavailableError: The rule's key or roots cannot be read.
            EvidenceError: The bundle's key material is malformed.
        """

    def outside_window(self, at: datetime.datetime) -> Refused | None:
        """Return why a signature of this time does not count, ``None`` inside the identity's validity window.

        Args:
            at: When the signature was made, by a time that can be trusted; the time of the check where there is none,
                since no time that a signer wrote is believed.
        """
        if self.valid_from is not None and at < self.valid_from:
            return Refused("KEY_NOT_YET_VALID", "The identity does not count yet.", f"from {_text_of(self.valid_from)}")
        if self.expires is not None and at >= self.expires:
            return Refused("KEY_EXPIRED", "The identity has expired.", f"expired {_text_of(self.expires)}")
        return None

    def may_speak_for(self, producer: str, builder: str) -> bool:
        """Tell whether this identity may sign provenance that names this producer and builder."""
        produces = not self.producers or any(matches(pattern, producer) for pattern in self.producers)
        return produces and (not self.builders or builder in self.builders)

    def is_alone(self, patterns: Sequence[str]) -> bool:
        """Tell whether this key proves one of these producers: nobody who holds it may speak for any other."""
        return bool(self.company) and all(any(includes(wide, mine) for wide in patterns) for mine in self.company or ())

    def as_dict(self) -> dict[str, Any]:
        """Return the canonical form that the policy digest covers: what is trusted, not where it was read from."""
        return {"producers": sorted(self.producers), "builders": sorted(self.builders)}


@dataclass(frozen=True)
class KeyIdentity(Identity):
    """A pinned public key.

    Attributes:
        source: PEM text, path or URI.
    """

    source: str

    @cached_property
    def public_key(self) -> PublicKey:
        """The key, loaded at first use."""
        from sealflow.keys import load_public_key

        key = load_public_key(self.source)
        if self.canonical and key.pem.decode("ascii") != self.source:
            # Two spellings of one key would hide that it is shared.
            raise UsageError(
                f"The key of the identity {printable(self.name)} is spelled in an unusual way.",
                next_step="Sign the policy again with `sealflow policy sign`, which spells keys in one way.",
            )
        return key

    def key_for(self, bundle: Bundle, at: datetime.datetime) -> PublicKey | Refused:
        """See :class:`Identity`."""
        key = self.public_key
        expected = f"sha256:{key.hint}"
        if bundle.chain or bundle.keyless:
            return Refused("SIGNER_NOT_ALLOWED", "Signed with a certificate, not with the pinned key.", "", expected)
        if bundle.hint is not None and bundle.hint != key.hint:
            return Refused("SIGNER_NOT_ALLOWED", "Signed with another key.", f"sha256:{bundle.hint}", expected)
        return key

    def as_dict(self) -> dict[str, Any]:
        """See :class:`Identity`."""
        return {**super().as_dict(), "key": self.public_key.hint}


@dataclass(frozen=True)
class CertificateIdentity(Identity):
    """A name under given roots.

    Attributes:
        roots: PEM texts, paths or ``file:`` URIs.
        names: Accepted names with their label.
    """

    roots: tuple[str, ...]
    names: tuple[str, ...]

    @cached_property
    def _roots(self) -> list[Any]:
        from sealflow.keys.certificate import load_certificates

        return [certificate for source in self.roots for certificate in load_certificates(source)]

    def key_for(self, bundle: Bundle, at: datetime.datetime) -> PublicKey | Refused:
        """See :class:`Identity`."""
        from sealflow.keys import certificate

        expected = ", ".join(self.names)
        if not bundle.chain:
            return Refused("SIGNER_NOT_ALLOWED", "Signed with a bare key, not with a certificate.", "", expected)
        chain = certificate.parse_chain(bundle.chain)
        try:
            key = certificate.check_chain(chain, self._roots, at)
        except certificate.CertificateError as problem:
            return Refused(problem.code, str(problem), problem.found)
        found = certificate.names(chain[0])
        present = {f"subject:{found.subject}", *found.alternative}
        if present.isdisjoint(self.names):
            return Refused(
                "CERTIFICATE_NAME", "The certificate belongs to somebody else.", ", ".join(sorted(present)), expected
            )
        return key

    def as_dict(self) -> dict[str, Any]:
        """See :class:`Identity`."""
        from sealflow.keys.certificate import to_der

        roots = sorted(sha256_hex(to_der(root)) for root in self._roots)
        return {**super().as_dict(), "roots": roots, "names": sorted(self.names)}


def _text_of(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_identities(value: Any) -> tuple[Identity, ...]:
    """Read identity rules in any of their forms; ``None`` and empty forms give no rule, with which nothing passes.

    Raises:
        UsageError: Not one of the forms; names the rule and the member.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, Identity):
        return (value,)
    if isinstance(value, str) and value.lstrip().startswith(("{", "[", '"')):
        try:
            value = strictjson.loads(value.encode("utf-8", "surrogatepass"), limit=1 << 20, what="The identities")
        except EvidenceError as error:
            raise UsageError(error.message) from None
    if isinstance(value, str):
        return (_parse_one(value, "identities"),)
    if isinstance(value, Mapping):
        if "key" in value or "certificate" in value:
            return (_parse_one(value, "identities"),)
        rules = tuple(_parse_one(item, str(name)) for name, item in value.items())
    elif isinstance(value, Sequence):
        rules = tuple(
            item if isinstance(item, Identity) else _parse_one(item, f"identities[{index}]")
            for index, item in enumerate(value)
        )
    else:
        raise UsageError(f"`identities` must be text, a list or a mapping, not {type(value).__name__}.")
    if len(rules) > MAX_IDENTITIES:
        raise UsageError(f"`identities` has {len(rules)} rules; {MAX_IDENTITIES} are accepted.")
    return rules


def _parse_one(item: Any, name: str) -> Identity:
    if isinstance(item, str):
        if not item:
            raise UsageError(f"The identity rule {name} is empty.")
        return KeyIdentity(name, (), (), item)
    if not isinstance(item, Mapping):
        raise UsageError(f"The identity rule {name} must be text or a mapping, not {type(item).__name__}.")
    kinds = [kind for kind in ("key", "certificate") if kind in item]
    unknown = set(item) - _COMMON - set(kinds)
    if len(kinds) != 1 or unknown:
        problem = (
            f"has the unknown member {printable(min(map(str, unknown)))!r}"
            if unknown
            else "needs one of key, certificate"
        )
        raise UsageError(f"The identity rule {name} {problem}.")
    name = _text(item, "name", name) if "name" in item else name
    producers = _texts(item, "producers", name)
    builders = _texts(item, "builders", name)
    if kinds == ["key"]:
        return KeyIdentity(name, producers, builders, _text(item, "key", name))
    body = item["certificate"]
    if not isinstance(body, Mapping) or set(body) != {"roots", "names"}:
        raise UsageError(f"The identity rule {name}: certificate takes exactly roots and names.")
    roots = _texts(body, "roots", name)
    names = _texts(body, "names", name)
    if not roots or not names:
        raise UsageError(
            f"The identity rule {name} lists no roots or no names; a certificate without a name rule is anybody's."
        )
    for text in names:
        if not text.startswith(_LABELS):
            raise UsageError(
                f"The identity rule {name}: {printable(text)!r} must start with one of {', '.join(_LABELS)}."
            )
    return CertificateIdentity(name, producers, builders, roots, names)


def _text(item: Mapping[str, Any], key: str, name: str) -> str:
    value = item[key]
    if not isinstance(value, str) or not value:
        raise UsageError(f"The identity rule {name}: {key} must be text.")
    return value


def _texts(item: Mapping[str, Any], key: str, name: str) -> tuple[str, ...]:
    value = item.get(key, ())
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(text, str) and text for text in values):
        raise UsageError(f"The identity rule {name}: {key} must be a list of texts.")
    if key in item and not values:
        # An empty list written down means "none"; read as "all" it would loosen the rule.
        raise UsageError(f"The identity rule {name}: {key} is empty; leave it out or list something.")
    return tuple(values)
