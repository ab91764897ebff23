"""An inbox in S3, for writers that reach no database.

========================================== ==========================================================================
object below the inbox's location          what it is
========================================== ==========================================================================
``inbox/<writer>/<n>-<count>-<sha256>``    ``count`` entries of a chain from number ``n`` on, a line each; the digest
                                           is that of these bytes
``seq/<start>``                            the order: what has the indices from ``start`` on, see :class:`_Block`
``batch/<start>-<nonce>``                  the lines of one such object, until a checkpoint includes them
``chains/<writer>/<-n>-<start>-<nonce>``   empty: ``seq/<start>``, if it names the nonce, holds the entries of this
                                           chain from ``n`` on; numbers fall, so that the latest is listed first
``refused/<writer>/…``                     what no integrator took
``last``                                   where to begin to look for the latest ``seq`` object: a hint, no more
========================================== ==========================================================================

The order is fixed by creating ``seq/<start>`` (If-None-Match: one wins), which names every entry by its hash. Whoever
creates it has put everything that it refers to there before: the lines, and the marks that lead from a chain to it. So
it makes no difference where an integrator dies. Another one sees the object, or does not, and works on from there.

Why removing what was put in order loses nothing:

- A name in ``inbox/`` fixes the bytes. To remove it after each of its entries has an index removes nothing else,
  whoever puts it again in between.
- Who puts it again later, because no answer came or a spool is shipped twice, is told that it is durable, which is
  true. The next integrator finds numbers that the chain's marks show to have an index already, compares the hashes
  with the ones in ``seq/``, and removes the object again. Other bytes under a number that has an index are refused.
- The marks and ``seq/`` stay for ever, so no entry gets a second index, however late it comes. A look-up is one
  listing of one name and one object, for each chain that turns up.

What a run costs follows from what lies in ``inbox/`` and not from what ever lay there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from sealflow import strictjson
from sealflow.audit.entry import MAX_ENTRY, Entry, leaf_hash
from sealflow.audit.inbox import BATCH, Inbox, Refusal, SquattedError, Waiting, checked, forked, unavailable
from sealflow.audit.sequencing import Tip, admit
from sealflow.errors import EvidenceError, UnavailableError
from sealflow.storage import Storages
from sealflow.storage.base import Entry as Listed

#: Largest object of entries in bytes.
MAX_OBJECT: Final = 4 << 20
#: Most bytes of entries that get their index together.
MAX_BATCH: Final = 32 << 20
#: Most entries that do.
MAX_BLOCK: Final = 4096

_MAX_SEQ = 4 << 20
_KEPT_BLOCKS = 32
_KEPT_TIPS = 50_000
_PARALLEL = 16
_PAGE = 1000
_TOP = 10**18 - 1

_NAME = re.compile(r"([0-9a-f]{64})/([0-9]{18})-([0-9]{4})-([0-9a-f]{64})")
_MARK = re.compile(r"([0-9]{18})-([0-9]{18})-([0-9a-f]{32})")
_PROBE = re.compile(r"(?:[0-9a-f]{64}/)?\.sealflow-probe-[0-9a-f]{16}")
_HASH = re.compile(r"[0-9a-f]{64}")

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class _Named(NamedTuple):
    """What the name of an object of entries says."""

    name: str
    writer: str
    n: int
    entries: int
    sha256: str


class _Run(NamedTuple):
    """Consecutive entries of one chain that have consecutive indices."""

    writer: str
    n: int
    hashes: list[str]


@dataclass(frozen=True)
class _Block:
    """A ``seq`` object.

    Attributes:
        start: Index of its first entry.
        batch: The nonce of whoever made it.
        before: Start of the ``seq`` object before, ``None`` for the first.
        before_sha256: Digest of its bytes.
        before_hash: Leaf hash of the entry with the index ``start - 1``.
        runs: What follows, in order.
        data: Its bytes.
    """

    start: int
    batch: str
    before: int | None
    before_sha256: str
    before_hash: str
    runs: list[_Run]
    data: bytes = field(default=b"", repr=False)

    @cached_property
    def places(self) -> dict[str, tuple[int, _Run]]:
        """For each writer the index of its first entry here, and its run."""
        found = {}
        index = self.start
        for run in self.runs:
            found[run.writer] = (index, run)
            index += len(run.hashes)
        return found

    @cached_property
    def end(self) -> int:
        """The index after the last."""
        return self.start + sum(len(run.hashes) for run in self.runs)

    @property
    def last_hash(self) -> str:
        """Leaf hash of the last entry."""
        return self.runs[-1].hashes[-1]

    @property
    def hashes(self) -> list[str]:
        """Leaf hashes of all entries, in order."""
        return [one for run in self.runs for one in run.hashes]

    def encode(self) -> bytes:
        """Return the object's bytes."""
        before = None
        if self.before is not None:
            before = {"start": self.before, "sha256": self.before_sha256, "hash": self.before_hash}
        return strictjson.dumps(
            {
                "sealflow_audit_seq": 1,
                "start": self.start,
                "batch": self.batch,
                "before": before,
                "entries": [list(run) for run in self.runs],
            }
        )


