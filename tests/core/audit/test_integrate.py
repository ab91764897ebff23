"""From an inbox into a log: order holds, several at once agree, and nothing is signed over an altered log."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealflow.actions.audit_integrate import integrate_audit_log
from sealflow.audit.checkpoint import open_checkpoint
from sealflow.audit.inbox import open_inbox
from sealflow.audit.integrate import Integrated, ask_witnesses, integrate, level_of
from sealflow.audit.log import LogStore, open_log
from sealflow.audit.merkle import EMPTY_ROOT
from sealflow.audit.note import COSIGNATURE, Signature, VerifierKey
from sealflow.audit.tiles import Tree
from sealflow.audit.witness import Witness
from sealflow.errors import EvidenceError, UsageError
from sealflow.keys import load_signer
from sealflow.storage import Storages
from tests.core.audit.chains import chain
from tests.core.audit.logs import ORIGIN, ed25519_signer


class Place:
    """An inbox, a log and its key in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = open_inbox(f"sqlite:{folder}/inbox.db", Storages())
        self.signer = ed25519_signer(folder)
        self.key = VerifierKey.of(self.signer, ORIGIN)
        self.log: LogStore = open_log(str(folder / "log"), Storages())

    def integrate(self, **options) -> Integrated:
        inbox = open_inbox(self.inbox.uri, Storages())
        try:
            return integrate(inbox, self.log, self.signer, ORIGIN, **options)
        finally:
            inbox.close()

    def lines(self) -> list[bytes]:
        """The log's entries as its signed checkpoint has them, each proved by the tree."""
        checkpoint = open_checkpoint(self.checkpoint(), self.key).checkpoint
        return whole(self.log, checkpoint.size, checkpoint.root)

    def checkpoint(self) -> bytes:
        return (self.folder / "log" / "checkpoint").read_bytes()


def whole(log: LogStore, size: int, root: bytes) -> list[bytes]:
    from sealflow.audit.append import append

    tree = Tree(log.get, size)
    lines = [line for number in range(-(-size // 256)) for line in tree.bundle(number)]
    assert append(lambda name, limit: None, 0, lines, root=EMPTY_ROOT).root == root
    return lines


@pytest.fixture
def place(tmp_path: Path):
    made = Place(tmp_path)
    yield made
    made.inbox.close()


def test_what_was_put_is_in_the_log(place: Place) -> None:
    first, second = chain(300), chain(500)
    place.inbox.put(first)
    assert place.integrate().added == 300
    place.inbox.put(second)
    done = place.integrate()
    assert (done.added, done.size) == (500, 800)
    assert place.lines() == [entry.line for entry in first + second]
    before = place.checkpoint()
    assert place.integrate().added == 0
    assert place.checkpoint() == before


def test_an_empty_inbox_gives_an_empty_log(place: Place) -> None:
    assert place.integrate() == Integrated(0, 0, EMPTY_ROOT)
    assert place.lines() == []


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 255, 256, 257, 10_000])
def test_the_log_is_the_same_in_whatever_steps(place: Place, batch: int) -> None:
    entries = chain(600)
    place.inbox.put(entries)
    sizes: list[int] = []
    done = place.integrate(batch=batch, progress=sizes.append)
    assert sizes == [*range(batch, 600, batch), 600]
    assert done.size == 600
    assert place.lines() == [entry.line for entry in entries]


def test_several_at_once_make_one_log(place: Place) -> None:
    chains = [chain(40) for _ in range(30)]
    errors: list[BaseException] = []
    added: list[int] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                added.append(place.integrate(batch=50).added)
            added.append(place.integrate().added)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for entries in chains:
        place.inbox.put(entries)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(added) == 1200
    lines = place.lines()
    assert sorted(lines) == sorted(entry.line for entries in chains for entry in entries)


def test_what_one_left_half_done_another_finishes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = chain(700)
    place.inbox.put(entries)
    place.integrate(batch=100, progress=lambda size: None)
    more = chain(400)
    place.inbox.put(more)

    class DiedError(Exception):
        pass

    def die(*_: object) -> bool:
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(type(place.log), "swap_checkpoint", die)
        with pytest.raises(DiedError):
            place.integrate(batch=300)
    other = chain(10)
    place.inbox.put(other)
    assert place.integrate(batch=170).size == 1110
    assert place.lines() == [entry.line for entry in entries + more + other]


# --- Nothing is signed over what is not ours ---


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda log: flip(log / "tile" / "0" / "001.p" / "44"), "LOG_ALTERED"),
        (lambda log: flip(log / "tile" / "1" / "000.p" / "1"), "LOG_ALTERED"),
        (lambda log: flip(log / "tile" / "entries" / "001.p" / "44"), "LOG_ALTERED"),
        (lambda log: shutil.rmtree(log / "tile" / "1"), "LOG_TRUNCATED"),
        (lambda log: flip(log / "checkpoint", 25), "LOG_CHECKPOINT"),
        (lambda log: (log / "checkpoint").unlink(), "LOG_TRUNCATED"),
        (lambda log: (log / "checkpoint").write_bytes(b"nonsense"), "LOG_CHECKPOINT"),
    ],
    ids=["tile", "upper tile", "bundle", "tile removed", "checkpoint", "checkpoint removed", "no checkpoint"],
)
def test_an_altered_log_is_not_signed(place: Place, damage: Callable[[Path], None], code: str) -> None:
    place.inbox.put(chain(300))
    place.integrate()
    damage(place.folder / "log")
    before = {path: path.read_bytes() for path in (place.folder / "log").rglob("*") if path.is_file()}
    place.inbox.put(chain(5))
    with pytest.raises(EvidenceError) as caught:
        place.integrate()
    assert caught.value.code in (code, "LOG_FORKED")
    after = {path: path.read_bytes() for path in (place.folder / "log").rglob("*") if path.is_file()}
    assert after == before


