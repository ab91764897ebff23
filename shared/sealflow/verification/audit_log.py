"""Re-computes a whole audit log: entries, tiles, root, the writers' chains, and what others saw of the log before.

Pure: it reads and returns findings. Entries are hashed and checked in segments, which other processes may take over;
:func:`judge` joins them. What is kept in memory is the hash of each 256 entries, the last entry of each chain that is
still open, and some 150 bytes for each that has ended.
"""

from __future__ import annotations

import datetime
import re
from binascii import hexlify
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from sealflow import strictjson
from sealflow.audit import merkle, tiles
from sealflow.audit.checkpoint import NAME, Checkpoint, SignedCheckpoint, open_checkpoint
from sealflow.audit.entry import FORMAT, MAX_ENTRY, NO_PREV, Entry, parse_entry
from sealflow.audit.event import AuditEvent
from sealflow.audit.note import MAX_NOTE, VerifierKey
from sealflow.audit.tiles import WIDTH, Get
from sealflow.errors import EvidenceError
from sealflow.findings import CODES, Finding, Verdict, conclude
from sealflow.verification.vouching import OTHER_RUN, Vouchers, Word

#: How long a chain may be open before its missing end is a gap: longer than any task that is still at work.
GRACE: Final = datetime.timedelta(days=1)

#: Most findings of one code that are kept; the others are counted. Whoever can write to a log could otherwise fill the
#: reviewer's memory. Of each code, because a thousand harmless ones must not hide the one that says that the log was
#: forked.
MAX_KEPT: Final = 1000
# After so many objects that are gone or none, a segment is given up: a checkpoint costs nothing and may speak of 2**62
# entries, and each object that is not there would be asked for.
_MAX_UNREADABLE = 1000

_START = FORMAT + b" "
_AFTER_WRITER = len(_START) + 64
_WRITER = slice(len(_START), _AFTER_WRITER)
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# What follows on it in most events, to the end of the entry: looked for there first.
_AFTER_RUN: Final = len(',"sealflow_audit":1,"time":"2026-01-02T10:00:00.000000+00:00"} ') + 88
# Holds no object but itself.
_RUN: Final = re.compile(rb'"run":\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}')
# In canonical JSON this member comes first.
_END = b'"action":"end",'


@dataclass
class Findings:
    """What was found, bounded.

    Attributes:
        kept: The first thousand of each code.
        counts: How many of each code there were.
        unsound: Writers whose chains do not hold: nobody can vouch for what stands in them.
    """

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unsound: set[str] = field(default_factory=set)

    def against(self, writer: str, code: str, subject: str, message: str, expected: str = "", found: str = "") -> None:
        """Refuse something that stands in a writer's chain."""
        self.unsound.add(writer)
        self.add(code, subject, message, expected, found)

    def add(self, code: str, subject: str, message: str, expected: str = "", found: str = "") -> None:
        """Refuse something."""
        self._keep(Finding(code, "refusal", subject, message, expected, found))

    def _keep(self, finding: Finding) -> None:
        self.counts[finding.code] += 1
        if self.counts[finding.code] <= MAX_KEPT:
            self.kept.append(finding)

    def refuse(self, error: EvidenceError, subject: str) -> None:
        """Refuse what an error says."""
        self.add(error.code if error.code in CODES else "LOG_ALTERED", subject, error.message)

    def join(self, other: Findings) -> None:
        """Add those of a segment."""
        for finding in other.kept:
            self._keep(finding)
        self.unsound |= other.unsound
        self.counts.update(other.counts - Counter(finding.code for finding in other.kept))


@dataclass(slots=True)
class Open:
    """A chain of which more entries may come.

    Attributes:
        n: Number that the next entry has.
        expected: With what it goes on after the writer: the number, the hash of the last entry, the event's beginning.
        line: The last entry.
        index: Of that one in the log.
        run: The member of its first event that says which run it is of; empty where there is none to be read. All
            others must say the same: whoever vouches for a writer vouches for one run.
    """

    n: int
    expected: bytes
    line: bytes
    index: int
    run: bytes


