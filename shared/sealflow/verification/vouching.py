"""Who a writer of audit events is: whether somebody who may speak for its run vouches for the writer's key.

A writer makes its own key, so its signatures say that its entries belong together and nothing of who it is. The first
event of a chain may carry the word of the deployment's ``audit_signer`` for the writer and the run (:func:`vouched`).
Where the reviewer names who may give it, what such a chain says of its run is vouched for; all else is a claim.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.audit.entry import Entry
from sealflow.audit.event import AuditEvent, vouched
from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow.keys import PublicKey
from sealflow.keys.public import parse_public_key
from sealflow.policy.globs import matches
from sealflow.policy.identities import Identity, KeyIdentity
from sealflow.run_identity import RunIdentity

#: What a report says of events for whose writer nobody vouches.
CLAIMED: Final = "claimed"
#: What is wrong with a chain whose entries name several runs: a vouch is for one.
OTHER_RUN: Final = "The writer speaks for another run than the one that its chain began with, and each is made for one."
#: So many chains may be open at once; of more, all is claimed.
_MOST_OPEN: Final = 200_000


class Word(NamedTuple):
    """What a vouch comes to.

    Attributes:
        by: Name of the identity that vouches; empty where nobody does whom the reviewer named.
        code: Why it counts for nothing: ``AUDIT_VOUCH``, its signature does not hold; ``AUDIT_VOUCHER``, whoever signed
            may not speak for the run. Empty where there is nothing to refuse: a vouch by a stranger is as good as none.
        message: One sentence.
        expected: What was expected.
        found: What was found.
    """

    by: str = ""
    code: str = ""
    message: str = ""
    expected: str = ""
    found: str = ""


@dataclass(frozen=True)
class Voucher:
    """One who may vouch.

    Attributes:
        name: What reports call it.
        key: Its key.
        producers: Patterns of the producers for which it may speak; empty for all.
        builders: Builder ids for which it may speak; empty for all.
        refused: Why nothing counts that it signed: it has expired, or was revoked.
    """

    name: str
    key: PublicKey
    producers: tuple[str, ...] = ()
    builders: tuple[str, ...] = ()
    refused: str = ""

    def may_speak_for(self, run: RunIdentity) -> bool:
        """Tell whether it may vouch for the writer of a run."""
        produces = not self.producers or any(matches(pattern, run.producer) for pattern in self.producers)
        return produces and (not self.builders or run.builder_id in self.builders) and not self.refused


@dataclass(frozen=True)
class Vouchers:
    """Who may vouch for writers.

    Attributes:
        groups: One for each source: a policy, the call. In each of them somebody must let a key speak for a run: a
            source more only tightens.
    """

    groups: tuple[tuple[Voucher, ...], ...]
    _known: dict[str, list[list[Voucher]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for voucher in (item for group in self.groups for item in group):
            fingerprint = f"sha256:{voucher.key.hint}"
            self._known[fingerprint] = [
                [item for item in group if item.key.hint == voucher.key.hint] for group in self.groups
            ]

    @classmethod
    def of(cls, groups: Iterable[Iterable[Identity]], revoked: Mapping[str, str], now: datetime.datetime) -> Vouchers:
        """Make them of identities. Those with a certificate are left out: a vouch names a key and carries none.

        Args:
            groups: The identities of each source.
            revoked: Fingerprints of revoked keys, without ``sha256:``, and why.
            now: The time, aware.

        Raises:
            UsageError: An identity names no key.
            UnavailableError: A key cannot be read.
        """
        return cls(tuple(tuple(_voucher(item, revoked, now) for item in group if isinstance(item, KeyIdentity))
                         for group in groups))  # fmt: skip

    def judge(self, writer: str, run: RunIdentity, vouch: Mapping[str, str]) -> Word:
        """Judge the vouch of a chain's first event: one signature where somebody known gave it.

        Args:
            writer: The chain's writer.
            run: The run that the event names.
            vouch: The event's ``vouch``.
        """
        if not vouch:
            return Word(message="Nobody vouches for the writer.")
        key = vouch["key"]
        known = self._known.get(key)
        if known is None or not all(known):
            return Word(message="Somebody vouches for the writer who is not named here.", found=printable(key, 100))
        voucher = known[0][0]
        try:
            signature = strictjson.base64_bytes(vouch["signature"], "The vouch")
        except EvidenceError:
            signature = b""
        if not voucher.key.verify(signature, vouched(writer, run)):
            return Word(
                code="AUDIT_VOUCH",
                message="The vouch for the writer is not that of the key that it names, for this writer and run.",
                expected=f"a signature of {voucher.name} over writer and run",
                found=printable(run.invocation),
            )
        speaking = [[item for item in group if item.may_speak_for(run)] for group in known]
        if not all(speaking):
            silent = [item for group, able in zip(known, speaking, strict=True) if not able for item in group]
            return Word(
                code="AUDIT_VOUCHER",
                message=f"The writer is vouched for by {voucher.name}, who may not speak for its run.",
                expected="; ".join(item.refused or ", ".join((*item.producers, *item.builders)) for item in silent),
                found=printable(run.producer),
            )
        return Word(by=speaking[0][0].name)

    def to_json(self) -> bytes:
        """Return what :meth:`parse` reads, for a process of our own."""
        return strictjson.dumps(
            [
                [
                    [item.name, item.key.pem.decode("ascii"), list(item.producers), list(item.builders), item.refused]
                    for item in group
                ]
                for group in self.groups
            ]
        )

    @classmethod
    def parse(cls, data: bytes) -> Vouchers:
        """Read what :meth:`to_json` wrote."""
        body: Any = strictjson.loads(data, limit=64 << 20, what="The vouchers")
        return cls(
            tuple(
                tuple(
                    Voucher(
                        name, parse_public_key(pem.encode(), "A voucher"), tuple(producers), tuple(builders), refused
                    )
                    for name, pem, producers, builders, refused in group
                )
                for group in body
            )
        )


class Speakers:
    """Says of each event of a log, in their order, who it is of by a vouch.

    Args:
        vouchers: Who may vouch; ``None``: nobody is named, and all is claimed.
        unsound: Writers whose chains do not hold; what stands in them is claimed, too.
    """

    def __init__(self, vouchers: Vouchers | None, unsound: frozenset[str] = frozenset()) -> None:
        self._vouchers = vouchers
        self._unsound = unsound
        self._open: dict[str, tuple[RunIdentity, Word]] = {}

    def of(self, entry: Entry, event: AuditEvent) -> dict[str, str]:
        """Return ``who``: ``vouched`` or ``claimed``; ``vouched_by``; and ``vouch_code``, why a vouch is refused."""
        if self._vouchers is None:
            return {"who": CLAIMED}
        if entry.writer in self._unsound:
            return {"who": CLAIMED, "vouch_code": "AUDIT_CHAIN"}
        if entry.n == 0 and len(self._open) < _MOST_OPEN:
            word = self._vouchers.judge(entry.writer, event.run, event.vouch)
            if word.by or word.code:
                self._open[entry.writer] = event.run, word
        run, word = self._open.get(entry.writer, (None, Word()))
        if event.phase == "end":
            self._open.pop(entry.writer, None)
        if word.by and run == event.run:
            return {"who": "vouched", "vouched_by": word.by}
        return {"who": CLAIMED, "vouch_code": word.code} if word.code else {"who": CLAIMED}


def _voucher(identity: KeyIdentity, revoked: Mapping[str, str], now: datetime.datetime) -> Voucher:
    key = identity.public_key
    refused = ""
    if (reason := revoked.get(key.hint)) is not None:
        refused = f"its key was revoked: {reason}"
    elif (outside := identity.outside_window(now)) is not None:
        refused = f"it is outside its time, {outside.found}"
    return Voucher(identity.name, key, identity.producers, identity.builders, refused)
