"""Evidence that is read some objects at a time: as many, in the same order and within the same limits as one by one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import EvidenceError, SealflowError, UnavailableError
from sealflow.evidence import EvidenceStore, store
from sealflow.evidence.ahead import MOST_AT_ONCE, in_order
from sealflow.hashing import Digest, sha256_hex
from sealflow.storage import Storages

DIGEST = Digest.parse("sha256:" + "ab" * 32)


class Remote:
    """A store far away: what lies in it, and how many reads it answers at the same time."""

    def __init__(self, objects: dict[str, bytes | SealflowError | None], parallel: int = 8) -> None:
        self.objects = objects
        self.parallel = parallel
        self.reads: list[tuple[str, int]] = []
        self.threads: set[int] = set()
        self.most = self.reserved = self.most_reserved = 0
        self._now = 0
        self._changed = threading.Condition()
        #: Told the number of reads in flight; an answer waits until it says so.
        self.answers: Callable[[int], bool] = lambda flying: True

    def get(self, uri: str, limit: int) -> bytes | None:
        with self._changed:
            self.reads.append((uri, limit))
            self.threads.add(threading.get_ident())
            self._now += 1
            self.reserved += limit
            self.most = max(self.most, self._now)
            self.most_reserved = max(self.most_reserved, self.reserved)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.answers(self.most), 30), f"never more than {self.most} at once"
            self._now -= 1
            self.reserved -= limit
        found = self.objects[uri]
        if isinstance(found, SealflowError):
            raise found
        if found is not None and len(found) > limit:
            raise EvidenceError(f"more than {limit}")
        return found

    # What an EvidenceStore asks besides.

    def canonical(self, uri: str) -> str:
        return uri

    def list_objects(self, uri: str, limit: int) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.objects if name.startswith(uri + "/"))


def seen(outcomes: Any) -> list[Any]:
    return [(type(item), getattr(item, "code", item)) for item in outcomes]


def numbered(count: int) -> dict[str, bytes | SealflowError | None]:
    return {f"s3://bucket/{number:03}": bytes([number]) for number in range(count)}


def test_as_many_at_once_as_the_store_takes() -> None:
    objects = numbered(40)
    remote = Remote(objects)
    remote.answers = lambda most: most == MOST_AT_ONCE
    found = list(in_order(remote, [(name, 10) for name in objects], 1000))  # type: ignore[arg-type]
    assert found == list(objects.values())
    assert remote.most == MOST_AT_ONCE == 8


@pytest.mark.parametrize(("parallel", "count", "most"), [(4, 40, 4), (100, 40, MOST_AT_ONCE), (8, 3, 3)])
def test_never_more_than_it_takes(parallel: int, count: int, most: int) -> None:
    objects = numbered(count)
    remote = Remote(objects, parallel)
    remote.answers = lambda flying: flying == most
    list(in_order(remote, [(name, 10) for name in objects], 1000))  # type: ignore[arg-type]
    assert remote.most == most


@pytest.mark.parametrize(("scheme", "parallel", "count"), [("file", 8, 9), ("s3", 1, 9), ("s3", 8, 1), ("s3", 8, 0)])
def test_without_threads(scheme: str, parallel: int, count: int) -> None:
    objects = {f"{scheme}:///{number}": b"x" for number in range(count)}
    remote = Remote(dict(objects), parallel)
    assert list(in_order(remote, [(name, 10) for name in objects], 1000)) == [b"x"] * count  # type: ignore[arg-type]
    assert remote.threads <= {threading.get_ident()}


def test_in_order_whoever_answers_first() -> None:
    objects = numbered(30)
    remote = Remote(objects)
    get, answered = remote.get, []
    waits = random.Random(7)

    def late(uri: str, limit: int) -> bytes | None:
        time.sleep(waits.random() / 100)
        answered.append(uri)
        return get(uri, limit)

    remote.get = late  # type: ignore[method-assign]
    assert list(in_order(remote, [(name, 10) for name in objects], 1000)) == list(objects.values())  # type: ignore[arg-type]
    assert sorted(answered) == list(objects)


OUTCOMES = st.one_of(
    st.integers(0, 40).map(bytes), st.just(None), st.just(UnavailableError("down")), st.just(EvidenceError("no file"))
)


@given(st.lists(st.tuples(OUTCOMES, st.integers(1, 30)), max_size=30), st.integers(0, 200), st.integers(2, 8))
def test_within_the_limits_of_reading_one_by_one(items: list[tuple[Any, int]], most_bytes: int, parallel: int) -> None:
    objects = {f"s3://bucket/{number:03}": item for number, (item, _) in enumerate(items)}
    wanted = [(name, limit) for name, (_, limit) in zip(objects, items, strict=True)]
    alone, together = Remote(objects, 1), Remote(objects, parallel)
    expected = seen(in_order(alone, wanted, most_bytes))  # type: ignore[arg-type]
    assert seen(in_order(together, wanted, most_bytes)) == expected  # type: ignore[arg-type]
    assert sorted(together.reads) == sorted(alone.reads)
    assert together.most_reserved <= most_bytes
    assert sum(len(item) for _, item in expected if isinstance(item, bytes)) <= most_bytes


def test_who_gives_up_reads_no_further() -> None:
    objects = numbered(100)
    remote = Remote(objects)
    outcomes = in_order(remote, [(name, 10) for name in objects], 10_000)  # type: ignore[arg-type]
    assert next(outcomes) == b"\0"
    outcomes.close()
    assert len(remote.reads) <= 2 * MOST_AT_ONCE


# --- The evidence store ---


def evidence(kinds: dict[str, int]) -> dict[str, bytes | SealflowError | None]:
    folder = f"s3://bucket/store/{DIGEST.path_segment}"
    found: dict[str, bytes | SealflowError | None] = {}
    for kind, count in kinds.items():
        for number in range(count):
            data = f"{kind} {number}".encode()
            ending = ".tlog-proof" if kind == "inclusion" else ".json"
            found[f"{folder}/{kind}-{sha256_hex(data)}{ending}"] = data
    return found


def collected(remote: Remote) -> Any:
    class Only(Storages):
        def for_uri(self, uri: str) -> Any:
            return remote

    return EvidenceStore("s3://bucket/store", Only()).collect(DIGEST)


def test_a_store_is_read_at_once_and_tells_the_same() -> None:
    objects = evidence({"provenance": 20, "signature": 1, "lineage": 9, "inclusion": 12})
    at_once = Remote(objects)
    at_once.answers = lambda most: most == MOST_AT_ONCE
    one_by_one = Remote(objects, 1)
    found = collected(at_once)
    assert found == collected(one_by_one)
    names = [item.name for item in found.objects]
    assert names == sorted(names)
    assert (len(names), len(found.inclusions), found.unread) == (30, 12, ())
    assert sorted(at_once.reads) == sorted(one_by_one.reads)


def test_what_cannot_be_read_is_named_and_the_rest_taken() -> None:
    objects = evidence({"provenance": 20, "inclusion": 3})
    names = sorted(objects)
    vanished, down, gone_proof = names[15], names[7], names[1]
    objects[vanished], objects[down], objects[gone_proof] = None, UnavailableError("down"), None
    found = collected(Remote(objects))
    assert [name for name, _ in found.unread] == [name.rpartition("/")[2] for name in (down, vanished)]
    assert (len(found.objects), len(found.inclusions)) == (18, 2)


def test_a_store_that_stays_down_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PATIENCE", -1.0)
    objects = evidence({"provenance": 200})
    remote = Remote({name: UnavailableError("down") for name in objects})
    with pytest.raises(UnavailableError, match="down"):
        collected(remote)
    assert len(remote.reads) <= 3 * MOST_AT_ONCE


def test_a_file_that_bears_another_digest_is_altered() -> None:
    objects = evidence({"provenance": 9, "inclusion": 2})
    provenance = [name for name in sorted(objects) if "/provenance-" in name]
    objects[provenance[4]] = b"other"
    objects[next(name for name in objects if "/inclusion-" in name)] = b"other"
    found = collected(Remote(objects))
    assert [item.altered for item in found.objects] == [number == 4 for number in range(9)]
    assert len(found.inclusions) == 1