@dataclass
class Segment:
    """What a stretch of the log came to.

    Attributes:
        start: Index of its first entry.
        roots: Root of each bundle as its entries give it, empty where nobody can say; full bundles only.
        tail: Leaf hashes of the partial bundle at the end of the log.
        stated: For each bundle that differs from its tile, the root as the tile gives it.
        heads: For each chain that began before, index and bytes of its first entry here.
        open: Chains that have not ended here.
        closed: Chains that ended here, and their lengths.
        blind: Index of the first entry that could not be read; chains were not followed from there.
        unreadable: Objects that could not be read.
        vouched: For how many of the chains that begin here each identity vouches, by name.
        claimed: How many begin here for whose writer nobody vouches.
        first_claimed: Index of the first one.
        findings: Refusals.
    """

    start: int
    roots: list[bytes] = field(default_factory=list)
    tail: list[bytes] = field(default_factory=list)
    stated: dict[int, bytes] = field(default_factory=dict)
    heads: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    open: dict[bytes, Open] = field(default_factory=dict)
    closed: dict[bytes, int] = field(default_factory=dict)
    blind: int | None = None
    unreadable: int = 0
    vouched: Counter[str] = field(default_factory=Counter)
    claimed: int = 0
    first_claimed: int | None = None
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class Demands:
    """What a log is held against.

    Attributes:
        key: The log's verifier key; its name is the origin.
        known: Checkpoints that were seen before or elsewhere, each with a name for messages.
        witnesses: Keys of witnesses that count.
        quorum: How many of them must have cosigned the checkpoint.
        gaps: Writers whose missing end, or bad vouch, somebody has looked into.
        grace: How long a chain may be open.
        now: The present time.
        vouchers: Who may vouch for writers; ``None``: nobody is named, and all is claimed.
        vouched: Refuse chains for whose writer nobody vouches.
    """

    key: VerifierKey
    known: Sequence[tuple[str, bytes]] = ()
    witnesses: Sequence[VerifierKey] = ()
    quorum: int = 0
    gaps: frozenset[str] = frozenset()
    grace: datetime.timedelta = GRACE
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc))
    vouchers: Vouchers | None = None
    vouched: bool = False


@dataclass(frozen=True)
class LogReport:
    """The outcome.

    Attributes:
        verdict: ``passed`` or ``failed``.
        note: The signed checkpoint, ``None`` where there is none or it is none.
        size: Entries that it speaks of.
        root: Its root in hex.
        writers: Chains, open ones included.
        open: Chains that have no end yet.
        vouched: For how many chains each identity vouches, by name.
        claimed: Chains for whose writer nobody vouches whom the reviewer named.
        witnesses: Name of each demanded witness that cosigned, and when (RFC 3339).
        counts: How many refusals of each code there were; the verdict holds a thousand of each at most.
        unsound: Writers whose chains do not hold, so that nobody vouches for them.
    """

    verdict: Verdict
    note: bytes | None = None
    size: int = 0
    root: str = ""
    writers: int = 0
    open: int = 0
    vouched: dict[str, int] = field(default_factory=dict)
    claimed: int = 0
    witnesses: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    unsound: frozenset[str] = frozenset()

    @property
    def more(self) -> dict[str, int]:
        """Of each code how many refusals there are beyond those of the verdict."""
        return {code: count - MAX_KEPT for code, count in self.counts.items() if count > MAX_KEPT}

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        names = ("size", "root", "writers", "open", "vouched", "claimed", "witnesses")
        body = {name: getattr(self, name) for name in names}
        verdict = self.verdict.as_dict()
        verdict["findings_omitted"] += sum(self.more.values())
        return {"log": body, "finding_counts": dict(sorted(self.counts.items())), "verdict": verdict}


