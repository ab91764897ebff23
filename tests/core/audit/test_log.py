"""Where logs lie: folders and S3."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.audit.log import LogStore, open_log
from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.storage import Storages
from tests.core.audit.logs import MadeLog, chain_lines
from tests.servers.s3 import S3Server

Open = Callable[[], LogStore]


@pytest.fixture(params=["folder", pytest.param("s3", marks=[pytest.mark.server, pytest.mark.xdist_group("s3")])])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "folder":
        return lambda: open_log(str(tmp_path / "log"), Storages())
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.make_bucket()
    return lambda: open_log(f"s3://{bucket}/log", Storages(server.client()))


def test_objects_are_written_once(opened: Open) -> None:
    log = opened()
    assert log.get("tile/0/000", 100) is None
    log.create("tile/0/x001/000", b"data")
    log.create("tile/0/x001/000", b"data")
    assert opened().get("tile/0/x001/000", 4) == b"data"
    for other in (b"date", b"dat", b"data and more", b""):
        with pytest.raises(EvidenceError) as caught:
            log.create("tile/0/x001/000", other)
        assert caught.value.code == "LOG_FORKED"
    assert log.get("tile/0/x001/000", 4) == b"data"
    with pytest.raises(EvidenceError):
        log.get("tile/0/x001/000", 3)


def test_many_at_once(opened: Open) -> None:
    log = opened()
    objects = [(f"tile/0/{number:03d}", b"%d" % number) for number in range(40)]
    log.create_all(objects[:20])
    log.create_all(objects)
    assert all(log.get(name, 2) == data for name, data in objects)
    with pytest.raises(EvidenceError) as caught:
        log.create_all([*objects[:39], ("tile/0/039", b"40")])
    assert caught.value.code == "LOG_FORKED"
    log.create_all([])


def test_the_checkpoint_is_swapped_by_one(opened: Open) -> None:
    log = opened()
    assert not log.swap_checkpoint(b"old", b"new")
    assert log.get("checkpoint", 100) is None
    assert log.swap_checkpoint(None, b"one")
    assert not log.swap_checkpoint(None, b"two")
    assert not log.swap_checkpoint(b"zero", b"two")
    assert log.get("checkpoint", 100) == b"one"
    assert log.swap_checkpoint(b"one", b"two")
    assert opened().get("checkpoint", 100) == b"two"


def test_of_many_swaps_one_wins(opened: Open) -> None:
    opened().swap_checkpoint(None, b"start")
    won: list[int] = []
    ready = threading.Barrier(6)

    def swap(number: int) -> None:
        log = opened()
        ready.wait()
        try:
            if log.swap_checkpoint(b"start", b"%d" % number):
                won.append(number)
        except UnavailableError:
            pass  # the store may say that somebody else writes at this moment

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert opened().get("checkpoint", 100) == b"%d" % won[0]


def test_a_log_grows(opened: Open, tmp_path: Path) -> None:
    made = MadeLog(tmp_path)
    made.store = opened()
    made.add(chain_lines(300))
    made.add(chain_lines(300))
    assert made.size == 600
    assert opened().get("checkpoint", 1000) == made.checkpoint


def test_what_lies_in_a_folder_is_what_the_specification_says(tmp_path: Path) -> None:
    made = MadeLog(tmp_path)
    made.add(chain_lines(300))
    names = {
        os.path.relpath(os.path.join(folder, name), tmp_path / "log")
        for folder, _, files in os.walk(tmp_path / "log")
        for name in files
    }
    assert names == {
        ".lock",
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    }


def test_a_link_is_no_tile(tmp_path: Path) -> None:
    made = MadeLog(tmp_path)
    made.add(chain_lines(2))
    tile = made.path("tile/0/000.p/2")
    tile.rename(tmp_path / "elsewhere")
    tile.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvidenceError) as caught:
        made.add(chain_lines(2))
    assert caught.value.code == "LOG_ALTERED"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a file")
    log = open_log(str(tmp_path / "log"), Storages())
    for call in (lambda: log.create("tile/0/000", b"x"), lambda: log.swap_checkpoint(None, b"x")):
        with pytest.raises(SealflowError):
            call()


@pytest.mark.parametrize("uri", ["memory://log", "gs://bucket/log", "https://log.example/"])
def test_other_places_hold_no_log(uri: str) -> None:
    with pytest.raises(UsageError):
        open_log(uri, Storages())
