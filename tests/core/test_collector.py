"""Fewer garbage collections while many records are made, and the old threshold afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
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


# What was registered first runs last.
_END = """
import atexit, gc, sys
atexit.register(lambda: print("left alone at the end:", gc.get_freeze_count() > 1000, gc.get_threshold()[0]))
gc.set_threshold(700)
sys.argv[0] = "program"
"""


@pytest.mark.parametrize(
    "program",
    [
        ("from sealflow.cli import main; main()", "--version"),
        ("from sealflow_kfp.exec import main; sys.exit(main())", "--executor-input", "{}", "--", "true"),
    ],
    ids=["command", "wrapper"],
)
def test_our_own_programs_end_without_a_last_collection(program: tuple[str, ...]) -> None:
    code, *arguments = program
    done = subprocess.run([sys.executable, "-c", _END + code, *arguments], capture_output=True, text=True)
    assert "left alone at the end: True 700" in done.stdout, done.stderr


def test_what_others_import_leaves_their_end_alone() -> None:
    code = _END + "import sealflow.actions.upload, sealflow_kfp, sealflow_airflow"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "left alone at the end: False 700" in done.stdout, done.stderr
