"""When a signature was made, by the word of those whom the policy names, and what follows for its signer. Pure.

Two things prove it: a token of a timestamp authority over the signature (RFC 3161), and a log that holds the digest of
the bundle under a checkpoint which witnesses cosigned. The earliest time that is proved counts.

Either can only help: whoever has a signature can leave its proof away, so nothing is refused for what a proof says that
would pass without one. It is looked at where it is needed: a rule asks for it, the signer is revoked, or he is out of
his time by now.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import cached_property

from sealflow.errors import MissingExtraError
from sealflow.evidence.bundle import Bundle
from sealflow.evidence.store import StoredEvidence
from sealflow.evidence.timestamp import Authority, Stamp, earliest_stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.hashing import sha256_hex
from sealflow.policy.requirement import Revocations


class TrustedTime:
    """The time of one signature, worked out when somebody asks.

    Args:
        item: The piece of evidence, with what lies beside it.
        bundle: The bundle with the signature and its tokens.
        believed: Whose tokens, and which logs' witnesses, are believed.
        now: The time of the check, aware.
        revoked: Keys that count no longer.
    """

    def __init__(
        self,
        item: StoredEvidence,
        bundle: Bundle,
        believed: Sequence[Authority | WitnessedLog],
        now: datetime.datetime,
        revoked: Revocations,
    ) -> None:
        self._item = item
        self._bundle = bundle
        self._authorities = [each for each in believed if isinstance(each, Authority)]
        self._logs = [each for each in believed if isinstance(each, WitnessedLog)]
        self._now = now
        self._revoked = revoked
        #: Why a token could not be read that might prove an earlier time than was proved.
        self.unread: MissingExtraError | None = None

    @cached_property
    def _found(self) -> Stamp | str:
        logged = self._logged()
        try:
            stamped = self._stamped()
        except MissingExtraError as error:
            if not isinstance(logged, Stamp):
                raise
            self.unread = error
            return logged
        found = [each for each in (stamped, logged) if isinstance(each, Stamp)]
        if found:
            return min(found, key=lambda each: each.latest)
        return "; ".join(each for each in (stamped, logged) if isinstance(each, str) and each)

    def _stamped(self) -> Stamp | str:
        return earliest_stamp(self._bundle.timestamps, self._bundle.signature, self._authorities, self._now)

    def _logged(self) -> Stamp | str:
        if not self._logs or not self._item.inclusions:
            return ""
        from sealflow.verification.inclusion import earliest_inclusion

        sha256 = sha256_hex(self._item.data)
        return earliest_inclusion(self._item.inclusions, sha256, self._logs, self._now, self._revoked)

    @property
    def given(self) -> bool:
        """Whether there is anything that could prove a time, and somebody who is believed about it."""
        stamped = bool(self._bundle.timestamps) and bool(self._authorities)
        return stamped or (bool(self._item.inclusions) and bool(self._logs))

    @property
    def stamp(self) -> Stamp | None:
        """What was proved.

        Raises:
            MissingExtraError: Only a token could prove it, and there is no library to look at it.
        """
        return self._found if isinstance(self._found, Stamp) else None

    @property
    def problem(self) -> str:
        """Why nothing was, as part of a sentence. Raises as :attr:`stamp`."""
        return self._found if isinstance(self._found, str) else ""