def verify_log(
    get: Get, uri: str, demands: Demands, scan_all: Callable[[int], Iterable[Segment]] | None = None
) -> LogReport:
    """Check a whole log.

    Args:
        get: Reads an object of the log.
        uri: Its location, for messages.
        demands: What it is held against.
        scan_all: Returns the segments of a log of this many entries, in order; by default one, made here.

    Raises:
        UnavailableError: The log cannot be read.
    """
    found = Findings()
    try:
        note = get(NAME, MAX_NOTE)
        if note is None:
            _no_checkpoint(found, uri, demands)
            return _report(found, uri, demands)
        signed = open_checkpoint(note, demands.key, demands.witnesses)
    except EvidenceError as error:
        # An object that is too large for a checkpoint is none.
        found.add("LOG_CHECKPOINT", NAME, error.message)
        return _report(found, uri, demands)
    size = signed.checkpoint.size
    segments = list(scan_all(size) if scan_all else [scan(get, size, 0, bundles(size), vouchers=demands.vouchers)])
    if any(segment.unreadable >= _MAX_UNREADABLE for segment in segments):
        for segment in segments:
            found.join(segment.findings)
        return replace(_report(found, uri, demands), note=note, size=size, root=signed.checkpoint.root.hex())
    return judge(get, uri, demands, signed, segments)