@dataclass
class _Judged:
    """What became of some objects."""

    taken: list[Entry] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    refused: list[tuple[str, str, bytes | None]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


class ObjectInbox(Inbox):
    """See the module and :class:`~sealflow.audit.inbox.Inbox`.

    Args:
        uri: ``s3://bucket/prefix``.
        storages: Finds the storage.
    """

    def __init__(self, uri: str, storages: Storages) -> None:
        self._storage = storages.s3(uri)
        self.uri = self._storage.canonical(uri)
        self.refusals: list[Refusal] = []
        self._lock = threading.RLock()
        self._tail: _Block | None = None
        self._caching = threading.Lock()
        self._blocks: dict[int, _Block] = {}
        # As of the tail, or later.
        self._tips: dict[str, Tip] = {}
        self._cursor = ""
        self._told: set[str] = set()
        self._left = Waiting()

    def close(self) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`. The client keeps its connections."""

    # --- Writers ---

    def put(self, entries: Sequence[Entry]) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        for some in _objects(checked(entries)):
            data = b"".join(entry.line + b"\n" for entry in some)
            digest = hashlib.sha256(data).hexdigest()
            name = f"inbox/{some[0].writer}/{some[0].n:018d}-{len(some):04d}-{digest}"
            if not self._create(name, data):
                raise SquattedError(some[0].writer, some[0].n, self.uri)

    def _create(self, name: str, data: bytes) -> bool:
        """Create an object; ``False`` where other bytes lie there. An answer that is lost is looked up."""
        uri = f"{self.uri}/{name}"
        for _ in range(5):
            try:
                if self._storage.replace(uri, data, None):
                    return True
            except UnavailableError:
                if self._get(name, len(data)) == data:
                    return True
                raise
            try:
                found = self._storage.get(uri, len(data))
            except EvidenceError:  # it is longer
                return False
            if found is not None:
                return found == data
            # An integrator has removed it in between, which says that it was there. But not, whether it was this.
        raise unavailable(self.uri, "an object comes and goes")

    def _get(self, name: str, limit: int) -> bytes | None:
        return self._storage.get(f"{self.uri}/{name}", limit)

    # --- Integrators: giving indices ---

    def sequence(self, limit: int) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._lock:
            self._left = Waiting()
            for names in self._waiting(min(limit, MAX_BLOCK)):
                while True:
                    tail = self._advance()
                    judged = self._judge(names)
                    if not judged.taken:
                        self._discard(judged)
                        self._leave(names, judged)
                        break
                    if self._fix(tail, judged):
                        self._discard(judged)
                        return len(judged.taken)
                    # Another one was faster. What is left is judged anew.
        return 0

    def waiting(self) -> Waiting:
        """See :class:`~sealflow.audit.inbox.Inbox`. A listing says of none when it came."""
        return self._left

    def _leave(self, names: Sequence[_Named], judged: _Judged) -> None:
        """Count what can only wait. Each run asks for it again: a name in 1,000 of a listing, and its chain's end."""
        done = {*judged.done, *judged.gone, *(name for name, *_ in judged.refused)}
        for named in names:
            if named.name not in done:
                oldest = self._left.oldest or f"{named.writer}/{named.n}"
                self._left = Waiting(self._left.entries + named.entries, oldest)

    def _waiting(self, limit: int) -> Iterator[list[_Named]]:
        """Yield what lies in the inbox, some at a time, from where the last call stopped and once around."""
        first = self._cursor
        some: list[_Named] = []
        entries = size = 0
        for begin, end in ((first, None), ("", first)) if first else (("", None),):
            after = begin
            while True:
                page = self._storage.page(f"{self.uri}/inbox", after, _PAGE)
                for item in page:
                    if end is not None and item.name > end:
                        break
                    named = self._named(item)
                    if named is None:
                        continue
                    if some and (entries + named.entries > limit or size + (item.size or 0) > MAX_BATCH):
                        self._cursor = some[-1].name
                        yield some
                        some, entries, size = [], 0, 0
                    some.append(named)
                    entries += named.entries
                    size += item.size or 0
                if len(page) < _PAGE or (end is not None and page[-1].name > end):
                    break
                after = page[-1].name
        self._cursor = ""
        if some:
            yield some

    def _named(self, item: Listed) -> _Named | None:
        match = _NAME.fullmatch(item.name)
        if match and 0 < int(match[3]) <= BATCH and item.size is not None and item.size <= MAX_OBJECT:
            return _Named(item.name, match[1], int(match[2]), int(match[3]), match[4])
        if _PROBE.fullmatch(item.name) and item.size == 0:
            return None  # of a writer that asks what the store can do, or died of it
        # It stays where it is: nobody knows what it is, or how large.
        self._report(item.name, "AUDIT_MALFORMED")
        return None

    def _report(self, name: str, code: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self.refusals.append(Refusal(name, code))

    def _judge(self, names: Sequence[_Named]) -> _Judged:
        if len(self._tips) > _KEPT_TIPS:
            self._tips.clear()
        chains: dict[str, list[_Named]] = {}
        for named in names:
            chains.setdefault(named.writer, []).append(named)
        tips = dict(zip(chains, _all(self._tip, chains), strict=True))
        wanted = [named for writer, some in chains.items() for named in _within_reach(tips[writer], some)]
        judged = _Judged()
        bodies: dict[str, list[tuple[_Named, list[bytes], bytes]]] = {}
        for named, data in zip(wanted, _all(self._body, wanted), strict=True):
            if data is None:
                judged.gone.append(named.name)  # another integrator was faster
                continue
            lines = data.split(b"\n")
            if hashlib.sha256(data).hexdigest() != named.sha256 or lines.pop() or len(lines) != named.entries:
                judged.refused.append((named.name, "AUDIT_MALFORMED", data))
                continue
            bodies.setdefault(named.writer, []).append((named, lines, data))
        # Nearly always a chain's objects follow one another, and all are sound.
        plain = {}
        for writer, some in bodies.items():
            slots = [(named.n + i, line) for named, lines, _ in some for i, line in enumerate(lines)]
            if [n for n, _ in slots] == list(range(tips[writer].next, tips[writer].next + len(slots))):
                plain[writer] = (tips[writer], slots)
        for writer, admitted in admit(plain).items():
            if not admitted.refused:
                judged.taken += admitted.taken
                judged.done += [named.name for named, _, _ in bodies.pop(writer)]
        for writer, some in bodies.items():
            self._judge_one_by_one(writer, tips[writer], some, judged)
        return judged

    def _judge_one_by_one(
        self, writer: str, tip: Tip, some: list[tuple[_Named, list[bytes], bytes]], judged: _Judged
    ) -> None:
        mine: dict[int, str] = {}
        left = some
        while left:
            waiting = []
            for named, lines, data in left:
                slots = [(named.n + i, line) for i, line in enumerate(lines)]
                old = [(n, line) for n, line in slots if n < tip.next]
                given = self._hashes(writer, old[0][0], tip.next) | mine if old else {}
                if any(leaf_hash(line) != given.get(n) for n, line in old):
                    judged.refused.append((named.name, "AUDIT_SQUATTED", data))
                    continue
                fresh = slots[len(old) :]
                if fresh and fresh[0][0] > tip.next:
                    waiting.append((named, lines, data))
                    continue
                admitted = admit({writer: (tip, fresh)})[writer]
                if admitted.taken:
                    judged.taken += admitted.taken
                    mine.update((entry.n, entry.hash) for entry in admitted.taken)
                    tip = Tip(admitted.taken[-1].n + 1, admitted.taken[-1].hash)
                if admitted.refused:
                    judged.refused.append((named.name, admitted.refused[0][1], data))
                else:
                    judged.done.append(named.name)
            if len(waiting) == len(left):
                return
            left = waiting

    def _body(self, named: _Named) -> bytes | None:
        try:
            return self._get(f"inbox/{named.name}", MAX_OBJECT)
        except EvidenceError:  # it grew after it was listed, and is no entry any more
            return b""

    def _fix(self, tail: _Block | None, judged: _Judged) -> bool:
        """Give indices to what was taken; ``False``: another one gave the same indices to something."""
        start = tail.end if tail is not None else 0
        runs: list[_Run] = []
        for entry in judged.taken:
            if runs and runs[-1].writer == entry.writer:
                runs[-1].hashes.append(entry.hash)
            else:
                runs.append(_Run(entry.writer, entry.n, [entry.hash]))
        block = _Block(
            start,
            secrets.token_hex(16),
            tail.start if tail is not None else None,
            hashlib.sha256(tail.data).hexdigest() if tail is not None else "",
            tail.last_hash if tail is not None else "",
            runs,
        )
        data = block.encode()
        lines = b"".join(entry.line + b"\n" for entry in judged.taken)
        batch = f"batch/{start:018d}-{block.batch}"
        marks = [f"chains/{run.writer}/{_TOP - run.n:018d}-{start:018d}-{block.batch}" for run in runs]
        for made in _all(lambda item: self._create(*item), [(batch, lines), *((mark, b"") for mark in marks)]):
            if not made:
                raise unavailable(self.uri, "a name that was made up by chance is taken")
        # Where the outcome stays unknown, what it refers to has to stay, too.
        if not self._create(f"seq/{start:018d}", data):
            for name in (batch, *marks):
                self._storage.remove(f"{self.uri}/{name}")
            return False
        self._advance()
        return True

    def _discard(self, judged: _Judged) -> None:
        """Remove what has an index, and put aside what will never have one."""
        for name, code, data in judged.refused:
            self._report(name, code)
            if data is not None and not self._create(f"refused/{name}", data):
                self._create(f"refused/{name}-{hashlib.sha256(data).hexdigest()}", data)
        names = judged.done + [name for name, *_ in judged.refused]
        for _ in _all(lambda name: self._storage.remove(f"{self.uri}/inbox/{name}"), names):
            pass

    # --- The order ---

    def _block(self, start: int) -> _Block | None:
        with self._caching:
            if start in self._blocks:
                return self._blocks[start]
        data = self._get(f"seq/{start:018d}", _MAX_SEQ)
        if data is None:
            return None
        block = _parse_block(data, start)
        with self._caching:
            while len(self._blocks) >= _KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[start] = block
        return block

    def _advance(self) -> _Block | None:
        """Return the latest ``seq`` object."""
        began = self._tail
        if self._tail is None:
            # What was looked up before there was a tail is not brought up to date below.
            self._tips.clear()
            hint = self._get("last", 32) or b""
            # Whatever the hint says, the way from there on leads to the end.
            self._tail = (self._block(int(hint)) if re.fullmatch(rb"\d{1,18}", hint) else None) or self._block(0)
        while self._tail is not None and (block := self._block(self._tail.end)) is not None:
            if (block.before, block.before_sha256) != (self._tail.start, hashlib.sha256(self._tail.data).hexdigest()):
                raise forked(self.uri, f"seq/{block.start:018d} does not continue the one before")
            for run in block.runs:
                if run.writer in self._tips:
                    self._keep_tip(run.writer, Tip(run.n + len(run.hashes), run.hashes[-1]))
            self._tail = block
        if self._tail is not None and self._tail is not began:
            self._hint(self._tail.start)
        return self._tail

    def _hint(self, start: int) -> None:
        # Without it the way is longer next time. Who may only read cannot shorten it.
        with suppress(UnavailableError):
            self._storage.put(f"{self.uri}/last", b"%d" % start, overwrite=True)

    def _tip(self, writer: str) -> Tip:
        """Return where a chain goes on."""
        tip = self._tips.get(writer)
        if tip is None:
            tip = Tip()
            for block in self._blocks_of(writer, _TOP):
                run = block.places[writer][1]
                tip = Tip(run.n + len(run.hashes), run.hashes[-1])
                break
            self._keep_tip(writer, tip)
        return tip

    def _keep_tip(self, writer: str, tip: Tip) -> None:
        old = self._tips.get(writer)
        if old is None or old.next <= tip.next:
            self._tips[writer] = tip

    def _blocks_of(self, writer: str, n: int) -> Iterator[_Block]:
        """Yield the ``seq`` objects that hold entries of a chain up to number ``n``, the latest first."""
        after = f"{_TOP - n:018d}" if n < _TOP else ""
        while True:
            page = self._storage.page(f"{self.uri}/chains/{writer}", after, 20)
            for item in page:
                match = _MARK.fullmatch(item.name)
                if match is None:
                    continue
                block = self._block(int(match[2]))
                # Without it, or with another nonce, it is the mark of somebody who came second, or died before.
                if block is not None and block.batch == match[3] and writer in block.places:
                    yield block
            if len(page) < 20:
                return
            after = page[-1].name

    def _hashes(self, writer: str, first: int, end: int) -> dict[int, str]:
        """Return the leaf hashes of a chain's entries that have an index, by number."""
        found: dict[int, str] = {}
        for block in self._blocks_of(writer, end):
            run = block.places[writer][1]
            found.update(zip(range(run.n, run.n + len(run.hashes)), run.hashes, strict=True))
            if run.n <= first:
                break
        return found

    def index_of(self, writer: str, n: int) -> int | None:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        for block in self._blocks_of(writer, n):
            index, run = block.places[writer]
            return index + n - run.n if n < run.n + len(run.hashes) else None
        return None

    # --- Integrators: reading ---

    def size(self) -> int:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._lock:
            tail = self._advance()
        return tail.end if tail is not None else 0

    def sequenced(self, start: int, count: int) -> list[bytes]:
        """See :class:`~sealflow.audit.inbox.Inbox`. Whole ``seq`` objects, and at least one where there is one."""
        lines: list[bytes] = []
        with self._lock:
            while len(lines) < count and (block := self._block(start + len(lines))) is not None:
                lines += self._lines(block)
            # The tail that this looks for can be newer than the answer above.
            if not lines and start != self.size() and self._block(start) is None:
                raise forked(self.uri, f"no seq object begins at {start}")
        return lines

    def _lines(self, block: _Block) -> list[bytes]:
        limit = MAX_BATCH + MAX_OBJECT + MAX_BLOCK * (MAX_ENTRY + 1)
        data = self._get(f"batch/{block.start:018d}-{block.batch}", limit)
        lines = (data or b"").split(b"\n")[:-1]
        if [leaf_hash(line) for line in lines] != block.hashes:
            what = "altered" if data is not None else "gone"
            raise forked(self.uri, f"the entries with an index from {block.start} on are {what}")
        return lines

    def last_hash(self, size: int) -> str:
        """See :class:`~sealflow.audit.inbox.Inbox`."""
        with self._lock:
            after = self._block(size)
            if after is None:
                tail = self._advance()
                if tail is not None and tail.end == size:
                    return tail.last_hash
                # The tail can be newer than the answer above.
                after = self._block(size)
        if after is None:
            raise forked(self.uri, f"the log has {size} entries, where no seq object ends")
        return after.before_hash

    def published(self, start: int, size: int) -> None:
        """See :class:`~sealflow.audit.inbox.Inbox`. Removes the lines, also those of integrators that died."""
        end = f"{size:018d}"
        while True:
            page = self._storage.page(f"{self.uri}/batch", "", _PAGE)
            names = [item.name for item in page if item.name < end]
            for _ in _all(lambda name: self._storage.remove(f"{self.uri}/batch/{name}"), names):
                pass
            if len(names) < _PAGE:
                return


def _objects(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yield entries as they are put together: consecutive ones of one chain."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        follows = some and (entry.writer, entry.n) == (some[-1].writer, some[-1].n + 1)
        if some and (not follows or len(some) == BATCH or size + len(entry.line) >= MAX_OBJECT):
            yield some
            some, size = [], 0
        some.append(entry)
        size += len(entry.line) + 1
    if some:
        yield some


def _within_reach(tip: Tip, some: list[_Named]) -> list[_Named]:
    """Return the objects that could be taken, were their names true; the others wait."""
    reach = tip.next
    found = []
    for named in sorted(some, key=lambda one: one.n):
        if named.n > reach:
            break
        found.append(named)
        reach = max(reach, named.n + named.entries)
    return found


def _parse_block(data: bytes, start: int) -> _Block:
    """Read a ``seq`` object.

    Raises:
        EvidenceError: ``LOG_FORKED``: only integrators write there, and they write something else.
    """
    try:
        body: Any = strictjson.loads(data, limit=_MAX_SEQ, what="A seq object of the inbox")
        before = body["before"]
        runs = [_Run(writer, n, hashes) for writer, n, hashes in body["entries"]]
        fits = body["sealflow_audit_seq"] == 1 and body["start"] == start and runs
        for run in runs:
            fits = fits and _HASH.fullmatch(run.writer) and type(run.n) is int and run.n >= 0 and run.hashes
            fits = fits and all(map(_HASH.fullmatch, run.hashes))
        if not fits or len({run.writer for run in runs}) != len(runs):
            raise ValueError
        place = before or {"start": None, "sha256": "", "hash": ""}
        return _Block(start, str(body["batch"]), place["start"], place["sha256"], place["hash"], runs, data)
    except (EvidenceError, ValueError, TypeError, KeyError):
        raise EvidenceError(
            f"seq/{start:018d} of an audit inbox is nothing that an integrator writes.", code="LOG_FORKED"
        ) from None


def _all(work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """Do something with many, several at a time, since each waits for the network."""
    items = list(items)
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(_PARALLEL, len(items)), thread_name_prefix="sealflow-inbox") as pool:
        return list(pool.map(work, items))
