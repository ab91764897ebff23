"""Hostile DVC remotes: what lies in the place of an object, what a store answers, where a configuration points."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import ArtifactError, UnavailableError
from sealflow.findings import Finding
from sealflow.lineage.files import MAX_DIRECTORY
from sealflow.lineage.remote import check_remote, remote_url
from sealflow.storage import Storages
from sealflow.storage.local import LocalReader
from tests.core.lineage.remotes import (
    Body,
    Held,
    Store,
    codes,
    file,
    folder,
    in_bucket,
    key_of,
    listing,
    listing_digest,
    objects,
    write_remote,
)
from tests.core.lineage.repos import md5

FILES = {"a.csv": b"1,2\n", "b.csv": b"3,4\n"}
RAW = b"raw\n"
WANTED = (file("raw.csv", RAW), folder("data", FILES))
HELD = objects(RAW, folders=(FILES,))
OBJECT, LISTING = key_of(md5(RAW)), key_of(listing_digest(FILES))
EMPTY_ETAG = f'"{md5(RAW)}-1"'


def check(root: Path, *, read: bool = False) -> tuple[Finding, ...]:
    return check_remote(str(root), WANTED, storages=Storages(), read=read)


# --- Folders ---


def link_to_the_same_bytes(root: Path, key: str) -> None:
    (root / key).rename(root.parent / "elsewhere")
    (root / key).symlink_to(root.parent / "elsewhere")


def link_to_a_secret(root: Path, key: str) -> None:
    (root / key).unlink()
    (root / key).symlink_to("/etc/passwd")


def link_inside(root: Path, key: str) -> None:
    (root / key).rename(root / "elsewhere")
    (root / key).symlink_to(root / "elsewhere")


def link_to_itself(root: Path, key: str) -> None:
    (root / key).unlink()
    (root / key).symlink_to(root / key)


def folder_behind_a_link(root: Path, key: str) -> None:
    (root / key).parent.rename(root.parent / "elsewhere")
    (root / key).parent.symlink_to(root.parent / "elsewhere")


def all_behind_a_link(root: Path, key: str) -> None:
    (root / "files").rename(root.parent / "elsewhere")
    (root / "files").symlink_to(root.parent / "elsewhere")


def fifo(root: Path, key: str) -> None:
    (root / key).unlink()
    os.mkfifo(root / key)


def listening_socket(root: Path, key: str) -> None:
    (root / key).unlink()
    # Paths of sockets are short.
    before = os.getcwd()
    os.chdir((root / key).parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind((root / key).name)
    finally:
        os.chdir(before)


def folder_full_of_files(root: Path, key: str) -> None:
    (root / key).unlink()
    (root / key).mkdir()
    for number in range(100):
        (root / key / str(number)).write_bytes(RAW)


def file_of_a_petabyte(root: Path, key: str) -> None:
    with (root / key).open("r+b") as target:
        target.truncate(1 << 42)


@pytest.mark.slow
@pytest.mark.parametrize("key", [OBJECT, LISTING], ids=["object", "listing"])
@pytest.mark.parametrize(
    "tamper",
    [link_to_the_same_bytes, link_to_a_secret, link_inside, link_to_itself, folder_behind_a_link, all_behind_a_link,
     fifo, listening_socket, folder_full_of_files, file_of_a_petabyte],
    ids=lambda tamper: tamper.__name__,
)  # fmt: skip
def test_what_lies_in_the_place_of_an_object(tmp_path: Path, tamper: Callable[..., None], key: str) -> None:
    root = write_remote(tmp_path / "remote", HELD)
    assert check(root) == ()
    tamper(root, key)
    start = time.monotonic()
    found = check(root)
    assert time.monotonic() - start < 20
    assert {finding.code for finding in found} == {"REMOTE_CORRUPT"}
    assert {finding.severity for finding in found} == {"refusal"}
    assert ("raw.csv" if key == OBJECT else "data") in {finding.subject for finding in found}
    assert "root:" not in str([finding.as_dict() for finding in found])


def test_modes_and_times_earn_no_trust(tmp_path: Path) -> None:
    """DVC takes an object of mode 0444 for checked, and removes one of mode 0644 that is wrong."""
    root = write_remote(tmp_path / "remote", HELD)
    for mode in (0o444, 0o644):
        (root / OBJECT).chmod(0o644)
        info = (root / OBJECT).stat()
        (root / OBJECT).write_bytes(b"RAW\n")
        os.utime(root / OBJECT, ns=(info.st_atime_ns, info.st_mtime_ns))
        (root / OBJECT).chmod(mode)
        assert codes(check(root)) == [("REMOTE_CORRUPT", "raw.csv")]
        assert (root / OBJECT).read_bytes() == b"RAW\n"
        assert (root / OBJECT).stat().st_mode & 0o777 == mode


@pytest.mark.slow
def test_an_object_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"x" * (5 << 20)
    root = write_remote(tmp_path / "remote", objects(data))
    real = LocalReader.read

    def read(self: LocalReader, entry: Any, consume: Callable[[Any], object]) -> int:
        def both(piece: Any) -> None:
            consume(piece)
            os.utime(root / key_of(md5(data)))

        return real(self, entry, both)

    monkeypatch.setattr(LocalReader, "read", read)
    found = check_remote(str(root), [file("large", data)], storages=Storages())
    assert codes(found) == [("ARTIFACT_CHANGED", "large")]


@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(5, "Input/output error")], ids=["denied", "io"])
def test_what_cannot_be_read_is_never_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    root = write_remote(tmp_path / "remote", HELD)
    real = os.open

    def failing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if path in OBJECT.split("/")[-1]:
            raise error
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", failing)
    found = check(root)
    assert {finding.severity for finding in found} == {"unverifiable"}
    assert "raw.csv" in {finding.subject for finding in found}


def test_a_listing_with_paths_for_digests(tmp_path: Path) -> None:
    """A digest becomes a path on the remote, so it must be one."""
    secret = tmp_path / "secret"
    secret.write_bytes(RAW)
    data = b'[{"md5": "../../../secret", "relpath": "a"}]'
    item = folder("data", FILES)._replace(digest=f"{md5(data)}.dir", files=None)
    root = write_remote(tmp_path / "remote", {key_of(item.digest): data})
    assert codes(check_remote(str(root), [item], storages=Storages())) == [("REMOTE_CORRUPT", "data")]


# --- Stores ---


class Endless:
    """A body that never ends."""

    def __init__(self) -> None:
        self.sent = 0

    def read(self, amount: int) -> bytes:
        self.sent += amount
        return b"x" * amount

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        while True:
            self.sent += size
            yield b"x" * size

    def close(self) -> None:
        pass


@pytest.mark.timeout(60)
def test_a_body_without_end() -> None:
    body = Endless()
    store = Store(in_bucket({**HELD, OBJECT: Held(RAW, EMPTY_ETAG, body=lambda: body)}))
    assert codes(store.check(*WANTED, read=True)) == [("ARTIFACT_CHANGED", "raw.csv")]
    assert body.sent <= 4 << 20


@pytest.mark.timeout(60)
def test_a_listing_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.lineage.remote.MAX_DIRECTORY", 1 << 20)
    body = Endless()
    store = Store(in_bucket({**HELD, LISTING: Held(b"[]", body=lambda: body)}))
    found = store.check(*WANTED)
    assert {finding.subject for finding in found} == {"data"}
    assert all(finding.severity in ("refusal", "unverifiable") for finding in found)
    assert body.sent <= 2 << 20
    store = Store(in_bucket({**HELD, LISTING: Held(b"[]", size=MAX_DIRECTORY + 1, body=lambda: body)}))
    assert codes(store.check(*WANTED)) == [("REMOTE_CORRUPT", "data")]


def test_a_body_that_is_cut_short() -> None:
    store = Store(in_bucket({OBJECT: Held(RAW, EMPTY_ETAG, body=lambda: Body(RAW[:2]))}))
    assert codes(store.check(WANTED[0], read=True)) == [("ARTIFACT_CHANGED", "raw.csv")]


def test_an_object_that_is_replaced_between_question_and_read() -> None:
    store = Store(in_bucket({OBJECT: Held(RAW, EMPTY_ETAG)}))
    real = store.head_object

    def head(**arguments: Any) -> Any:
        answer = real(**arguments)
        store.held["dvc/" + OBJECT] = Held(b"evil", '"0-1"')
        return answer

    store.head_object = head  # type: ignore[method-assign]
    assert codes(store.check(WANTED[0], read=True)) == [("ARTIFACT_CHANGED", "raw.csv")]


def test_an_object_that_vanishes_between_question_and_read() -> None:
    store = Store(in_bucket({OBJECT: Held(RAW, EMPTY_ETAG)}))
    real = store.head_object

    def head(**arguments: Any) -> Any:
        answer = real(**arguments)
        store.held.clear()
        return answer

    store.head_object = head  # type: ignore[method-assign]
    assert codes(store.check(WANTED[0], read=True)) == [("ARTIFACT_CHANGED", "raw.csv")]


def test_an_object_larger_than_recorded_is_not_read() -> None:
    body = Endless()
    store = Store(in_bucket({OBJECT: Held(RAW, EMPTY_ETAG, size=1 << 50, body=lambda: body)}))
    assert codes(store.check(WANTED[0], read=True)) == [("REMOTE_CORRUPT", "raw.csv")]
    assert store.count("GET") == 0
    # Of a file in a folder the size is not recorded, but that of the folder is.
    held = {**HELD, key_of(md5(b"1,2\n")): Held(b"1,2\n", EMPTY_ETAG, size=1 << 50)}
    store = Store(in_bucket(held))
    assert codes(store.check(*WANTED, read=True)) == [("REMOTE_CORRUPT", "data/a.csv")]


def many(count: int) -> tuple[list[Any], dict[str, Any]]:
    data = [b"%d" % number for number in range(count)]
    return [file(f"f{number}", one) for number, one in enumerate(data)], objects(*data)


@pytest.mark.parametrize(
    "page",
    [
        {"Contents": [{"Key": "dvc/files/md5/" + name, "Size": 1, "ETag": '"x"'} for name in
                      ("../../../etc/passwd", "/", "", "\x1b[31m", "a\u202eb", "ab/" + "0" * 30 + "/", "x" * 2000)]},
        {"Contents": [{}]},
        {"Contents": [{"Key": "dvc/" + key_of(md5(b"1"))}]},
        {"Contents": [{"Key": "dvc/" + key_of(md5(b"1")), "Size": 1, "ETag": None}]},
        {"Contents": [{"Key": "elsewhere/" + key_of(md5(b"1")), "Size": 1, "ETag": f'"{md5(b"1")}"'}]},
        {},
    ],
    ids=["odd-names", "empty-entry", "no-size-no-etag", "no-etag", "of-another-prefix", "nothing"],
)  # fmt: skip
def test_odd_listings(page: dict[str, Any]) -> None:
    wanted, held = many(40)
    store = Store(in_bucket(held))
    store.list_objects_v2 = lambda **_: {"IsTruncated": False, **page}  # type: ignore[method-assign]
    found = store.check(*wanted)
    # What a complete listing does not hold is missing; what it holds badly is asked for by name.
    assert {finding.code for finding in found} == {"REMOTE_MISSING"}
    assert found[0].severity == "refusal"


def test_a_listing_that_breaks_off() -> None:
    wanted, held = many(40)
    store = Store(in_bucket(held))
    store.list_objects_v2 = lambda **_: {"IsTruncated": True, "Contents": []}  # type: ignore[method-assign]
    found = store.check(*wanted)
    assert {(finding.code, finding.severity) for finding in found} == {("BACKEND_UNAVAILABLE", "unverifiable")}


@pytest.mark.timeout(60)
def test_a_listing_that_goes_in_circles() -> None:
    wanted, held = many(40)
    store = Store(in_bucket(held))
    pages: list[int] = []

    def circle(**_: Any) -> dict[str, Any]:
        pages.append(1)
        return {"IsTruncated": True, "NextContinuationToken": "again", "Contents": []}

    store.list_objects_v2 = circle  # type: ignore[method-assign]
    assert store.check(*wanted) == ()
    assert len(pages) == 21


def test_answers_without_the_usual_members() -> None:
    store = Store(in_bucket(HELD))
    store.head_object = lambda **_: {}  # type: ignore[method-assign]
    (found,) = store.check(WANTED[0])
    assert (found.code, found.severity) == ("BACKEND_UNAVAILABLE", "unverifiable")
    store.head_object = lambda **_: {"ContentLength": len(RAW)}  # type: ignore[method-assign]
    for read in (False, True):
        assert codes(store.check(WANTED[0], read=read)) == [("REMOTE_UNPROVED", "raw.csv")]


@pytest.mark.parametrize(
    "etag",
    ["0" * 32, f"{md5(RAW)}-1", f" {md5(RAW)}", f"{md5(RAW)}\n", f"'{md5(RAW)}'", f'"{md5(RAW)}"x', md5(RAW)[:31],
     md5(RAW).translate({ord("a"): "\u0430"})],
)  # fmt: skip
def test_nothing_but_the_md5_is_taken_for_it(etag: str) -> None:
    store = Store(in_bucket({OBJECT: Held(b"RAW\n", etag)}))
    assert store.check(WANTED[0]) != ()
    assert store.check(WANTED[0], read=True) != ()


def test_the_store_is_only_read() -> None:
    store = Store(in_bucket({**HELD, OBJECT: b"evil"}))
    store.check(*WANTED, read=True)
    assert {operation for operation, _ in store.asked} <= {"LIST", "HEAD", "GET"}
    assert not {name for name in dir(store) if name.startswith(("put_", "delete_", "copy_", "create_"))}


# --- Configurations ---


def test_the_repository_names_no_endpoint_and_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a repository sends our questions, signed with our keys, wherever it likes."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            asked.append(connection.recv(4096))
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    configuration = f"""\
[core]
    remote = evil
