"""When a signature was made, by the word of an authority that the policy names, and what follows for its signer. Pure.

A token can only help: whoever has a signature can leave its token away, so nothing is refused for what a token says
that would pass without one. It is looked at where it is needed: a rule asks for it, the signer is revoked, or he is out
of his time by now.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import cached_property

from sealflow.evidence.bundle import Bundle
from sealflow.evidence.timestamp import Authority, Stamp, earliest_stamp


class TrustedTime:
    """The time of one signature, worked out when somebody asks.

    Args:
        bundle: The bundle with the signature and its tokens.
        authorities: Whose tokens are believed.
        now: The time of the check, aware.
    """

    def __init__(self, bundle: Bundle, authorities: Sequence[Authority], now: datetime.datetime) -> None:
        self._bundle = bundle
        self._authorities = authorities
        self._now = now

    @cached_property
    def _found(self) -> Stamp | str:
        return earliest_stamp(self._bundle.timestamps, self._bundle.signature, self._authorities, self._now)

    @property
    def given(self) -> bool:
        """Whether there is a token at all, and somebody whose tokens are believed."""
        return bool(self._bundle.timestamps) and bool(self._authorities)

    @property
    def stamp(self) -> Stamp | None:
        """What was proved.

        Raises:
            MissingExtraError: There is a token, and no library to look at it.
        """
        return self._found if isinstance(self._found, Stamp) else None

    @property
    def problem(self) -> str:
        """Why nothing was, as part of a sentence. Raises as :attr:`stamp`."""
        return self._found if isinstance(self._found, str) else ""
