"""What somebody who can write where the log lies, or who holds its key, can try: each attempt is refused by name."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.actions.audit_review import review_accesses
from sealflow.actions.audit_verify import verify_audit_log
from sealflow.audit import tiles
from sealflow.audit.checkpoint import Checkpoint, sign_checkpoint
from sealflow.audit.entry import Chain
from sealflow.findings import Finding
from sealflow.verification.audit_log import Demands, LogReport, scan, verify_log
from tests.core.audit.logs import MadeLog, chain_lines, event


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def interleaved(*chains: list[bytes]) -> list[bytes]:
    return [line for row in zip(*chains, strict=True) for line in row]


LINES = interleaved(*[chain_lines(150, first=1000 * number) for number in range(4)])


def verify(log: MadeLog, **more: object) -> LogReport:
    return verify_audit_log(log.store.uri, str(log.key), strict=False, **more)  # type: ignore[arg-type]


def refusals(report: LogReport) -> list[Finding]:
    return [finding for finding in report.verdict.findings if finding.severity == "refusal"]


def codes(report: LogReport) -> set[str]:
    assert report.verdict.status in ("passed", "failed")
    return {finding.code for finding in refusals(report)}


def made(tmp_path: Path, lines: list[bytes], **more: str) -> MadeLog:
    log = MadeLog(tmp_path, **more)
    log.add(lines)
    return log


def test_the_control_passes(tmp_path: Path) -> None:
    log = made(tmp_path, LINES)
    report = verify(log)
    assert report.verdict.passed, report.verdict.summary()
    assert (report.size, report.writers, report.open) == (600, 4, 0)
    log.add(chain_lines(700, first=9000))
    assert verify(log).verdict.passed


# --- Entries: whoever feeds the log, and its key's holder, who signs whatever the tree then is ---


def edited(line: bytes) -> bytes:
    return line.replace(b'"action":"verify"', b'"action":"forged"', 1)


def resigned(line: bytes) -> bytes:
    """The slot of somebody else, filled under another key."""
    signed = edited(line).rpartition(b" ")[0]
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return signed + b" " + base64.b64encode(Ed25519PrivateKey.generate().sign(signed))


def unsigned(line: bytes) -> bytes:
    return line[:-88] + base64.b64encode(bytes(64))


def without_end() -> list[bytes]:
    return [line for line in LINES if b'"phase":"end"' not in line]


def false_count() -> list[bytes]:
    chain = Chain()
    return [chain.add(event(0)).line, chain.add(event(1, phase="end", action="end", count=3)).line]


def after_end() -> list[bytes]:
    chain = Chain()
    return [
        chain.add(event(0)).line,
        chain.add(event(1, phase="end", action="end", count=2)).line,
        chain.add(event(2)).line,
    ]


def hidden_end() -> list[bytes]:
    """The words of an end, in an event that is none."""
    chain = Chain()
    return [chain.add(event(0)).line, chain.add(event(1, action="end", claims={"phase": "end"})).line]


ENTRIES: dict[str, tuple[Callable[[], list[bytes]], set[str]]] = {
    "edited": (lambda: [*LINES[:300], edited(LINES[300]), *LINES[301:]], {"AUDIT_CHAIN"}),
    "the last one of a chain edited": (
        lambda: [*LINES[:-1], LINES[-1].replace(b'"id":"0', b'"id":"1')],
        {"AUDIT_SIGNATURE"},
    ),
    "the last one of a chain signed by another": (lambda: [*LINES[:-1], unsigned(LINES[-1])], {"AUDIT_SIGNATURE"}),
    "removed": (lambda: LINES[:300] + LINES[301:], {"AUDIT_CHAIN"}),
    "the first one of a chain removed": (lambda: LINES[1:], {"AUDIT_CHAIN"}),
    "the end removed": (without_end, {"AUDIT_GAP"}),
    "inserted": (lambda: [*LINES[:304], resigned(LINES[304]), *LINES[304:]], {"AUDIT_CHAIN", "AUDIT_DUPLICATE"}),
    "inserted in another's slot to come": (lambda: [*LINES[:304], resigned(LINES[308]), *LINES[304:]],
                                           {"AUDIT_SIGNATURE"}),
    "reordered": (
        lambda: [*LINES[:300], LINES[304], *LINES[301:304], LINES[300], *LINES[305:]],
        {"AUDIT_CHAIN", "AUDIT_DUPLICATE"},
    ),
    "twice": (lambda: [*LINES[:304], LINES[300], *LINES[304:]], {"AUDIT_DUPLICATE"}),
    "a whole chain twice": (lambda: [*LINES, *LINES[::4]], {"AUDIT_DUPLICATE"}),
    "the end counts another number": (false_count, {"AUDIT_GAP"}),
    "goes on after its end": (after_end, {"AUDIT_CHAIN"}),
    "the words of an end": (hidden_end, {"AUDIT_GAP"}),
    "no entry": (lambda: [*LINES[:300], b"anything", *LINES[300:]], {"AUDIT_MALFORMED"}),
    "an entry with a line end": (
        lambda: [*LINES[:300], LINES[300].replace(b'"action":', b'"action"\n:'), *LINES[301:]],
        {"AUDIT_MALFORMED", "AUDIT_CHAIN"},
    ),
    "a number with a zero in front": (
        lambda: [LINES[0], *LINES[1:4], LINES[4].replace(b" 1 ", b" 01 ", 1), *LINES[5:]],
        {"AUDIT_MALFORMED", "AUDIT_CHAIN"},
    ),
    "a signature of foreign characters": (
        lambda: [*LINES[:300], LINES[300][:-3] + b"!==", *LINES[301:]],
        {"AUDIT_MALFORMED", "AUDIT_CHAIN"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), ENTRIES.values(), ids=ENTRIES)
def test_entries(tmp_path: Path, lines: Callable[[], list[bytes]], expected: set[str]) -> None:
    report = verify(made(tmp_path, lines()))
    assert codes(report) == expected, report.verdict.summary()


@pytest.mark.parametrize(("lines", "expected"), ENTRIES.values(), ids=ENTRIES)
def test_entries_in_two_segments(tmp_path: Path, lines: Callable[[], list[bytes]], expected: set[str]) -> None:
    from sealflow.verification.audit_log import Demands, bundles, verify_log

    log = made(tmp_path, lines())
    get = log.store.get

    def halves(size: int) -> list[object]:
        return [scan(get, size, number, number + 1, ahead=2) for number in range(bundles(size))]

    report = verify_log(get, log.store.uri, Demands(log.key), halves)  # type: ignore[arg-type]
    assert not report.verdict.passed
    assert codes(report) & expected, report.verdict.summary()
    assert codes(report) <= expected | {"AUDIT_CHAIN", "AUDIT_DUPLICATE"}


def test_an_open_chain_may_be_at_work(tmp_path: Path) -> None:
    import datetime

    chain = Chain()
    now = datetime.datetime.now(datetime.timezone.utc)
    log = made(tmp_path, [chain.add(event(0, time=now.isoformat(timespec="microseconds"))).line])
    report = verify(log)
    assert report.verdict.passed
    assert report.open == 1
    assert codes(verify(log, grace=datetime.timedelta(0))) == {"AUDIT_GAP"}
    looked_into = verify(log, grace=datetime.timedelta(0), accept_gaps=[chain.writer])
    assert looked_into.verdict.passed
    assert [finding.severity for finding in looked_into.verdict.findings] == ["note"]
    later = now + datetime.timedelta(days=3)
    dated = made(tmp_path, [Chain().add(event(0, time=later.isoformat())).line], uri=str(tmp_path / "dated"), key="d")
    assert codes(verify(dated)) == {"AUDIT_GAP"}
    # Its last signature counts all the same.
    forged = made(tmp_path / "state", [unsigned(chain.add(event(1, time=now.isoformat())).line)], key="k")
    assert "AUDIT_SIGNATURE" in codes(verify(forged))


def test_an_end_that_counts_wrongly_spoils_no_log_for_good(tmp_path: Path) -> None:
    """Whoever may write to an inbox can put one there."""
    lines = false_count()
    log = made(tmp_path, lines)
    assert codes(verify(log)) == {"AUDIT_GAP"}
    writer = lines[0].split(b" ")[1].decode()
    looked_into = verify(log, accept_gaps=[writer])
    assert looked_into.verdict.passed
    assert [finding.severity for finding in looked_into.verdict.findings] == ["note"]
    assert codes(verify(log, accept_gaps=["0" * 64])) == {"AUDIT_GAP"}


# --- The store: whoever can write there, and does not hold the key ---


def flip(name: str, at: int) -> Callable[[MadeLog], None]:
    def change(log: MadeLog) -> None:
        path = log.path(name)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return change


def remove(name: str) -> Callable[[MadeLog], None]:
    return lambda log: log.path(name).unlink()


def swap_objects(first: str, second: str) -> Callable[[MadeLog], None]:
    def change(log: MadeLog) -> None:
        one, two = log.path(first), log.path(second)
        data = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(data)

    return change


def consistent_rewrite(log: MadeLog) -> None:
    """Bundle and tile both changed, to fit each other."""
    lines = [*LINES[:300], edited(LINES[300]), *LINES[301:512]]
    from sealflow.audit import merkle

    log.path("tile/entries/001").write_bytes(tiles.pack_bundle(lines[256:512]))
    log.path("tile/0/001").write_bytes(b"".join(merkle.leaf_hash(line) for line in lines[256:512]))


def lengthened(name: str) -> Callable[[MadeLog], None]:
    return lambda log: log.path(name).write_bytes(log.path(name).read_bytes() + b"\0")


def another_size(log: MadeLog) -> None:
    path = log.path()
    path.write_bytes(path.read_bytes().replace(b"\n600\n", b"\n500\n"))


STORE: dict[str, tuple[Callable[[MadeLog], None], str]] = {
    "a bit of a bundle": (flip("tile/entries/001", 5000), "LOG_ALTERED"),
    "a bit of a length in a bundle": (flip("tile/entries/001", 1), "LOG_ALTERED"),
    "a bit of the last bundle": (flip("tile/entries/002.p/88", 500), "LOG_ALTERED"),
    "a bit of a tile": (flip("tile/0/000", 100), "LOG_ALTERED"),
    "a bit of the last tile": (flip("tile/0/002.p/88", 100), "LOG_ALTERED"),
    "a bit of a tile above": (flip("tile/1/000.p/2", 40), "LOG_ALTERED"),
    "a bit of the checkpoint's root": (flip("checkpoint", 30), "LOG_CHECKPOINT"),
    "a bit of the checkpoint's signature": (flip("checkpoint", -10), "LOG_CHECKPOINT"),
    "the checkpoint's size": (another_size, "LOG_CHECKPOINT"),
    "bundles in each other's place": (swap_objects("tile/entries/000", "tile/entries/001"), "LOG_ALTERED"),
    "bundle and tile to fit": (consistent_rewrite, "LOG_ALTERED"),
    "a longer bundle": (lengthened("tile/entries/000"), "LOG_ALTERED"),
    "a longer tile": (lengthened("tile/0/000"), "LOG_ALTERED"),
    "no bundle": (remove("tile/entries/001"), "LOG_TRUNCATED"),
    "no tile": (remove("tile/0/001"), "LOG_TRUNCATED"),
    "no tile above": (remove("tile/1/000.p/2"), "LOG_TRUNCATED"),
    "no end": (remove("tile/entries/002.p/88"), "LOG_TRUNCATED"),
    "no checkpoint": (remove("checkpoint"), "LOG_MISSING"),
}


@pytest.mark.parametrize(("change", "expected"), STORE.values(), ids=STORE)
def test_the_store(tmp_path: Path, change: Callable[[MadeLog], None], expected: str) -> None:
    log = made(tmp_path, LINES)
    change(log)
    assert expected in codes(verify(log)), verify(log).verdict.summary()
    # A refused log is never what later ones are held against.
    assert not list((tmp_path / "state").rglob("*.checkpoint"))


def test_the_finding_names_the_object(tmp_path: Path) -> None:
    log = made(tmp_path, LINES)
    flip("tile/0/000", 100)(log)
    assert [finding.subject for finding in refusals(verify(log))] == ["tile/0/000"]
    flip("tile/0/000", 100)(log)
    flip("tile/entries/000", 200)(log)
    assert "tile/entries/000" in {finding.subject for finding in refusals(verify(log))}


# --- The key's holder: another history ---


def test_forked_after_it_was_seen(tmp_path: Path) -> None:
    log = made(tmp_path, LINES)
    assert verify(log).verdict.passed
    for size, name in ((len(LINES), "same size"), (len(LINES) + 100, "longer")):
        other = made(tmp_path, [*chain_lines(100, first=77), *LINES][:size], uri=str(tmp_path / name))
        assert "LOG_FORKED" in codes(verify(other)), name
    # The honest one still passes: what was seen was not replaced.
    assert verify(log).verdict.passed


def test_rolled_back_after_it_was_seen(tmp_path: Path) -> None:
    log = MadeLog(tmp_path)
    first = log.add(LINES)
    log.add(chain_lines(10))
    assert verify(log).verdict.passed
    log.path().write_bytes(first)
    assert codes(verify(log)) == {"LOG_ROLLED_BACK"}
    log.path().unlink()
    assert codes(verify(log)) == {"LOG_ROLLED_BACK"}


@pytest.mark.parametrize("old", [1, 255, 256, 257, 512, 599, 600])
def test_a_checkpoint_kept_elsewhere(tmp_path: Path, old: int) -> None:
    log = MadeLog(tmp_path)
    kept = log.add(LINES[:old])
    if old < 600:
        log.add(LINES[old:])
    (tmp_path / "kept").write_bytes(kept)
    assert verify(log, checkpoints=[str(tmp_path / "kept")]).verdict.passed
    fork = MadeLog(tmp_path, uri=str(tmp_path / "fork"))
    forged = fork.add([edited(LINES[0]), *LINES[1:old]])
    (tmp_path / "kept").write_bytes(forged)
    assert codes(verify(log, checkpoints=[str(tmp_path / "kept")])) == {"LOG_FORKED"}


def test_the_key_swapped(tmp_path: Path) -> None:
    log = made(tmp_path, LINES)
    other = made(tmp_path, LINES, uri=str(tmp_path / "other"), key="other")
    report = verify_audit_log(other.store.uri, str(log.key), strict=False)
    assert codes(report) == {"LOG_CHECKPOINT"}
    # The same key under another log's name speaks for another log.
    named = made(tmp_path, LINES, uri=str(tmp_path / "named"), origin="log.example/other")
    assert codes(verify_audit_log(named.store.uri, str(log.key), strict=False)) == {"LOG_CHECKPOINT"}


def test_a_flood_of_findings_is_counted(tmp_path: Path) -> None:
    log = made(tmp_path, [b"no entry %d" % number for number in range(3000)])
    report = verify(log)
    assert codes(report) == {"AUDIT_MALFORMED"}
    assert len(report.verdict.findings) == 1000
    assert (report.counts, report.more) == ({"AUDIT_MALFORMED": 3000}, {"AUDIT_MALFORMED": 2000})
    assert report.as_dict()["finding_counts"] == {"AUDIT_MALFORMED": 3000}
    assert report.as_dict()["verdict"]["findings_omitted"] == 2900


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1])
def test_a_checkpoint_that_speaks_of_more_than_there_is(tmp_path: Path, size: int) -> None:
    log = made(tmp_path, LINES)
    assert verify(log).verdict.passed
    log.path().write_bytes(sign_checkpoint(Checkpoint(log.key.name, size, bytes(32)), log.signer))
    for scan_all in (None, lambda size: [scan(log.store.get, size, 0, 5000), scan(log.store.get, size, 5000, 1 << 50)]):
        report = verify_log(log.store.get, log.store.uri, Demands(log.key), scan_all)
        assert "LOG_TRUNCATED" in codes(report)
        assert report.size == size
    assert "LOG_TRUNCATED" in codes(verify(log))
    # It is nothing that the honest log is held against.
    log.path().write_bytes(log.checkpoint or b"")
    assert verify(log).verdict.passed


def flooded() -> list[bytes]:
    return [b"no entry %d" % number for number in range(2000)]


def test_a_flood_hides_no_fork(tmp_path: Path) -> None:
    log = made(tmp_path, LINES)
    assert verify(log).verdict.passed
    fork = made(tmp_path, [*flooded(), *LINES], uri=str(tmp_path / "fork"))
    report = verify(fork)
    assert codes(report) == {"AUDIT_MALFORMED", "LOG_FORKED"}
    assert report.verdict.findings[0].code == "LOG_FORKED"
    # Nor does it make the fork what later logs are held against.
    assert verify(log).verdict.passed
    assert "LOG_FORKED" in codes(verify(fork))


def test_what_is_no_entry_accuses_no_other(tmp_path: Path) -> None:
    log = made(tmp_path, [*LINES[:100], b"no entry", *LINES[100:]])
    assert [(item.code, item.subject) for item in refusals(verify(log))] == [("AUDIT_MALFORMED", "entry 100")]


def test_a_flood_hides_no_forged_entry_from_a_review(tmp_path: Path) -> None:
    victims = [chain_lines(3), chain_lines(4)]
    forged = [unsigned(lines[-1]) for lines in victims]
    log = made(tmp_path, [*flooded(), *victims[0][:-1], forged[0], *victims[1][:-1], forged[1]])
    assert codes(verify(log)) == {"AUDIT_MALFORMED", "AUDIT_SIGNATURE"}
    reviewed = review_accesses(log.store.uri, key=str(log.key))
    assert "AUDIT_SIGNATURE" in {finding.code for finding in reviewed.verdict.findings}
    assert reviewed.verdict.status == "failed"
