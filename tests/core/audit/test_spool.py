"""The spool: durable one by one, whole under crashes, altered by nobody unseen."""

from __future__ import annotations

import base64
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sealflow.audit import AuditEvent, spool
from sealflow.audit.entry import Chain, Entry
from sealflow.audit.spool import SpoolFile, SpoolGoneError, default_spool, opened, writers
from sealflow.errors import UnavailableError
from sealflow.run_identity import RunIdentity


def chain_of(count: int) -> list[Entry]:
    chain = Chain()
    return [chain.add(AuditEvent("sign", "intent", RunIdentity(), f"s3://b/{n}").to_json()) for n in range(count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


def written(folder: Path, entries: list[Entry]) -> Path:
    file = SpoolFile(str(folder), entries[0].writer)
    for entry in entries:
        file.append(entry)
    file.close()
    return folder / f"{entries[0].writer}.entries"


def read(folder: Path) -> spool.SpooledChain:
    (writer,) = writers(str(folder))
    with opened(str(folder), writer) as chain:
        assert chain is not None
        return chain


def test_each_entry_is_synced_before_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, int]] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append((os.path.isdir(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    one, two = entries = chain_of(2)
    path = written(folder, entries)
    sizes = [size for is_folder, size in synced if not is_folder]
    assert sizes == [len(one.line) + 1, path.stat().st_size]
    assert [is_folder for is_folder, _ in synced].index(True) < [is_folder for is_folder, _ in synced].index(False)
    assert read(folder).entries == (one, two)


def test_only_its_owner_reads_it(folder: Path) -> None:
    path = written(folder, chain_of(1))
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_default_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_spool() == "/state/sealflow/audit/spool"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_spool() == "/home/x/.local/state/sealflow/audit/spool"


def test_no_spool_holds_nothing(folder: Path) -> None:
    assert writers(str(folder)) == []
    with opened(str(folder), "0" * 64) as chain:
        assert chain is None


# --- The living and the dead ---


def test_a_living_writer_holds_its_file(folder: Path) -> None:
    (entry,) = chain_of(1)
    file = SpoolFile(str(folder), entry.writer)
    file.append(entry)
    assert read(folder).alive
    file.close()
    assert not read(folder).alive


def test_nobody_finds_a_file_without_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = chain_of(1)
    rename = os.rename
    seen: list[bool] = []

    def watch(old: str, new: str) -> None:
        assert writers(str(folder)) == []
        rename(old, new)
        seen.append(read(folder).alive)

    monkeypatch.setattr(os, "rename", watch)
    SpoolFile(str(folder), entry.writer).append(entry)
    assert seen == [True]


def test_what_is_looked_at_counts_as_alive(folder: Path) -> None:
    entries = chain_of(1)
    written(folder, entries)
    with opened(str(folder), entries[0].writer) as first:
        assert first is not None
        assert not first.alive
        assert read(folder).alive


def test_a_file_that_was_removed_under_its_writer_takes_nothing_more(folder: Path) -> None:
    one, two = chain_of(2)
    file = SpoolFile(str(folder), one.writer)
    file.append(one)
    (folder / f"{one.writer}.entries").unlink()
    with pytest.raises(SpoolGoneError) as caught:
        file.append(two)
    assert caught.value.code == "AUDIT_UNAVAILABLE"


def test_only_old_files_in_the_making_are_swept(folder: Path) -> None:
    folder.mkdir(parents=True)
    old, new = (folder / f"{mark * 64}.entries.making" for mark in "ab")
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    assert writers(str(folder)) == []
    assert not old.exists()
    assert new.exists()


# --- Faults ---


@pytest.mark.parametrize("torn", [b"sealflow-audit/v1 ", b"x", b"\0" * 300, None], ids=["half", "x", "zeros", "whole"])
def test_a_torn_line_is_never_taken(folder: Path, torn: bytes | None) -> None:
    entries = chain_of(3)
    path = written(folder, entries[:2])
    with open(path, "ab") as file:
        file.write(entries[2].line if torn is None else torn)
    chain = read(folder)
    assert chain.entries == tuple(entries[:2])
    assert chain.problem is None


@pytest.mark.parametrize("kind", ["short", "write", "fsync"])
def test_what_fails_leaves_no_half_line_and_can_come_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    one, two = chain_of(2)
    file = SpoolFile(str(folder), one.writer)
    file.append(one)
    path = folder / f"{one.writer}.entries"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        pwrite = os.pwrite

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        if kind == "short":
            patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:20], at))
        else:
            patch.setattr(os, {"write": "pwrite", "fsync": "fsync"}[kind], fail)
        with pytest.raises(UnavailableError) as caught:
            file.append(two)
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert path.read_bytes() == before
    file.append(two)
    file.append(two)
    file.close()
    assert read(folder).entries == (one, two)


