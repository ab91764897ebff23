"""What is the objects' own: the order before the tiles, whoever dies; late and doubled puts; hostile objects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from sealflow.audit.entry import Chain
from sealflow.audit.inbox import SquattedError
from sealflow.audit.inbox_objects import ObjectInbox
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.storage import Storages
from tests.core.audit.chains import chain, forged, log_of
from tests.servers.fault_proxy import Fault, FaultProxy
from tests.servers.s3 import S3Server


class Bucket:
    """An inbox's objects, by names relative to it."""

    def __init__(self, server: S3Server) -> None:
        self.client = server.client()
        self.name = server.make_bucket()
        self.uri = f"s3://{self.name}/audit"

    def inbox(self, client=None) -> ObjectInbox:
        return ObjectInbox(self.uri, Storages(client or self.client))

    def names(self, prefix: str = "") -> list[str]:
        found: list[str] = []
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"audit/{prefix}"):
            found += [item["Key"].removeprefix("audit/") for item in page.get("Contents", ())]
        return found

    def write(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"audit/{name}", Body=data)

    def read(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=f"audit/{name}")["Body"].read()

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=f"audit/{name}")


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)


def lines(*chains) -> list[bytes]:
    return [entry.line for entries in chains for entry in entries]


def name_of(entries, data: bytes | None = None) -> str:
    data = data if data is not None else b"".join(entry.line + b"\n" for entry in entries)
    digest = hashlib.sha256(data).hexdigest()
    return f"inbox/{entries[0].writer}/{entries[0].n:018d}-{len(entries):04d}-{digest}"


def test_a_spool_is_one_object_and_is_gone_once_it_is_in_order(bucket: Bucket) -> None:
    entries = chain(5)
    bucket.inbox().put(entries)
    assert bucket.names() == [name_of(entries)]
    inbox = bucket.inbox()
    assert inbox.sequence(100) == 5
    assert bucket.names("inbox/") == []
    assert len(bucket.names("batch/")) == len(bucket.names("seq/")) == len(bucket.names("chains/")) == 1
    assert inbox.sequenced(0, 10) == lines(entries)
    inbox.published(0, 5)
    assert bucket.names("batch/") == []


def test_the_cost_of_a_run_does_not_grow_with_the_past(bucket: Bucket, s3_server: S3Server) -> None:
    costs = []
    with FaultProxy(s3_server.endpoint_url) as proxy:
        client = replace(s3_server, endpoint_url=proxy.endpoint).client()
        for _ in range(8):
            bucket.inbox().put(chain(3))
            proxy.clear()
            inbox = bucket.inbox(client)
            while inbox.sequence(100):
                pass
            inbox.published(0, inbox.size())
            costs.append(len(proxy.requests))
    assert max(costs[2:]) <= costs[1]


@pytest.mark.parametrize("late", ["before the end", "long after"])
def test_what_comes_again_late_has_one_index(bucket: Bucket, late: str) -> None:
    entries = chain(6)
    bucket.inbox().put(entries[:4])
    assert bucket.inbox().sequence(100) == 4
    if late == "long after":
        for _ in range(3):
            bucket.inbox().put(chain(2))
            bucket.inbox().sequence(100)
        bucket.inbox().published(0, bucket.inbox().size())
    bucket.inbox().put(entries[:4])  # the same object, which is gone
    bucket.inbox().put(entries[1:3])  # other objects
    bucket.inbox().put(entries[3:5])
    bucket.inbox().put(entries)
    inbox = bucket.inbox()
    assert inbox.sequence(100) == 2
    assert inbox.sequence(100) == 0
    assert inbox.refusals == []
    assert bucket.names("inbox/") == []
    indices = [inbox.index_of(entry.writer, entry.n) for entry in entries]
    assert indices == sorted(set(indices))
    assert indices[:4] == [0, 1, 2, 3]


# --- Whoever dies ---


class DiedError(BaseException):
    """Not even cleaned up after."""


