"""Who a policy knows: who may sign, who can open, who is believed about time, and who may tighten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from sealflow.errors import UsageError
from sealflow.policy.form import Form
from sealflow.policy.form_parts import About, Between, Check, Size
from sealflow.policy.globs import NAME_PREFIX, is_absolute
from sealflow.policy.rules import Scope
from sealflow.policy.values import KeyText, Moment, Name, Patterns, Places, Roots, Text, Texts

#: Most witnesses of a log that is believed about time.
MAX_WITNESSES: Final = 16
#: Team name under which the rules of a call's own policy stand.
RESERVED_TEAM: Final = "policy"


class Certificates(Form):
    """Certificates under given roots, with one of these names (``subject:``, ``email:``, ``dns:``, ``uri:``)."""

    roots: Annotated[Roots, About("PEM text in a signed policy; paths in a draft, which signing replaces.")]
    names: Texts


class IdentityModel(Form):
    """One who may sign: a pinned public key, or a certificate name under given roots."""

    key: Annotated[
        KeyText | None, About("PEM text in a signed policy; a path or URI in a draft, which signing replaces.")
    ] = None
    certificate: Certificates | None = None
    producers: Annotated[Patterns | None, About("Producers for which it may speak; absent: for all.")] = None
    builders: Annotated[Texts | None, About("SLSA builder ids for which it may speak; absent: for all.")] = None
    verifier: Annotated[bool, About("It signs verification summaries, and nothing else.")] = False
    valid_from: Annotated[Moment | None, About("Before then nothing that it signed counts.")] = None
    expires: Annotated[Moment | None, About("From then on nothing that it signed counts.")] = None

    def _check(self) -> None:
        if (self.key is None) == (self.certificate is None):
            raise ValueError("an identity needs exactly one of key and certificate")
        if self.verifier and (self.producers or self.builders):
            raise ValueError("a verifier is no producer; leave producers and builders out, or verifier")
        if self.valid_from is not None and self.expires is not None and self.valid_from >= self.expires:
            raise ValueError("valid_from lies before expires, or it never counts")


def _key_arn(text: str) -> None:
    from sealflow.encryption.awskms import AwsKmsRecipient

    try:
        arn = AwsKmsRecipient(f"awskms:{text}").arn
    except UsageError:
        arn = ""
    if arn != text:
        raise ValueError("an alias can be pointed elsewhere; write the ARN, arn:aws:kms:<region>:<account>:key/<id>")


def _namespace(text: str) -> None:
    from sealflow.encryption.recipient import KMS_PROVIDER

    if text == KMS_PROVIDER:
        raise ValueError(f"the namespace {KMS_PROVIDER} is that of keys in KMS; choose another")


HeaderName = Annotated[Text, Size(0, 256)]
_KeyArn = Annotated[Text, Check(_key_arn)]
_Namespace = Annotated[HeaderName, Check(_namespace)]


class RecipientModel(Form):
    """One who can open encrypted artifacts: an RSA public key, or a symmetric key in AWS KMS."""

    rsa: Annotated[
        KeyText | None, About("Public key, PEM text in a signed policy; a path in a draft, which signing replaces.")
    ] = None
    kms: Annotated[_KeyArn | None, About("The key's full ARN.")] = None
    namespace: Annotated[
        _Namespace | None, About("Key namespace in the header of an artifact, of an RSA key; absent: sealflow.")
    ] = None
    name: Annotated[
        HeaderName | None, About("Name in that header, of an RSA key; absent: the SHA-256 of the PEM text.")
    ] = None

    @classmethod
    def _before(cls, value: object) -> None:
        symmetric = isinstance(value, dict) and ("aes" in value or str(value.get("rsa", "")).startswith("aes:"))
        if symmetric:
            raise ValueError("a symmetric key is a secret, and a policy is read by all; name an RSA key or one in KMS")

    def _check(self) -> None:
        if (self.rsa is None) == (self.kms is None):
            raise ValueError("a recipient needs exactly one of rsa and kms")
        if self.kms is not None and (self.namespace is not None or self.name is not None):
            raise ValueError("a key in KMS stands in the header by its ARN; leave namespace and name out")


class SignerChoice(Form):
    """Which signer tasks in this scope use when none is named."""

    scope: Scope = Scope()
    uri: Text
    timestamp: Annotated[
        Name | None, About("One of `timestamp_authorities`, which has a url: it stamps what this signer signs.")
    ] = None

    def _check(self) -> None:
        if "PRIVATE KEY" in self.uri:
            raise ValueError("a signer is named by a URI; the key itself never stands in a policy")


def _authority_url(text: str) -> None:
    from sealflow.evidence.timestamp import check_url

    try:
        check_url(text)
    except UsageError as error:
        raise ValueError(error.message.rstrip(".")) from None


def _log_key(text: str) -> None:
    from sealflow.audit.note import ED25519, VerifierKey

    _verifier_key(text, VerifierKey.parse, ED25519, "a log (type 01)")


def _witness_key(text: str) -> None:
    from sealflow.audit.note import COSIGNATURE, VerifierKey

    _verifier_key(text, VerifierKey.parse, COSIGNATURE, "a witness, which makes cosignatures (type 04)")


def _verifier_key(text: str, parse: Callable[[str], Any], kind: int, whose: str) -> None:
    try:
        key = parse(text)
    except UsageError as error:
        raise ValueError(error.message.rstrip(".")) from None
    if key.kind != kind:
        raise ValueError(f"the key of {key.name} is not that of {whose}")


_AuthorityUrl = Annotated[Text, Check(_authority_url)]
_LogKey = Annotated[Text, Check(_log_key)]
_Witnesses = Annotated[tuple[Annotated[Text, Check(_witness_key)], ...], Size(1, MAX_WITNESSES)]


class TimestampAuthority(Form):
    """Who is believed about when something was signed: an authority (RFC 3161), or a log by its witnesses (C2SP)."""

    roots: Annotated[
        Roots | None,
        About(
            "All that is trusted of an authority; PEM text in a signed policy, paths in a draft, which signing "
            "replaces."
        ),
    ] = None
    url: Annotated[
        _AuthorityUrl | None,
        About("Where an authority is asked, http or https; absent: its tokens are believed, none is asked for."),
    ] = None
    log: Annotated[
        _LogKey | None,
        About("Verifier key of an audit log, as `sealflow audit key` prints it; instead of `roots`."),
    ] = None
    witnesses: Annotated[
        _Witnesses | None,
        About("Verifier keys of those whose cosignatures of the log's checkpoints count, and whose clocks do."),
    ] = None
    quorum: Annotated[
        Annotated[int, Between(1, MAX_WITNESSES)] | None,
        About("How many witnesses must have seen a checkpoint; absent: all of them."),
    ] = None

    def _check(self) -> None:
        if (self.roots is None) == (self.log is None):
            raise ValueError("a timestamp authority has either roots or a log with witnesses")
        if self.log is None:
            if self.witnesses is not None or self.quorum is not None:
                raise ValueError("witnesses and quorum belong to a log")
            return
        if self.url is not None or self.witnesses is None:
            raise ValueError("a log has witnesses and no url; its own key proves no time")
        # A witness is known by its name and its key; the log's holder must not be one.
        for told in ({text.partition("+")[0] for text in self.witnesses}, {_raw(text) for text in self.witnesses}):
            if len(told) < len(self.witnesses):
                raise ValueError("two of the witnesses have one name or one key")
        if _raw(self.log) in {_raw(text) for text in self.witnesses}:
            raise ValueError("a log cannot witness itself")
        if (self.quorum or 1) > len(self.witnesses):
            raise ValueError(f"a quorum of {self.quorum} cannot be had of {len(self.witnesses)} witnesses")


def _raw(text: str) -> bytes:
    from sealflow.audit.note import VerifierKey

    return VerifierKey.parse(text).raw


class Delegation(Form):
    """A team's own policy, which tightens inside the artifacts given to it."""

    team: Name
    artifact: Places
    key: Annotated[KeyText, About("The team's public key, as PEM.")]
    policy: Annotated[Text, About("Where the team's signed policy lies.")]
    minimum_version: Annotated[int, Between(1, 2**53)] = 1

    def _check(self) -> None:
        if self.team == RESERVED_TEAM:
            raise ValueError(f"the name {RESERVED_TEAM} stands for a policy that a call adds; name the team otherwise")
        if any(item.startswith(NAME_PREFIX) for item in self.artifact):
            raise ValueError("a delegation is about locations; a logical name is whatever its signer writes")
        if not is_absolute(self.policy):
            raise ValueError("the place of a team's policy is absolute; another one depends on each task's folder")
