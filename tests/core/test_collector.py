"""Fewer garbage collections while many records are made, and the old threshold afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from sealflow.collector import rare_collection


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_it_still_collects_but_rarely() -> None:
    with rare_collection():
        assert gc.isenabled()
        assert gc.get_threshold() == (100_000, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


def test_the_last_one_out_restores_it_whatever_the_order() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with rare_collection():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with rare_collection():
        thread.start()
        assert entered.wait(10)
    assert gc.get_threshold()[0] == 100_000
    leave.set()
    thread.join()
    assert gc.get_threshold() == (700, 10, 10)


def test_an_error_restores_it() -> None:
    with pytest.raises(KeyError), rare_collection():
        raise KeyError
    assert gc.get_threshold() == (700, 10, 10)


def test_a_collector_that_is_off_or_rarer_stays_so() -> None:
    for own in (0, 500_000):
        gc.set_threshold(own, 10, 10)
        with rare_collection():
            assert gc.get_threshold()[0] == own
        assert gc.get_threshold()[0] == own