class Dying:
    """A client that dies at a certain request, before or after it is done."""

    def __init__(self, client, at: int, *, after: bool) -> None:
        self._client = client
        self._left = at
        self._after = after

    def __getattr__(self, name: str):
        found = getattr(self._client, name)
        if name not in ("put_object", "delete_object", "get_object", "list_objects_v2"):
            return found

        def request(**arguments):
            self._left -= 1
            if self._left < 0:
                raise DiedError
            if self._left == 0 and not self._after:
                self._left = -1
                raise DiedError
            answer = found(**arguments)
            if self._left == 0:
                self._left = -1
                raise DiedError
            return answer

        return request


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_integrator_that_dies_at_any_request_loses_and_doubles_nothing(bucket: Bucket, after: bool) -> None:
    entries, second = chain(3), chain(2)
    put: list[bytes] = []
    for at in range(1, 40):
        mine, more = chain(2), chain(1)
        bucket.inbox().put(mine)
        bucket.inbox().put(mine[:1])
        put += lines(mine)
        if at == 1:
            bucket.inbox().put(entries)
            bucket.inbox().put(second)
            put += lines(entries, second)
        dying = bucket.inbox(Dying(bucket.client, at, after=after))
        try:
            while dying.sequence(100):
                pass
            dying.published(0, dying.size())
            ended = True
        except DiedError:
            ended = False
        bucket.inbox().put(more)
        put += lines(more)
        inbox = bucket.inbox()
        while inbox.sequence(100):
            pass
        assert inbox.size() == len(put)
        assert bucket.names("inbox/") == []
        if ended:
            break
    assert ended
    hashes = [one for name in bucket.names("seq/") for one in inbox._block(int(name[4:])).hashes]
    assert sorted(hashes) == sorted(hashlib.sha256(b"\0" + line).hexdigest() for line in put)


def test_who_comes_second_begins_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = chain(3), chain(2)
    bucket.inbox().put(first)
    slow, fast = bucket.inbox(), bucket.inbox()
    judge = slow._judge
    calls = []

    def late(names):
        judged = judge(names)
        if not calls:
            assert fast.sequence(100) == 3
            bucket.inbox().put(second)
        calls.append(1)
        return judged

    monkeypatch.setattr(slow, "_judge", late)
    slow.sequence(100)
    assert len(calls) == 2
    assert log_of(bucket.inbox()) == lines(first, second)
    assert len(bucket.names("batch/")) == len(bucket.names("seq/")) == 2


# --- The network ---


@pytest.mark.parametrize("kind", ["lost", "lost_error"])
def test_a_lost_answer_is_looked_up(bucket: Bucket, s3_server: S3Server, kind: str) -> None:
    entries = chain(2)
    bucket.inbox().put(chain(1))  # what a store can do is asked once
    with FaultProxy(s3_server.endpoint_url) as proxy:
        client = replace(s3_server, endpoint_url=proxy.endpoint).client(retries={"total_max_attempts": 1})
        warm = bucket.inbox(client)
        warm.put(chain(1))
        proxy.add(Fault(kind, when="PutObject"))
        warm.put(entries)
        assert proxy.left() == 0
    assert len(log_of(bucket.inbox())) == 4


def test_a_store_that_is_away_is_unavailable(bucket: Bucket, s3_server: S3Server) -> None:
    away = replace(s3_server, endpoint_url="http://127.0.0.1:9").client(retries={"total_max_attempts": 1})
    inbox = bucket.inbox(away)
    for do in (lambda: inbox.put(chain(1)), lambda: inbox.sequence(1), inbox.size, lambda: inbox.index_of("0" * 64, 0)):
        with pytest.raises(UnavailableError):
            do()


def test_a_store_that_ignores_conditions_is_refused(bucket: Bucket, s3_server: S3Server) -> None:
    class Ignorant:
        def __init__(self, client) -> None:
            self._client = client
            self.meta = type("Meta", (), {"endpoint_url": "http://ignorant.example", "config": client.meta.config})()

        def __getattr__(self, name: str):
            return getattr(self._client, name)

        def put_object(self, IfNoneMatch=None, **arguments):  # noqa: N803
            return self._client.put_object(**arguments)

    with pytest.raises(UsageError) as caught:
        bucket.inbox(Ignorant(bucket.client)).put(chain(1))
    assert caught.value.code == "OVERWRITE_NOT_PROTECTED"