def test_a_small_log_without_its_checkpoint_is_not_begun_anew(place: Place) -> None:
    place.inbox.put(chain(3))
    place.integrate()
    (place.folder / "log" / "checkpoint").unlink()
    with pytest.raises(EvidenceError) as caught:
        place.integrate()
    assert caught.value.code == "LOG_TRUNCATED"


def test_a_log_of_another_key_or_name_is_not_signed(place: Place) -> None:
    place.inbox.put(chain(3))
    place.integrate()
    for signer, origin in ((ed25519_signer(place.folder, "other"), ORIGIN), (place.signer, "another.example")):
        with pytest.raises(EvidenceError) as caught:
            integrate(place.inbox, place.log, signer, origin)
        assert caught.value.code == "LOG_CHECKPOINT"


def test_a_log_is_fed_from_one_inbox(place: Place) -> None:
    place.inbox.put(chain(3))
    place.integrate()
    for name, entries in (("shorter", 0), ("as long", 3), ("longer", 9)):
        other = open_inbox(f"sqlite:{place.folder}/{name}.db", Storages())
        other.put(chain(entries))
        while other.sequence(100):
            pass
        with pytest.raises(EvidenceError) as caught:
            integrate(other, place.log, place.signer, ORIGIN)
        assert caught.value.code == "LOG_FORKED"
        other.close()
    assert len(place.lines()) == 3


def test_an_inbox_that_was_set_back_is_refused(place: Place) -> None:
    place.inbox.put(chain(3))
    place.integrate()
    shutil.copy(place.folder / "inbox.db", place.folder / "old.db")
    shutil.copy(place.folder / "inbox.db-wal", place.folder / "old.db-wal")
    place.inbox.put(chain(3))
    place.integrate()
    old = open_inbox(f"sqlite:{place.folder}/old.db", Storages())
    old.put(chain(8))
    with pytest.raises(EvidenceError) as caught:
        integrate(old, place.log, place.signer, ORIGIN)
    assert caught.value.code == "LOG_FORKED"
    old.close()


def test_a_log_that_was_set_back_grows_into_the_same_log(place: Place) -> None:
    place.inbox.put(chain(300))
    place.integrate()
    shutil.copytree(place.folder / "log", place.folder / "backup")
    place.inbox.put(chain(300))
    place.integrate()
    lines, checkpoint = place.lines(), place.checkpoint()
    shutil.rmtree(place.folder / "log")
    shutil.copytree(place.folder / "backup", place.folder / "log")
    place.integrate()
    assert (place.lines(), place.checkpoint()) == (lines, checkpoint)


def test_the_log_needs_an_ed25519_key(place: Place) -> None:
    from sealflow.actions.keys_generate import generate_key

    generate_key(str(place.folder / "p256.pem"))
    with pytest.raises(UsageError):
        integrate(place.inbox, place.log, load_signer(f"file:{place.folder}/p256.pem"), ORIGIN)
    assert not (place.folder / "log").exists()