def bundles(size: int) -> int:
    """Return how many bundles a log of this size has."""
    return -(-size // WIDTH)


def scan(get: Get, size: int, first: int, last: int, ahead: int = 0, *, vouchers: Vouchers | None = None) -> Segment:
    """Hash and check the entries of the bundles from ``first`` to before ``last``. Four microseconds an entry.

    Ends early where too much of it cannot be read.

    Args:
        get: Reads an object of the log.
        size: Entries of the log.
        first: Number of a bundle.
        last: Number of a bundle.
        ahead: Objects that are fetched before they are needed, by as many threads; for stores that are far away.
        vouchers: Who may vouch for writers.

    Raises:
        UnavailableError: The log cannot be read.
    """
    segment = Segment(first * WIDTH)
    for number, bundle, tile in _objects(get, size, first, last, ahead):
        if segment.unreadable >= _MAX_UNREADABLE:
            break
        width = min(WIDTH, size - number * WIDTH)
        hashes = _follow(segment, bundle, number * WIDTH, vouchers) if isinstance(bundle, list) else None
        if isinstance(bundle, EvidenceError):
            segment.unreadable += 1
            segment.findings.refuse(bundle, tiles.tile_name(None, number, width))
            if segment.blind is None:
                segment.blind = number * WIDTH
        if isinstance(tile, EvidenceError):
            segment.unreadable += 1
            segment.findings.refuse(tile, tiles.tile_name(0, number, width))
        elif hashes is None:
            hashes = tile
        elif hashes != tile:
            segment.stated[number] = merkle.root(tile)
        if width < WIDTH:
            segment.tail = hashes or []
        else:
            segment.roots.append(merkle.perfect_root(hashes) if hashes else b"")
    return segment


def _objects(
    get: Get, size: int, first: int, last: int, ahead: int
) -> Iterator[tuple[int, list[bytes] | EvidenceError, list[bytes] | EvidenceError]]:
    """Yield each bundle's number, entries and tile, or why there are none."""

    def read(number: int) -> tuple[int, list[bytes] | EvidenceError, list[bytes] | EvidenceError]:
        # Each with a tree of its own: nothing is read twice, so nothing need be kept.
        return number, _or_error(tiles.Tree(get, size).bundle, number), _or_error(_level_0(get, size), number)

    if not ahead:
        yield from map(read, range(first, last))
        return
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(ahead, thread_name_prefix="sealflow-log") as pool:
        try:
            for number in range(first, last):
                waiting.append(pool.submit(read, number))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _level_0(get: Get, size: int) -> Callable[[int], list[bytes]]:
    return lambda number: tiles.Tree(get, size).tile(0, number)


def _or_error(read: Callable[[int], list[bytes]], number: int) -> list[bytes] | EvidenceError:
    try:
        return read(number)
    except EvidenceError as error:
        return error


def _follow(segment: Segment, lines: list[bytes], index: int, vouchers: Vouchers | None) -> list[bytes]:
    """Return the entries' hashes, and take them into their chains."""
    if segment.blind is not None:
        return [merkle.leaf_hash(line) for line in lines]
    hashes = []
    chains = segment.open
    # Nearly every entry is the one that its chain's last one lets expect. What `parse_entry` demands is checked here at
    # a fraction of the time, in part for all of the bundle at once; whatever fails goes the long way.
    plain = not b"".join([line[-88:-2] for line in lines]).translate(None, _BASE64) and b"\n" not in b"".join(lines)
    for line in lines:
        digest = sha256(b"\0" + line).digest()
        hashes.append(digest)
        writer = line[_WRITER]
        chain = chains.get(writer)
        if not (
            plain
            and chain is not None
            and line.startswith(chain.expected, _AFTER_WRITER)
            and line[-90:-88] == b"} "
            and line[-2:] == b"=="
            and line.startswith(_START)
            and len(line) <= MAX_ENTRY
            and (line.endswith(chain.run, 0, -_AFTER_RUN) or chain.run in line)
        ):
            chain = _odd_one(segment, line, index, chain, vouchers)
        if chain is not None:
            chain.n += 1
            chain.line = line
            chain.index = index
            if line.startswith(_END, _AFTER_WRITER + len(chain.expected)) and _ends(
                segment.findings, line, index, chain.n
            ):
                segment.closed[writer] = chain.n
                del chains[writer]
            else:
                chain.expected = b" %d " % chain.n + hexlify(digest) + b" {"
        index += 1
    return hashes


def _odd_one(segment: Segment, line: bytes, index: int, chain: Open | None, vouchers: Vouchers | None) -> Open | None:
    """Take an entry that its chain did not let expect; return the chain that goes on with it."""
    findings = segment.findings
    try:
        entry = parse_entry(line)
    except EvidenceError as error:
        findings.refuse(error, _entry(index))
        return None
    writer = entry.writer.encode()
    if chain is not None and line.startswith(chain.expected, _AFTER_WRITER):
        if chain.run not in line:
            _of_another_run(findings, writer, index)
            chain.run = b""  # once is enough
        return chain  # it was expected; something else in its bundle is odd
    if chain is None and writer in segment.closed:
        _again(findings, entry, index, segment.closed[writer])
        return None
    if chain is None and entry.n and segment.start:
        segment.heads[writer] = (index, line)
    elif chain is None and (entry.n or entry.prev != NO_PREV):
        message = "The chain of its writer does not begin here."
        findings.against(entry.writer, "AUDIT_CHAIN", _entry(index), message, "0", str(entry.n))
    elif chain is not None and not _continues(findings, entry, index, chain):
        return None
    if chain is None and not entry.n and vouchers is not None:
        _judge_vouch(segment, entry, index, vouchers)
    run = chain.run if chain is not None else _run_of(entry)
    made = Open(entry.n, b" %d %b {" % (entry.n, entry.prev.encode()), line, index, run)
    segment.open[writer] = made
    return made


def _run_of(entry: Entry) -> bytes:
    """Return the member of an event that names its run, as it stands there; empty where there is none."""
    # Thousands of chains begin in a log, so nothing is parsed. No text of JSON holds these quotation marks.
    # Only the first place is tried: time must not grow with how many there are.
    match = _RUN.match(entry.event, max(0, entry.event.find(b'"run":{')))
    return match[0] if match is not None else b""


def _of_another_run(findings: Findings, writer: bytes, index: int) -> None:
    # Of this writer alone: whoever may write to the inbox can do so, and integrators cannot know.
    findings.add("AUDIT_VOUCH", f"writer {writer.decode()}", OTHER_RUN, "one run", _entry(index))


def _judge_vouch(segment: Segment, entry: Entry, index: int, vouchers: Vouchers) -> None:
    """Judge who speaks for the writer of a chain that begins."""
    try:
        event = AuditEvent.parse(entry.event)
        word = vouchers.judge(entry.writer, event.run, event.vouch)
    except EvidenceError:
        word = Word()
    if word.by:
        segment.vouched[word.by] += 1
        return
    segment.claimed += 1
    if segment.first_claimed is None:
        segment.first_claimed = index
    if word.code:
        subject = f"writer {entry.writer}"
        segment.findings.add(word.code, subject, word.message, word.expected, f"{word.found}, entry {index}")


def _continues(findings: Findings, entry: Entry, index: int, chain: Open) -> bool:
    """Tell whether a chain goes on with an entry that it did not expect, after having refused it."""
    if not entry.is_signed():
        message = "The entry stands in the chain of a writer who did not sign it."
        findings.against(entry.writer, "AUDIT_SIGNATURE", _entry(index), message)
        return False
    if entry.n < chain.n:
        _again(findings, entry, index, chain.n)
        return False
    message = "The entry does not follow on the one before it in its writer's chain."
    expected = chain.expected.decode().strip(" {")
    findings.against(entry.writer, "AUDIT_CHAIN", _entry(index), message, expected, f"{entry.n} {entry.prev}")
    return True


def _again(findings: Findings, entry: Entry, index: int, count: int) -> None:
    if entry.n < count:
        message = f"Entry {entry.n} of the writer {entry.writer[:16]}… stands in the log once more."
        findings.against(entry.writer, "AUDIT_DUPLICATE", _entry(index), message)
    else:
        message = f"The chain of the writer {entry.writer[:16]}… goes on after its end."
        findings.against(entry.writer, "AUDIT_CHAIN", _entry(index), message, str(count), str(entry.n))


def _ends(findings: Findings, line: bytes, index: int, count: int) -> bool:
    """Tell whether an entry ends its chain; if so, its signature speaks for all of it."""
    entry = parse_entry(line)
    try:
        body = strictjson.loads(entry.event, limit=MAX_ENTRY, what="The event")
    except EvidenceError:
        return False  # nothing that we wrote; the chain stays without its end
    if body.get("phase") != "end":
        return False
    _check_signature(findings, entry, index)
    if type(body.get("count")) is not int or body["count"] != count:
        message = "The end of the chain states another number of entries than the chain has."
        stated = str(body.get("count"))
        # Nothing of the chain was moved: it is the end that cannot be counted on.
        findings.against(entry.writer, "AUDIT_GAP", f"writer {entry.writer}", message, stated, str(count))
    return True


def _check_signature(findings: Findings, entry: Entry, index: int) -> None:
    if not entry.is_signed():
        message = "Its writer did not sign the last entry of the chain, and so nothing of the chain."
        findings.against(entry.writer, "AUDIT_SIGNATURE", _entry(index), message)


def _entry(index: int) -> str:
    return f"entry {index}"


def judge(get: Get, uri: str, demands: Demands, signed: SignedCheckpoint, segments: Sequence[Segment]) -> LogReport:
    """Join the segments of a log, and hold them against its checkpoint and the demands.

    Raises:
        UnavailableError: The log cannot be read.
    """
    found = Findings()
    notes: list[Finding] = []
    for segment in segments:
        found.join(segment.findings)
    tree = _Recomputed(segments)
    _judge_root(found, tree, signed.checkpoint)
    _judge_tiles(found, get, signed.checkpoint.size, tree)
    for name, data in demands.known:
        _judge_known(found, get, tree, signed.checkpoint, name, data, demands.key)
    chains, closed, blind = _join_chains(found, segments)
    if blind is None:
        _judge_open(found, notes, chains, demands)
    _judge_claims(found, notes, segments, demands)
    if len(signed.witnesses) < demands.quorum:
        found.add(
            "LOG_UNWITNESSED",
            NAME,
            "Too few of the demanded witnesses cosigned the checkpoint.",
            str(demands.quorum),
            str(len(signed.witnesses)),
        )
    report = _report(found, uri, demands, notes)
    return LogReport(
        report.verdict,
        signed.note.encode(),
        signed.checkpoint.size,
        signed.checkpoint.root.hex(),
        len(chains) + len(closed),
        len(chains),
        dict(sorted(_vouched(segments).items())),
        sum(segment.claimed for segment in segments) if demands.vouchers is not None else len(chains) + len(closed),
        {name: _time(seconds) for name, seconds in signed.witnesses.items()},
        report.counts,
        frozenset(found.unsound),
    )


def _vouched(segments: Sequence[Segment]) -> Counter[str]:
    return sum((segment.vouched for segment in segments), Counter())


#: What does no harm to the chains of others, so that a log goes on once somebody has looked into it.
_LOOKED_INTO = ("AUDIT_GAP", "AUDIT_VOUCH", "AUDIT_VOUCHER")


def _judge_claims(found: Findings, notes: list[Finding], segments: Sequence[Segment], demands: Demands) -> None:
    """Judge the chains for whose writer nobody vouches, and let go what somebody has looked into."""
    for finding in [item for item in found.kept if item.code in _LOOKED_INTO]:
        if finding.subject.removeprefix("writer ") in demands.gaps:
            found.kept.remove(finding)
            found.counts[finding.code] -= 1
            notes.append(replace(finding, severity="note", message=f"{finding.message} Somebody has looked into it."))
    for code in _LOOKED_INTO:
        if found.counts[code] and not any(item.code == code for item in found.kept):
            # Those that were only counted have not been looked into.
            message = f"There are {found.counts[code]} more, of writers that were not kept."
            found.kept.append(Finding(code, "refusal", "the log's writers", message))
    claimed = sum(segment.claimed for segment in segments)
    if demands.vouchers is None or not claimed:
        return
    first = next(item.first_claimed for item in segments if item.first_claimed is not None)
    message = "Nobody who is named vouches for the writers of some chains: what they say of their runs is a claim."
    expected, said = "a vouch for each writer", f"{claimed} chains without, the first begins at entry {first}"
    if demands.vouched:
        found.add("AUDIT_CLAIMED", "the log's writers", message, expected, said)
    else:
        notes.append(Finding("AUDIT_CLAIMED", "warning", "the log's writers", message, expected, said))


class _Recomputed:
    """The tree as the entries give it."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.roots = [root for segment in segments for root in segment.roots]
        self.tail = segments[-1].tail if segments else []
        self.stated = {number: root for segment in segments for number, root in segment.stated.items()}

    def root(self, roots: Sequence[bytes], tail: Sequence[bytes]) -> bytes | None:
        """Return the root over full bundles and a partial one; ``None`` where something of it is unknown."""
        if not all(roots):
            return None
        # Full bundles are perfect subtrees, and those of the partial one are smaller.
        return merkle.fold([*merkle.perfect_parts(roots), *merkle.perfect_parts(tail)])


def _judge_root(found: Findings, tree: _Recomputed, checkpoint: Checkpoint) -> None:
    root = tree.root(tree.roots, tree.tail)
    whole = root == checkpoint.root
    for number in tree.stated:
        width = min(WIDTH, checkpoint.size - number * WIDTH)
        tile, bundle = tiles.tile_name(0, number, width), tiles.tile_name(None, number, width)
        if whole:
            found.add("LOG_ALTERED", tile, "The tile holds other hashes than those of its entries.")
        else:
            found.add("LOG_ALTERED", bundle, f"The entries of the bundle are not those of the tile {tile}.")
    if root is not None and not whole:
        message = "The entries of the log do not lead to the root that its key signed."
        found.add("LOG_ALTERED", NAME, message, checkpoint.root.hex(), root.hex())


def _judge_tiles(found: Findings, get: Get, size: int, tree: _Recomputed) -> None:
    """Compare the tiles above level 0 with what the entries give."""
    source = tiles.Tree(get, size)
    level, hashes = 1, tree.roots
    while hashes:
        above = []
        for number in range(bundles(len(hashes))):
            some = hashes[number * WIDTH : (number + 1) * WIDTH]
            name = tiles.tile_name(level, number, len(some))
            try:
                stated = source.tile(level, number)
            except EvidenceError as error:
                found.refuse(error, name)
                stated = some
            if any(is_ and is_ != says for is_, says in zip(some, stated, strict=True)):
                found.add("LOG_ALTERED", name, "The tile holds other hashes than those that the entries lead to.")
            if len(some) == WIDTH:
                above.append(merkle.perfect_root(some) if all(some) else b"")
        level, hashes = level + 1, above


def _judge_known(
    found: Findings, get: Get, tree: _Recomputed, checkpoint: Checkpoint, name: str, data: bytes, key: VerifierKey
) -> None:
    """Hold the log against a checkpoint that it gave out before."""
    try:
        known = open_checkpoint(data, key).checkpoint
    except EvidenceError as error:
        found.add("LOG_CHECKPOINT", name, f"What is known of the log is no checkpoint of it: {error.message}")
        return
    if known.size > checkpoint.size:
        message = "The log has shrunk since this checkpoint."
        found.add("LOG_ROLLED_BACK", name, message, f"at least {known.size} entries", str(checkpoint.size))
        return
    number, rest = divmod(known.size, WIDTH)
    tail: Sequence[bytes] = tree.tail
    if rest and number < len(tree.roots):
        lines = _or_error(tiles.Tree(get, checkpoint.size).bundle, number)
        if isinstance(lines, EvidenceError):
            return  # refused already, and the old root cannot be computed
        tail = [merkle.leaf_hash(line) for line in lines]
    root = tree.root(tree.roots[:number], tail[:rest])
    if root is not None and root != known.root:
        message = f"The log's first {known.size} entries are not those of this checkpoint, which the same key signed."
        found.add("LOG_FORKED", name, message, known.root.hex(), root.hex())


def _join_chains(
    found: Findings, segments: Sequence[Segment]
) -> tuple[dict[bytes, Open], dict[bytes, int], int | None]:
    """Join the chains of the segments, as far as all entries could be read."""
    chains: dict[bytes, Open] = {}
    closed: dict[bytes, int] = {}
    for segment in segments:
        for writer, (index, line) in segment.heads.items():
            entry = parse_entry(line)
            chain = chains.get(writer)
            if chain is not None:
                if not line.startswith(chain.expected, _AFTER_WRITER):
                    _continues(found, entry, index, chain)
                elif chain.run not in line:
                    _of_another_run(found, writer, index)
            elif writer in closed:
                _again(found, entry, index, closed[writer])
            else:
                message = "The chain of its writer does not begin here."
                found.against(entry.writer, "AUDIT_CHAIN", _entry(index), message, "0", str(entry.n))
        for part in (segment.open, segment.closed):
            for writer in part:
                if writer not in segment.heads and (writer in chains or writer in closed):
                    message = f"The chain of the writer {writer[:16].decode()}… stands in the log once more."
                    name = writer.decode()
                    found.against(name, "AUDIT_DUPLICATE", f"writer {name}", message)
        for writer in segment.closed:
            chains.pop(writer, None)
        chains.update(segment.open)
        closed.update(segment.closed)
        if segment.blind is not None:
            return chains, closed, segment.blind
    return chains, closed, None


def _judge_open(found: Findings, notes: list[Finding], chains: dict[bytes, Open], demands: Demands) -> None:
    """Judge the chains that have no end."""
    for writer, chain in chains.items():
        entry = parse_entry(chain.line)
        _check_signature(found, entry, chain.index)
        subject = f"writer {writer.decode()}"
        last = f"entry {chain.index}, which is number {chain.n - 1} of the chain"
        if entry.writer in demands.gaps:
            message = "The chain has no end; somebody has looked into it."
            notes.append(Finding("AUDIT_GAP", "note", subject, message, found=last))
        # Nor does a date to come keep a chain open for ever.
        elif abs(demands.now - _last_seen(entry)) > demands.grace:
            message = (
                "The chain has no end: its run was killed, its spool was lost, or its last entries were kept back."
            )
            found.add("AUDIT_GAP", subject, message, "an end that counts the entries", last)


def _last_seen(entry: Entry) -> datetime.datetime:
    """Return when an event says that it happened, the beginning of time where it does not."""
    try:
        body = strictjson.loads(entry.event, limit=MAX_ENTRY, what="The event")
        time = datetime.datetime.fromisoformat(str(body.get("time")))
        return time.astimezone(datetime.timezone.utc)
    except (EvidenceError, ValueError, OverflowError):
        return datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


def _no_checkpoint(found: Findings, uri: str, demands: Demands) -> None:
    if demands.known:
        found.add("LOG_ROLLED_BACK", NAME, "The log has no checkpoint any more.", f"that of {demands.known[0][0]}")
    else:
        found.add("LOG_MISSING", uri, "No checkpoint lies there.")


def _report(found: Findings, uri: str, demands: Demands, notes: Iterable[Finding] = ()) -> LogReport:
    # What is shown is cut off somewhere: the log before its entries, and of each code one before another of any.
    nth: Counter[str] = Counter()
    ranked = []
    for finding in found.kept:
        ranked.append(((nth[finding.code] > 0, not finding.code.startswith("LOG_")), finding))
        nth[finding.code] += 1
    kept = [finding for _, finding in sorted(ranked, key=lambda item: item[0])]
    status, ordered = conclude([*kept, *notes])
    checked_at = demands.now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    counts = {code: count for code, count in found.counts.items() if count}
    return LogReport(Verdict(status, uri, findings=ordered, checked_at=checked_at), counts=counts)


def _time(seconds: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