# --- Attacks ---


def test_other_bytes_under_the_name_of_an_object_are_a_squatted_slot(bucket: Bucket) -> None:
    entries = chain(2)
    bucket.write(name_of(entries), b"mine")
    with pytest.raises(SquattedError) as caught:
        bucket.inbox().put(entries)
    assert (caught.value.writer, caught.value.n) == (entries[0].writer, 0)
    inbox = bucket.inbox()
    assert log_of(inbox) == []
    assert [refusal.code for refusal in inbox.refusals] == ["AUDIT_MALFORMED"]


def unlinked(entries):
    writer = Chain()
    writer._prev = "1" * 64
    return [writer.add(b"{}")]


GARBAGE: dict[str, tuple[Callable, str]] = {
    "no name": (lambda some: ("inbox/nonsense", b"x"), "AUDIT_MALFORMED"),
    "a folder": (lambda some: (f"inbox/{some[0].writer}/", b""), "AUDIT_MALFORMED"),
    "no entries": (lambda some: (name_of(some, b""), b""), "AUDIT_MALFORMED"),
    "no lines": (lambda some: (name_of(some, b"\n" * len(some)), b"\n" * len(some)), "AUDIT_MALFORMED"),
    "other bytes": (lambda some: (name_of(some), b"x"), "AUDIT_MALFORMED"),
    "no line end": (lambda some: (name_of(some[:1], some[0].line), some[0].line), "AUDIT_MALFORMED"),
    "another's": (
        lambda some: (name_of(some[:1], (line := chain(1)[0].line + b"\n")), line),
        "AUDIT_MALFORMED",
    ),
    "unsigned": (
        lambda some: (name_of(some[:1], (line := forged(some[0]).line + b"\n")), line),
        "AUDIT_SIGNATURE",
    ),
    "too many": (lambda some: (name_of(some).replace("-0003-", "-9999-"), b"x"), "AUDIT_MALFORMED"),
    "digits of another script": (lambda some: (name_of(some).replace("-0003-", "-000٣-"), b"x"), "AUDIT_MALFORMED"),
    "unlinked": (
        lambda some: (name_of(own := unlinked(some)), own[0].line + b"\n"),
        "AUDIT_CHAIN",
    ),
    "too large": (lambda some: (name_of(some, (b"x" * (5 << 20))), b"x" * (5 << 20)), "AUDIT_MALFORMED"),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_garbage_blocks_nobody_and_is_reported_once(bucket: Bucket, kind: str, first: bool) -> None:
    entries, other = chain(3), chain(2)
    make, code = GARBAGE[kind]
    name, data = make(entries)
    if first:
        bucket.write(name, data)
    if name != name_of(entries):
        bucket.inbox().put(entries)
    bucket.inbox().put(other)
    if not first:
        bucket.write(name, data)
    inbox = bucket.inbox()
    found = log_of(inbox)
    expected = lines(other) if name == name_of(entries) else lines(entries, other)
    assert sorted(found) == sorted(expected)
    # What was looked at after the entries with its numbers only comes too late.
    assert [refusal.code for refusal in inbox.refusals] in ([code], ["AUDIT_SQUATTED"])
    assert inbox.sequence(100) == 0
    assert len(inbox.refusals) == 1
    # Put aside, where it could be read at all, and not looked at again.
    kept = bucket.names("refused/")
    if kind in ("no name", "a folder", "too many", "too large", "digits of another script"):
        assert bucket.names("inbox/") == [name]
    else:
        assert [bucket.read(one) for one in kept] == [data]
        assert bucket.names("inbox/") == []


def test_two_entries_for_one_number_give_one(bucket: Bucket) -> None:
    """The writer itself lies: both are signed."""
    writer = Chain()
    first = writer.add(b'{"a":1}')
    writer.count, writer._prev = 0, "0" * 64
    second = writer.add(b'{"a":2}')
    bucket.inbox().put([first])
    bucket.inbox().sequence(100)
    bucket.inbox().put([second])
    inbox = bucket.inbox()
    assert inbox.sequence(100) == 0
    assert [refusal.code for refusal in inbox.refusals] == ["AUDIT_SQUATTED"]
    assert log_of(inbox) == [first.line]


def test_what_a_killed_writer_asked_the_store_with_is_no_finding(bucket: Bucket) -> None:
    entries = chain(1)
    name = f"inbox/{entries[0].writer}/.sealflow-probe-{'0' * 16}"
    bucket.write(name, b"")
    bucket.inbox().put(entries)
    inbox = bucket.inbox()
    assert log_of(inbox) == lines(entries)
    assert inbox.refusals == []
    bucket.write(name, b"x")
    inbox.sequence(100)
    assert [refusal.code for refusal in inbox.refusals] == ["AUDIT_MALFORMED"]


@pytest.mark.parametrize("hint", [b"", b"7", b"999999999999999999", b"nonsense", b"-1", b"1" * 40])
def test_a_false_hint_costs_time_only(bucket: Bucket, hint: bytes) -> None:
    for _ in range(3):
        bucket.inbox().put(chain(2))
        bucket.inbox().sequence(100)
    bucket.write("last", hint[:32])
    more = chain(2)
    bucket.inbox().put(more)
    inbox = bucket.inbox()
    assert inbox.sequence(100) == 2
    assert inbox.index_of(more[1].writer, 1) == 7


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"sealflow_audit_seq":2}', b"x" * 100], ids=["none", "empty", "list", "2", "x"]
)
def test_an_order_that_no_integrator_wrote_is_refused(bucket: Bucket, data: bytes) -> None:
    bucket.inbox().put(chain(2))
    bucket.inbox().sequence(100)
    bucket.write(bucket.names("seq/")[0], data)
    with pytest.raises(EvidenceError) as caught:
        bucket.inbox().size()
    assert caught.value.code == "LOG_FORKED"