# --- Levels ---


def test_levels_rise(place: Place) -> None:
    entries = chain(2)
    writer = entries[0].writer

    def level(n: int) -> str:
        return level_of(writer, n, place.inbox, place.log, place.key)

    assert level(0) == "spooled"
    place.inbox.put(entries[:1])
    assert level(0) == "spooled"
    place.inbox.sequence(10)
    assert level(0) == "sequenced"
    assert level_of(writer, 0, place.inbox) == "sequenced"
    place.integrate()
    place.inbox.put(entries[1:])
    place.inbox.sequence(10)
    assert (level(0), level(1)) == ("included", "sequenced")


def test_a_forged_checkpoint_includes_nothing(place: Place) -> None:
    entries = chain(1)
    place.inbox.put(entries)
    place.integrate()
    other = VerifierKey.of(ed25519_signer(place.folder, "other"), ORIGIN)
    with pytest.raises(EvidenceError):
        level_of(entries[0].writer, 0, place.inbox, place.log, other)


# --- Witnesses ---


@contextlib.contextmanager
def witness_server(name: str = "witness.example"):
    """A witness that remembers sizes and believes every proof; what a witness must refuse is tried elsewhere."""
    private = Ed25519PrivateKey.generate()
    key = VerifierKey(name, COSIGNATURE, private.public_key().public_bytes_raw())
    known = [0]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            head, _, note = body.partition(b"\n\n")
            if int(head.split()[1]) != known[0]:
                self.answer(409, b"%d\n" % known[0])
                return
            text = note.rpartition(b"\n\n")[0] + b"\n"
            known[0] = int(text.split(b"\n")[1])
            stamp = int(time.time())
            signature = private.sign(b"cosignature/v1\ntime %d\n%s" % (stamp, text))
            line = Signature(name, key.id, stamp.to_bytes(8, "big") + signature).line()
            self.answer(200, line.encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/x.tlog.size" if status == 409 else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield Witness(f"http://127.0.0.1:{server.server_address[1]}", key), known
    finally:
        server.shutdown()
        server.server_close()


def test_a_witness_cosigns_what_is_published(place: Place) -> None:
    entries = chain(300)
    with witness_server() as (witness, known):
        for some in (entries[:3], entries[3:]):
            place.inbox.put(some)
            place.integrate()
            assert ask_witnesses(place.log, place.key, [witness]) == {}
            assert known == [some[-1].n + 1]
            before = place.checkpoint()
            assert ask_witnesses(place.log, place.key, [witness]) == {}
            assert place.checkpoint() == before
    assert place.integrate().size == 300
    assert len(place.lines()) == 300

    def level(keys) -> str:
        return level_of(entries[0].writer, 299, place.inbox, place.log, place.key, keys)

    assert (level([witness.key]), level([])) == ("witnessed", "included")
    place.inbox.put(chain(1))
    place.integrate()
    assert level([witness.key]) == "included"


def test_a_silent_witness_is_reported_and_stops_nothing(place: Place) -> None:
    place.inbox.put(chain(2))
    place.integrate()
    with witness_server("one.example") as (one, _), witness_server("two.example") as (two, _):
        gone = two._replace(url="http://127.0.0.1:9")
        silent = ask_witnesses(place.log, place.key, [gone, one])
    assert list(silent) == ["two.example"]
    assert set(open_checkpoint(place.checkpoint(), place.key, [one.key, two.key]).witnesses) == {"one.example"}


def test_a_witness_that_has_seen_more_stops_the_log(place: Place) -> None:
    place.inbox.put(chain(2))
    place.integrate()
    with witness_server() as (witness, known):
        known[0] = 5
        with pytest.raises(EvidenceError) as caught:
            ask_witnesses(place.log, place.key, [witness])
    assert caught.value.code == "LOG_ROLLED_BACK"


def test_a_run_tells_which_witnesses_cosigned(place: Place) -> None:
    place.inbox.put(chain(2))
    with witness_server("one.example") as (one, _), witness_server("two.example") as (two, _):
        done = integrate_audit_log(
            place.inbox.uri,
            place.log.uri,
            signer=place.signer,
            origin=ORIGIN,
            witnesses=[f"{one.url}={one.key}", two._replace(url="http://127.0.0.1:9")],
        )
    assert done.witnesses == ("one.example",)
    assert [(finding.code, finding.subject) for finding in done.findings] == [("LOG_UNWITNESSED", "two.example")]