def test_even_where_nothing_can_be_cut_off_the_same_entry_heals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = chain_of(2)
    file = SpoolFile(str(folder), one.writer)
    file.append(one)
    pwrite = os.pwrite

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:50], at))
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(UnavailableError):
            file.append(two)
    assert read(folder).entries == (one,)
    file.append(two)
    assert read(folder).entries == (one, two)


FULL = """
import resource, sys
from tests.core.audit.test_spool import SpoolFile, chain_of
from sealflow.errors import UnavailableError
entries = chain_of(5)
file = SpoolFile(sys.argv[1], entries[0].writer)
limit = sum(len(entry.line) + 1 for entry in entries[:3]) + 40
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for entry in entries:
    try:
        file.append(entry)
    except UnavailableError as error:
        print(entry.n, error.code)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for entry in entries[3:4]:
    file.append(entry)
"""


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "AUDIT_UNAVAILABLE"]
    chain = read(folder)
    assert [entry.n for entry in chain.entries] == [0, 1, 2, 3]
    assert chain.problem is None


@pytest.mark.parametrize("place", ["file", "link", "proc"])
def test_a_spool_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    folder = {"file": tmp_path / "file" / "spool", "link": tmp_path / "link", "proc": Path("/proc/sealflow")}[place]
    (entry,) = chain_of(1)
    with pytest.raises(UnavailableError) as caught:
        SpoolFile(str(folder), entry.writer).append(entry)
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert "SEALFLOW_AUDIT_SPOOL" in caught.value.next_step


def test_a_link_in_the_spool_is_not_followed(folder: Path, tmp_path: Path) -> None:
    entries = chain_of(1)
    path = written(folder, entries)
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)
    with pytest.raises(UnavailableError), opened(str(folder), entries[0].writer):
        pass
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnavailableError, match="no regular file"), opened(str(folder), entries[0].writer):
        pass


# --- Somebody altered it ---


def forged(entry: Entry) -> bytes:
    """The same entry with another event, signed by nobody."""
    head, _, _ = entry.line.partition(b"{")
    return head + b'{"a":1} ' + base64.b64encode(bytes(64))


@pytest.mark.parametrize(
    ("lines", "sound", "code"),
    [
        pytest.param(lambda e: [e[0].line, b"nonsense", e[2].line], 1, "AUDIT_MALFORMED", id="nonsense"),
        pytest.param(lambda e: [e[0].line, e[2].line], 1, "AUDIT_CHAIN", id="removed"),
        pytest.param(lambda e: [e[1].line, e[2].line], 0, "AUDIT_CHAIN", id="removed-first"),
        pytest.param(lambda e: [e[0].line, e[2].line, e[1].line], 1, "AUDIT_CHAIN", id="reordered"),
        pytest.param(lambda e: [e[0].line, e[1].line, e[1].line], 2, "AUDIT_CHAIN", id="repeated"),
        pytest.param(lambda e: [e[0].line, forged(e[1]), e[2].line], 1, "AUDIT_SIGNATURE", id="edited"),
        pytest.param(lambda e: [e[0].line, e[1].line, forged(e[2])], 2, "AUDIT_SIGNATURE", id="edited-last"),
        pytest.param(lambda e: [forged(e[0])], 0, "AUDIT_SIGNATURE", id="edited-only"),
        pytest.param(lambda e: [e[0].line, chain_of(2)[1].line], 1, "AUDIT_CHAIN", id="of-another-writer"),
        pytest.param(lambda e: [e[0].line, b"", e[1].line], 1, "AUDIT_MALFORMED", id="empty-line"),
    ],
)
def test_altered_lines_are_named_and_the_sound_ones_before_stay(folder: Path, lines, sound, code) -> None:
    entries = chain_of(3)
    written(folder, entries).write_bytes(b"".join(line + b"\n" for line in lines(entries)))
    chain = read(folder)
    assert chain.problem is not None
    assert chain.problem.code == code
    assert chain.entries == tuple(entries[:sound])


def test_no_flipped_bit_goes_unseen(folder: Path) -> None:
    entries = chain_of(2)
    path = written(folder, entries)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        chain = read(folder)
        # A flipped line end makes the last line a torn one, which was never durable.
        assert chain.problem is not None or at == len(whole) - 1
        assert chain.entries == tuple(entries[: len(chain.entries)])


def test_a_file_longer_than_any_chain_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, chain_of(4))
    monkeypatch.setattr(spool, "MAX_CHAIN", 3)
    chain = read(folder)
    assert len(chain.entries) == 3
    assert chain.problem is not None
