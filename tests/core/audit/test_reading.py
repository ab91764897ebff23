"""A log's entries, read from the beginning or from where a reader stopped before."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow.audit import merkle
from sealflow.audit.checkpoint import Checkpoint, open_checkpoint
from sealflow.audit.reading import entries
from sealflow.audit.tiles import Tree
from sealflow.errors import EvidenceError
from tests.core.audit.logs import MadeLog


def lines(start: int, count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(start, start + count)]


def checkpoint(log: MadeLog) -> Checkpoint:
    assert log.checkpoint is not None
    return open_checkpoint(log.checkpoint, log.key).checkpoint


@pytest.mark.parametrize(("first", "more"), [(0, 1), (1, 1), (255, 2), (256, 300), (300, 700), (513, 0)])
def test_a_reader_goes_on_where_it_stopped(tmp_path: Path, first: int, more: int) -> None:
    log, frontier = MadeLog(tmp_path), merkle.Frontier()
    if first:
        log.add(lines(0, first))
        assert list(entries(log.store.get, checkpoint(log), frontier)) == lines(0, first)
    if more:
        log.add(lines(first, more))
    assert list(entries(log.store.get, checkpoint(log), frontier)) == lines(first, more)
    assert frontier.size == first + more


def test_a_reader_may_leave_out_the_beginning_and_still_proves_the_whole(tmp_path: Path) -> None:
    log = MadeLog(tmp_path)
    log.add(lines(0, 900))
    begun = merkle.Frontier.of(512, Tree(log.store.get, 900).subtree)
    assert list(entries(log.store.get, checkpoint(log), begun)) == lines(512, 388)


def test_another_beginning_than_the_one_that_was_read_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    before, after = MadeLog(one), MadeLog(other)
    before.add(lines(0, 300))
    after.add([b"other", *lines(1, 399)])
    frontier = merkle.Frontier()
    list(entries(before.store.get, checkpoint(before), frontier))
    with pytest.raises(EvidenceError) as refused:
        list(entries(after.store.get, checkpoint(after), frontier))
    assert refused.value.code == "LOG_ALTERED"


def test_a_log_that_is_smaller_than_what_was_read_is_refused(tmp_path: Path) -> None:
    log, frontier = MadeLog(tmp_path), merkle.Frontier()
    log.add(lines(0, 10))
    old = checkpoint(log)
    log.add(lines(10, 10))
    list(entries(log.store.get, checkpoint(log), frontier))
    with pytest.raises(EvidenceError) as refused:
        list(entries(log.store.get, old, frontier))
    assert refused.value.code == "LOG_ALTERED"
