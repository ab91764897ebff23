"""Who can open what is encrypted: from settings, arguments and policies to keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, UsageError
from sealflow.findings import CODES, printable
from sealflow.keys import PassphraseCallback

if TYPE_CHECKING:
    from sealflow.actions.context import Surroundings
    from sealflow.encryption import Recipient
    from sealflow.policy.compose import CompiledPolicy

_MAX_TEXT: Final = 64 << 10


def recipient_uris(value: Any) -> tuple[str, ...]:
    """Return the recipient URIs in an argument or a setting: one URI, a list of them, or the JSON text of a list.

    Raises:
        UsageError: Something else.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return (value,)
        try:
            value = strictjson.loads(value.encode("utf-8", "surrogatepass"), limit=_MAX_TEXT, what="`recipients`")
        except EvidenceError as error:
            raise UsageError(error.message) from None
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise UsageError("`recipients` is neither a recipient URI nor a list of them.")
    uris = tuple(value)
    if not all(isinstance(item, str) and item for item in uris):
        raise UsageError("`recipients` holds something that is no recipient URI.")
    return tuple(dict.fromkeys(uris))


def open_recipients(uris: Sequence[str], passphrase: PassphraseCallback | None = None) -> tuple[Recipient, ...]:
    """Open the keys that URIs name.

    Raises:
        UsageError: None is named, one cannot be opened.
        UnavailableError: One cannot be read.
    """
    if not uris:
        raise UsageError(
            "There is no recipient.",
            code="RECIPIENT_MISSING",
            next_step="Give `recipients`, for example rsa:/keys/team.pem, aes:/keys/team.key or awskms:<key ARN>.",
        )
    # Most tasks encrypt nothing, and need not load what does.
    from sealflow.encryption import load_recipient

    return tuple(load_recipient(uri, passphrase) for uri in uris)


def demanded_recipients(
    canonical: str, name: str, surroundings: Surroundings, added: str | CompiledPolicy | None = None
) -> tuple[Recipient, ...]:
    """Return those to whom the policies let nothing be encrypted without: what they say of a key stands before all.

    Args:
        canonical: Where the encrypted object goes, as its storage writes it.
        name: The logical name.
        surroundings: Who writes.
        added: One more policy, as the call gave it.

    Raises:
        PolicyError: Policies cannot be joined.
        UnavailableError: The policy is not to be had.
    """
    if surroundings.admin is None and added is None:
        return ()
    from sealflow.actions.policies import policies_for

    return tuple(item.open() for item in policies_for(canonical, surroundings, added).recipients([name]))


def refuse_recipients(
    canonical: str,
    name: str,
    surroundings: Surroundings,
    holders: Sequence[tuple[str, bytes]],
    added: str | CompiledPolicy | None = None,
) -> None:
    """Refuse recipients with whom nobody would be allowed to open the artifact.

    Args:
        canonical: Where the encrypted object goes, as its storage writes it.
        name: The logical name.
        surroundings: Who writes.
        holders: Provider and key information of each wrapped key.
        added: One more policy, as the call gave it.

    Raises:
        PolicyError: ``RECIPIENT_NOT_ALLOWED`` or ``RECIPIENT_REQUIRED``: a rule of the policies.
        UnavailableError: The policy is not to be had.
    """
    if surroundings.admin is None and added is None:
        return
    from sealflow.actions.policies import policies_for
    from sealflow.policy.compose import Arguments, waived_rules
    from sealflow.policy.decide import unsealed

    ruling = policies_for(canonical, surroundings, added).ruling(Arguments(), [name])
    waived, _ = waived_rules(ruling, "")
    for short in unsealed(ruling.requirement, holders):
        if ruling.level == "enforce" and short.rule not in waived:
            expected = f"{short.message} Rule {printable(short.rule)} expects {printable(short.expected)}."
            raise PolicyError(expected, code=short.code, next_step=CODES[short.code].next_step)
