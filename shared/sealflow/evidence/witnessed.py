"""A log as a witness of time: which one a policy believes, and what must have cosigned it.

A witness (C2SP tlog-witness) signs a log's checkpoint together with the time at which it saw it. An entry under that
checkpoint was there by then; ours name the evidence that an action made by its SHA-256. The key of the log proves no
time: its holder writes any.
"""

from __future__ import annotations

from typing import NamedTuple


class WitnessedLog(NamedTuple):
    """A log whose witnesses are believed about time.

    Attributes:
        name: Its name in the policy.
        log: The log's verifier key: origin, id and key.
        witnesses: Verifier keys of those who count, of one holder each.
        quorum: How many of them must have seen a checkpoint. The time that counts is the latest of that many: fewer
            than so many dishonest witnesses date nothing back.
    """

    name: str
    log: str
    witnesses: tuple[str, ...]
    quorum: int