def test_an_exchanged_order_is_refused(bucket: Bucket) -> None:
    for _ in range(2):
        bucket.inbox().put(chain(2))
        bucket.inbox().sequence(100)
    first = bucket.names("seq/")[0]
    data = bucket.read(first)
    bucket.write(first, data.replace(b'"batch":"', b'"batch":"0', 1))
    bucket.remove("last")
    with pytest.raises(EvidenceError) as caught:
        bucket.inbox().size()
    assert caught.value.code == "LOG_FORKED"


@pytest.mark.parametrize("change", ["altered", "gone"])
def test_altered_lines_are_refused(bucket: Bucket, change: str) -> None:
    bucket.inbox().put(chain(2))
    bucket.inbox().sequence(100)
    [name] = bucket.names("batch/")
    if change == "gone":
        bucket.remove(name)
    else:
        bucket.write(name, bucket.read(name).replace(b"{", b"{ ", 1))
    with pytest.raises(EvidenceError) as caught:
        bucket.inbox().sequenced(0, 10)
    assert caught.value.code == "LOG_FORKED"
    assert change in caught.value.message


def test_the_last_hash_is_known_at_the_ends_of_objects(bucket: Bucket) -> None:
    first, second = chain(3), chain(2)
    for entries in (first, second):
        bucket.inbox().put(entries)
        bucket.inbox().sequence(100)
    assert bucket.inbox().last_hash(3) == first[2].hash
    assert bucket.inbox().last_hash(5) == second[1].hash
    for size in (1, 4, 6):
        with pytest.raises(EvidenceError):
            bucket.inbox().last_hash(size)


def test_the_last_hash_while_another_puts_more_in_order(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an integrator took the log for one of another inbox, once in many thousand runs."""
    first, second = chain(3), chain(2)
    bucket.inbox().put(first)
    bucket.inbox().sequence(100)
    late = bucket.inbox()
    advance = late._advance

    def overtaken():
        bucket.inbox().put(second)
        bucket.inbox().sequence(100)
        return advance()

    monkeypatch.setattr(late, "_advance", overtaken)
    assert late.last_hash(3) == first[2].hash