['remote "evil"']
    url = s3://bucket/dvc
    endpointurl = http://127.0.0.1:{server.getsockname()[1]}
    access_key_id = AKEVIL
    secret_access_key = secret
    profile = evil
    credentialpath = {tmp_path}/credentials
    configpath = {tmp_path}/configuration
""".encode()
    store = Store(in_bucket(HELD))
    try:
        assert check_remote(remote_url(configuration, None), WANTED, storages=Storages(store), root="/r") == ()
    finally:
        server.close()
    assert asked == []
    assert store.asked


@pytest.mark.parametrize("url", ["/etc", 12 * "../" + "etc", "file:///etc"])
def test_a_configuration_may_name_any_folder_and_learns_nothing(tmp_path: Path, url: str) -> None:
    """Only names that are digests are opened there, and only whether they fit is said."""
    (tmp_path / "repo/.dvc").mkdir(parents=True)
    found = check_remote(url, WANTED, storages=Storages(), root=str(tmp_path / "repo"))
    assert {finding.code for finding in found} == {"REMOTE_MISSING"}


def test_what_is_not_committed_names_no_remote(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_REMOTE", "DVC_CONFIG", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, "/tmp")
    monkeypatch.setenv("AWS_PROFILE", "evil")
    configuration = b"[core]\nremote = a\n['remote \"a\"']\nurl = ${HOME}/$DVC_REMOTE\n"
    assert remote_url(configuration, None) == "${HOME}/$DVC_REMOTE"


@pytest.mark.parametrize("error", [ArtifactError, UnavailableError])
def test_no_error_of_one_object_hides_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    root = write_remote(tmp_path / "remote", {**HELD, OBJECT: b"RAW\n"})
    from sealflow.lineage.content import WorkTree

    real = WorkTree.look

    def look(self: WorkTree, name: str, *, legacy: bool = False) -> Any:
        if name == key_of(md5(b"1,2\n")):
            raise error("odd")
        return real(self, name, legacy=legacy)

    monkeypatch.setattr(WorkTree, "look", look)
    found = check(root)
    assert ("REMOTE_CORRUPT", "raw.csv") in codes(found)
    assert "data/a.csv" in {finding.subject for finding in found}


def test_listings_are_read_by_one_parser() -> None:
    data = listing({**FILES, "../x": b""})
    item = folder("data", FILES, size=None)._replace(digest=f"{md5(data)}.dir", files=None)
    store = Store(in_bucket({**HELD, key_of(item.digest): data}))
    assert codes(store.check(item)) == [("DIR_MANIFEST_ESCAPE", "data")]
