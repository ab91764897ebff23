"""L4 on remotes that are folders and on an S3 client that says what it was told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow.findings import Finding
from sealflow.lineage.check import check_repository
from sealflow.lineage.content import Content, FileContent
from sealflow.lineage.remote import Wanted, check_remote, wanted_objects
from sealflow.storage import Storages
from tests.core.lineage.remotes import (
    KMS,
    Held,
    Store,
    checksum,
    codes,
    file,
    folder,
    in_bucket,
    key_of,
    listing,
    listing_digest,
    objects,
    sha256,
    write_remote,
)
from tests.core.lineage.repos import lock, md5, out, simple, write
from tests.trees import flip_byte

FILES = {"a.csv": b"1,2\n", "sub/b.csv": b"3,4\n", "empty": b"", "ü\n": b"x"}
RAW = b"raw\n"
WANTED = (file("raw.csv", RAW), folder("data", FILES))
HELD = objects(RAW, folders=(FILES,))

Check = Callable[..., tuple[Finding, ...]]


def in_folder(root: Path) -> Check:
    def check(held: Any, *wanted: Wanted, **options: Any) -> tuple[Finding, ...]:
        shutil.rmtree(root / "remote", ignore_errors=True)
        return check_remote(str(write_remote(root / "remote", held)), wanted, storages=Storages(), **options)

    return check


def in_s3(root: Path) -> Check:
    def check(held: Any, *wanted: Wanted, **options: Any) -> tuple[Finding, ...]:
        return Store(in_bucket(held)).check(*wanted, **options)

    return check


@pytest.fixture(params=[in_folder, in_s3], ids=["folder", "s3"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Check:
    """Check objects on a remote that holds other objects."""
    return request.param(tmp_path)  # type: ignore[no-any-return]


# --- Both kinds ---


def test_whole(check: Check) -> None:
    assert check(HELD, *WANTED) == ()
    assert check(HELD, *WANTED, read=True) == ()


def test_nothing_wanted(check: Check) -> None:
    assert check({}) == ()


def test_more_than_was_asked_for_is_nobodys_business(check: Check) -> None:
    more = {key_of(md5(b"o")): b"other bytes", "files/md5/zz": b"", "runs/ab/cd": b"", "files/md5/ab/cd/ef": b""}
    assert check({**HELD, **more}, *WANTED) == ()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({key_of(md5(RAW)): None}, [("REMOTE_MISSING", "raw.csv")]),
        ({key_of(md5(RAW)): b"evil"}, [("REMOTE_CORRUPT", "raw.csv")]),
        ({key_of(md5(RAW)): b"evil and longer"}, [("REMOTE_CORRUPT", "raw.csv")]),
        ({key_of(md5(RAW)): b""}, [("REMOTE_CORRUPT", "raw.csv")]),
        ({key_of(md5(b"1,2\n")): None}, [("REMOTE_MISSING", "data/a.csv")]),
        ({key_of(md5(b"3,4\n")): b"9,9\n"}, [("REMOTE_CORRUPT", "data/sub/b.csv")]),
        ({key_of(md5(b"")): b"1"}, [("REMOTE_CORRUPT", "data/empty")]),
        ({key_of(md5(b"x")): b"much more than the whole folder holds"}, [("REMOTE_CORRUPT", "data/ü\\u000a")]),
        ({key_of(listing_digest(FILES)): None}, [("REMOTE_MISSING", "data")]),
        ({key_of(listing_digest(FILES)): listing({**FILES, "c": b""})}, [("REMOTE_CORRUPT", "data")]),
        ({key_of(listing_digest(FILES)): b"[]"}, [("REMOTE_CORRUPT", "data")]),
        ({key_of(listing_digest(FILES)): b""}, [("REMOTE_CORRUPT", "data")]),
        # Without its listing the folder's files are still known from the bytes that were checked.
        ({key_of(listing_digest(FILES)): None, key_of(md5(b"x")): None},
         [("REMOTE_MISSING", "data"), ("REMOTE_MISSING", "data/ü\\u000a")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [False, True], ids=["asked", "read"])
def test_tampered(check: Check, changed: dict[str, bytes | None], expected: list[Any], read: bool) -> None:
    held = {key: data for key, data in {**HELD, **changed}.items() if data is not None}
    found = check(held, *WANTED, read=read)
    assert codes(found) == expected
    assert {finding.severity for finding in found} == {"refusal"}


def test_a_folder_whose_bytes_nobody_checked_is_followed_by_its_listing(check: Check) -> None:
    held = {**HELD, key_of(md5(b"x")): b"y"}
    assert codes(check(held, folder("data", FILES, files=None))) == [("REMOTE_CORRUPT", "data/ü\\u000a")]


def test_a_listing_that_is_another_one_is_not_followed(check: Check) -> None:
    """Nobody knows what the folder holds, so only the listing's own digest can speak against it."""
    item = folder("data", FILES, files=None, size=None)
    held = {**HELD, **objects(b"evil"), key_of(item.digest): listing({"evil": b"evil"})}
    (found,) = check(held, item)
    assert (found.code, found.subject, found.expected) == ("REMOTE_CORRUPT", "data", item.digest)


def test_a_listing_that_is_none(check: Check) -> None:
    for data in (b"{", b"{}", b"[1]", b'[{"md5": "x", "relpath": "a"}]', b'[{"relpath": "a"}]', b"[" * 100):
        item = Wanted("data", f"{md5(data)}.dir", None, False, None)
        assert codes(check({key_of(item.digest): data}, item)) == [("REMOTE_CORRUPT", "data")]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "./a", "a//b", "", ".", "a/"])
def test_a_listing_that_leaves_its_folder(check: Check, name: str) -> None:
    files = {name: b"x"}
    item = folder("data", files, files=None)
    assert codes(check(objects(folders=(files,)), item)) == [("DIR_MANIFEST_ESCAPE", "data")]


def test_a_listing_that_fits_its_name_and_not_the_bytes(check: Check) -> None:
    """Whoever has a collision of MD5 could make one; here the caller's record is the other one."""
    item = folder("data", FILES)._replace(files={"a.csv": md5(b"1,2\n")})
    assert ("REMOTE_CORRUPT", "data") in codes(check(HELD, item))


def signed(**more: Any) -> Wanted:
    """What is known of a folder whose SHA-256 digests were signed: nobody made MD5 digests of its files."""
    known = {name: (len(data), sha256(data)) for name, data in FILES.items()}
    return folder("data", FILES, files=None, checked={**known, **more})


def test_a_folder_whose_sha256_digests_are_known(check: Check) -> None:
    assert check(HELD, signed()) == ()
    assert codes(check(HELD, signed(**{"a.csv": (5, sha256(b"1,2\n"))}))) == [("REMOTE_CORRUPT", "data/a.csv")]
    assert codes(check(HELD, signed(more=(0, "")))) == [("REMOTE_CORRUPT", "data")]
    held = {**HELD, key_of(md5(b"1,2\n")): b"evil"}
    assert codes(check(held, signed())) == [("REMOTE_CORRUPT", "data/a.csv")]


def test_twins_in_a_folder_are_found_by_sha256(tmp_path: Path) -> None:
    twin = signed(**{"a.csv": (4, sha256(b"twin"))})
    root = write_remote(tmp_path / "remote", HELD)
    assert codes(check_remote(str(root), [twin], storages=Storages())) == [("REMOTE_CORRUPT", "data/a.csv")]
    held = {**HELD, key_of(md5(b"1,2\n")): Held(b"1,2\n", '"0-2"', head=checksum(b"1,2\n"))}
    assert codes(Store(in_bucket(held)).check(twin)) == [("REMOTE_CORRUPT", "data/a.csv")]
    assert Store(in_bucket(held)).check(signed()) == ()


def test_each_object_is_reported_once(check: Check) -> None:
    held = {**HELD, key_of(md5(RAW)): b"evil"}
    again = (file("copy.csv", RAW), folder("other", {"raw": RAW}))
    found = check({**held, **objects(folders=({"raw": b"evil"},)), key_of(listing_digest({"raw": RAW})):
                   listing({"raw": RAW})}, *WANTED, *again)  # fmt: skip
    assert codes(found) == [("REMOTE_CORRUPT", "raw.csv")]


def test_many_alike_are_counted(check: Check) -> None:
    files = {f"{number:03}": b"%d" % number for number in range(100)}
    held = {key_of(listing_digest(files)): listing(files)}
    found = check(held, folder("data", files))
    assert len(found) == 21
    assert {finding.code for finding in found} == {"REMOTE_MISSING"}
    assert "80 more objects" in found[-1].message


def test_twins_of_one_md5_that_are_known_to_differ(check: Check) -> None:
    twins = (file("a", RAW, sha256=sha256(RAW)), file("b", RAW, sha256=sha256(b"twin")))
    assert codes(check(HELD, *twins)) == [("REMOTE_CORRUPT", "a")]
    sizes = (file("a", RAW), file("b", RAW, size=5))
    assert codes(check(HELD, *sizes)) == [("REMOTE_CORRUPT", "a")]


def test_objects_of_dvc_2(check: Check) -> None:
    text = b"one\r\ntwo\r\n"
    unix = text.replace(b"\r\n", b"\n")
    wanted = (
        file("text", unix, legacy=True, size=len(text)),
        folder("data", {"t": unix}, legacy=True, size=len(text)),
    )
    held = objects(folders=({"t": unix},), legacy=True)
    assert check(held, *wanted) == ()
    assert codes(check(objects(unix, folders=({"t": unix},)), *wanted)) == [
        ("REMOTE_MISSING", "data"),
        ("REMOTE_MISSING", "text"),
    ]


@pytest.mark.parametrize("digest", ["", "x" * 32, "A" * 32, "0" * 31, "0" * 33, "../../etc/passwd", "0" * 32 + ".DIR"])
def test_no_digest_becomes_a_path(check: Check, digest: str) -> None:
    with pytest.raises(UsageError):
        check({}, Wanted("x", digest, None, False, None))


# --- Folders ---


def test_what_dvc_2_converted_is_compared_as_it_did(tmp_path: Path) -> None:
    text = b"one\r\ntwo\r\n"
    item = file("text", text.replace(b"\r\n", b"\n"), legacy=True)
    root = write_remote(tmp_path / "remote", {key_of(item.digest, True): text})
    assert check_remote(str(root), [item], storages=Storages()) == ()
    (root / key_of(item.digest, True)).write_bytes(b"one\r\nTWO\r\n")
    assert codes(check_remote(str(root), [item], storages=Storages())) == [("REMOTE_CORRUPT", "text")]


def test_the_twin_of_an_md5_is_found_by_sha256(tmp_path: Path) -> None:
    # As if the bytes that lie there had the MD5 of others.
    root = write_remote(tmp_path / "remote", HELD)
    item = file("raw.csv", RAW, sha256=sha256(b"twin"))
    (found,) = check_remote(str(root), [item], storages=Storages())
    assert (found.code, found.expected) == ("REMOTE_CORRUPT", f"sha256:{sha256(b'twin')}")
    assert check_remote(str(root), [file("raw.csv", RAW, sha256=sha256(RAW))], storages=Storages()) == ()


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "{0}/", "file://{0}/"])
def test_locations_of_a_folder(tmp_path: Path, form: str) -> None:
    root = write_remote(tmp_path / "remote", HELD)
    assert check_remote(form.format(root), WANTED, storages=Storages(), root="/elsewhere") == ()


def test_escapes_of_a_location_that_the_caller_names(tmp_path: Path) -> None:
    write_remote(tmp_path / "a b", HELD)
    for host in ("", "localhost"):
        assert check_remote(f"file://{host}{tmp_path}/a%20b", WANTED, storages=Storages()) == ()


def test_a_relative_path_is_relative_to_the_folder_of_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_remote(tmp_path / "remote", HELD)
    (tmp_path / "repo/.dvc").mkdir(parents=True)
    assert check_remote("../../remote", WANTED, storages=Storages(), root=str(tmp_path / "repo")) == ()
    # The caller's own is relative to where the caller is.
    monkeypatch.chdir(tmp_path / "repo")
    assert check_remote("../remote", WANTED, storages=Storages()) == ()


def test_the_way_to_a_folder_may_lead_through_links(tmp_path: Path) -> None:
    write_remote(tmp_path / "real/remote", HELD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert check_remote(str(tmp_path / "link/remote"), WANTED, storages=Storages()) == ()


def test_large_objects_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.storage.local.LocalStorage.parallel", 4)
    data = [os.urandom(5 << 20) for _ in range(4)]
    root = write_remote(tmp_path / "remote", objects(*data))
    wanted = [file(f"f{number}", one) for number, one in enumerate(data)]
    assert check_remote(str(root), wanted, storages=Storages()) == ()
    flip_byte(root / key_of(md5(data[2])))
    assert codes(check_remote(str(root), wanted, storages=Storages())) == [("REMOTE_CORRUPT", "f2")]


# --- What no check of a remote can do ---


@pytest.mark.parametrize(
    "url",
    ["gs://b/x", "azure://c/x", "abfs://c/x", "ssh://u:secret@h/x", "https://u:secret@h/x?sig=secret", "gdrive://x",
     "hdfs://h/x", "oss://b", "webdavs://h/x", "remote://x", "s3+x://b", "1x://b", "_x://b", "s3://", "s3:///x",
     "s3://key:secret@b/x", "s3://b/x?versionId=secret", "s3://b/x#y", "s3://b//x", "s3://b/../x", "s3://b/x/..",
     "s3://b/x\x1b", "file://host/x", "file:///x?y", "file://localhost/x",
     "file:///a%20b", "FILE:///x", "file://x", "memory://x", "gs::s3://b"],
)  # fmt: skip
def test_remotes_that_cannot_be_checked(url: str) -> None:
    (found,) = check_remote(url, WANTED, storages=Storages(Store({})), root="/repo")
    assert (found.code, found.severity) == ("REMOTE_UNSUPPORTED", "unverifiable")
    assert "secret" not in str(found.as_dict())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in ("gone", "file"):
        (found,) = check_remote(str(tmp_path / url), WANTED, storages=Storages())
        assert (found.code, found.severity) == ("BACKEND_UNAVAILABLE", "unverifiable")


def test_a_home_folder_of_the_configuration_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write_remote(tmp_path, HELD)))
    (found,) = check_remote("~", WANTED, storages=Storages(), root=str(tmp_path))
    assert found.code == "REMOTE_UNSUPPORTED"


# --- What S3 is asked ---


def many(count: int) -> tuple[tuple[Wanted, ...], dict[str, bytes]]:
    data = [b"%d" % number for number in range(count)]
    return tuple(file(f"f{number}", one) for number, one in enumerate(data)), objects(*data)


def test_few_objects_are_asked_for_one_by_one() -> None:
    wanted, held = many(32)
    store = Store(in_bucket(held))
    assert store.check(*wanted) == ()
    assert (store.count("LIST"), store.count("HEAD"), store.count("GET")) == (0, 32, 0)


def test_many_objects_are_listed() -> None:
    wanted, held = many(500)
    store = Store(in_bucket(held), page=100)
    assert store.check(*wanted) == ()
    assert (store.count("LIST"), store.count("HEAD"), store.count("GET")) == (5, 0, 0)
    del store.held["dvc/" + key_of(md5(b"7"))]
    store.held["dvc/" + key_of(md5(b"8"))] = Held(b"!")
    assert codes(store.check(*wanted)) == [("REMOTE_MISSING", "f7"), ("REMOTE_CORRUPT", "f8")]
    # Only what looks wrong is asked for again.
    assert store.asked[-1] == ("HEAD", "dvc/" + key_of(md5(b"8")))


def test_many_objects_of_dvc_2_are_listed_too() -> None:
    data = [b"%d" % number for number in range(50)]
    store = Store(in_bucket(objects(*data, legacy=True)), page=20)
    assert store.check(*(file(str(number), one, legacy=True) for number, one in enumerate(data))) == ()
    assert (store.count("LIST"), store.count("HEAD")) == (3, 0)


def test_a_listing_has_an_end_though_the_remote_has_none() -> None:
    wanted, held = many(40)
    much = {f"files/md5/00/{number:030x}": b"" for number in range(5000)}
    store = Store(in_bucket({**much, **held}), page=10)
    assert store.check(*wanted) == ()
    assert store.count("LIST") == 21
    assert 0 < store.count("HEAD") <= 40


def test_who_may_not_list_may_still_ask() -> None:
    wanted, held = many(40)
    store = Store(in_bucket(held))
    store.errors["LIST"] = "AccessDenied"
    assert store.check(*wanted) == ()
    assert store.count("HEAD") == 40


@pytest.mark.parametrize("count", [5, 40])
@pytest.mark.parametrize(("error", "code"), [("InternalError", "BACKEND_UNAVAILABLE"), ("403", "PERMISSION_DENIED"),
                                             ("NoSuchBucket", "BACKEND_UNAVAILABLE")])  # fmt: skip
def test_a_store_out_of_reach_is_one_unverifiable_finding(count: int, error: str, code: str) -> None:
    wanted, held = many(count)
    store = Store(in_bucket(held))
    store.errors = dict.fromkeys(("LIST", "HEAD", "GET"), error)
    found = store.check(*wanted, folder("data", FILES), read=True)
    assert {(finding.code, finding.severity) for finding in found} == {(code, "unverifiable")}
    assert len(found) == 2
    assert "what .dvc/config says of them is not used" in found[0].next_step


def test_a_missing_bucket_is_no_missing_object() -> None:
    """An answer to HEAD has no body that would tell the two apart."""
    store = Store({})
    store.errors["LIST"] = "NoSuchBucket"
    (found,) = store.check(file("raw.csv", RAW))
    assert (found.code, found.severity) == ("BACKEND_UNAVAILABLE", "unverifiable")
    store = Store({})
    assert codes(store.check(file("raw.csv", RAW), file("other", b"o"))) == [
        ("REMOTE_MISSING", "raw.csv"),
        ("REMOTE_MISSING", "other"),
    ]


def test_a_store_that_always_fails_is_not_asked_for_ever() -> None:
    wanted, held = many(1000)
    store = Store(in_bucket(held))
    store.errors = {"LIST": "AccessDenied", "HEAD": "SlowDown"}
    found = store.check(*wanted)
    assert {finding.severity for finding in found} == {"unverifiable"}
    assert store.count("HEAD") <= 40


# --- What S3 says, and what it proves: (how the object is held, findings when asked, findings when read) ---

EVIL = b"evil"
PARTS = f'"{md5(RAW)}-2"'
UNPROVED = ["REMOTE_UNPROVED"]
CORRUPT = ["REMOTE_CORRUPT"]
KNOWN = sha256(RAW)
ANSWERS: list[tuple[str, Held, str, list[str], list[str]]] = [
    ("etag", Held(RAW), "", [], []),
    ("etag-without-quotes", Held(RAW, md5(RAW)), "", [], []),
    ("etag-in-upper-case", Held(RAW, f'"{md5(RAW).upper()}"'), "", [], []),
    ("etag-of-other-bytes", Held(EVIL), "", CORRUPT, CORRUPT),
    ("etag-of-other-bytes-sse-s3", Held(EVIL, head={"ServerSideEncryption": "AES256"}), "", CORRUPT, CORRUPT),
    ("etag-random-kms", Held(RAW, '"' + "0" * 32 + '"', head=KMS), "", UNPROVED, []),
    ("etag-random-kms-evil", Held(EVIL, '"' + "0" * 32 + '"', head=KMS), "", UNPROVED, CORRUPT),
    ("etag-random-sse-c", Held(RAW, '"' + "0" * 32 + '"', head={"SSECustomerAlgorithm": "AES256"}), "", UNPROVED, []),
    ("etag-random-dsse", Held(RAW, '"' + "0" * 32 + '"', head={"ServerSideEncryption": "aws:kms:dsse"}), "",
     UNPROVED, []),
    # A store whose ETags are something else altogether is accused wrongly, unless the bytes are read.
    ("etag-random", Held(RAW, '"' + "0" * 32 + '"'), "", CORRUPT, []),
    ("etag-of-parts", Held(RAW, PARTS), "", UNPROVED, []),
    ("etag-of-parts-evil", Held(EVIL, PARTS), "", UNPROVED, CORRUPT),
    ("etag-weak", Held(RAW, f'W/"{md5(RAW)}"'), "", UNPROVED, []),
    ("etag-odd", Held(RAW, "not-an-etag"), "", UNPROVED, []),
    ("etag-absent", Held(RAW, ""), "", UNPROVED, UNPROVED),
    ("kms-with-sha256", Held(RAW, '"' + "0" * 32 + '"', head={**KMS, **checksum(RAW)}), KNOWN, [], []),
    ("kms-with-other-sha256", Held(RAW, '"' + "0" * 32 + '"', head={**KMS, **checksum(EVIL)}), KNOWN, CORRUPT, CORRUPT),
    ("kms-with-sha256-nobody-knows", Held(RAW, '"' + "0" * 32 + '"', head={**KMS, **checksum(RAW)}), "", UNPROVED, []),
    ("parts-with-sha256", Held(RAW, PARTS, head=checksum(RAW)), KNOWN, [], []),
    ("parts-with-composite-sha256", Held(RAW, PARTS, head=checksum(RAW, "COMPOSITE")), KNOWN, UNPROVED, []),
    ("parts-with-sha256-of-no-type", Held(RAW, PARTS, head=checksum(RAW, None)), KNOWN, UNPROVED, []),
    ("parts-with-sha256-of-parts", Held(RAW, PARTS, head={"ChecksumSHA256": checksum(RAW)["ChecksumSHA256"] + "-2",
                                                         "ChecksumType": "FULL_OBJECT"}), KNOWN, UNPROVED, []),
    ("parts-with-broken-sha256", Held(RAW, PARTS, head={"ChecksumSHA256": "AAAA", "ChecksumType": "FULL_OBJECT"}),
     KNOWN, UNPROVED, []),
    ("parts-with-md5", Held(RAW, PARTS, head={"ChecksumMD5": "7pwoR3EL0x9w1hzX+bhH2g==", "ChecksumType":
                                              "FULL_OBJECT"}), "", CORRUPT, CORRUPT),
    ("parts-with-crc", Held(RAW, PARTS, head={"ChecksumCRC64NVME": "AAAAAAAAAAA=", "ChecksumType": "FULL_OBJECT"}),
     KNOWN, UNPROVED, []),
    ("etag-and-other-sha256", Held(RAW, head=checksum(EVIL)), KNOWN, CORRUPT, CORRUPT),
    ("read-finds-the-twin", Held(RAW, PARTS), sha256(b"twin"), UNPROVED, CORRUPT),
]  # fmt: skip


@pytest.mark.parametrize(("held", "known", "asked", "read"), [row[1:] for row in ANSWERS], ids=[r[0] for r in ANSWERS])
@pytest.mark.parametrize("listed", [False, True], ids=["head", "listed"])
def test_answers(held: Held, known: str, asked: list[str], read: list[str], listed: bool) -> None:
    other, more = many(40) if listed else ((), {})
    store = Store(in_bucket({**more, key_of(md5(RAW)): held}))
    if listed and asked == CORRUPT and known and held.tag == f'"{md5(RAW)}"':
        # The listing's ETag is proof enough, so nobody asks for the checksum.
        asked = read = []
    for findings, expected in (
        (store.check(file("raw", RAW, sha256=known), *other), asked),
        (store.check(file("raw", RAW, sha256=known), *other, read=True), read),
    ):
        assert [finding.code for finding in findings] == expected
        for finding in findings:
            assert finding.severity == ("unverifiable" if finding.code == "REMOTE_UNPROVED" else "refusal")


def test_an_md5_of_the_whole_object() -> None:
    import base64

    head = {"ChecksumMD5": base64.b64encode(bytes.fromhex(md5(RAW))).decode(), "ChecksumType": "FULL_OBJECT"}
    store = Store(in_bucket({key_of(md5(RAW)): Held(RAW, PARTS, head=head)}))
    assert store.check(file("raw", RAW)) == ()
    store = Store(in_bucket({key_of(md5(RAW), True): Held(RAW, PARTS, head=head)}))
    assert store.check(file("raw", RAW, legacy=True)) == ()


def test_directory_buckets_have_other_etags() -> None:
    store = Store({key_of(md5(RAW)): Held(RAW, '"' + "0" * 32 + '"')})
    assert codes(store.check(file("raw", RAW), url="s3://b--use1-az4--x-s3/")) == [("REMOTE_UNPROVED", "raw")]
    assert store.check(file("raw", RAW), url="s3://b--use1-az4--x-s3/", read=True) == ()


def test_text_that_dvc_2_converted_cannot_be_compared_there() -> None:
    store = Store({key_of(md5(RAW), True): b"raw\r\n"})
    for read in (False, True):
        assert codes(store.check(file("raw", RAW, legacy=True), url="s3://b", read=read)) == [
            ("REMOTE_UNPROVED", "raw")
        ]


# --- What of a repository a remote has to hold ---


def test_what_a_remote_should_hold(tmp_path: Path) -> None:
    root = simple(tmp_path / "r")
    write(
        root,
        {
            "a.csv": "a\n", "b.csv": "b\n", "d/x": "x", "gone.csv": "g", "imported": "i",
            "a.csv.dvc": {"outs": [out("a.csv", "a\n", remote="Other")]},
            "b.csv.dvc": {"outs": [out("b.csv", "b\n", cache=False)]},
            "d.dvc": {"outs": [{**out("d", ""), "md5": listing_digest({"x": b"x"}), "size": 1, "nfiles": 1}]},
            "gone.csv.dvc": {"outs": [out("gone.csv", "before")]},
            "imported.dvc": {
                "frozen": True,
                "deps": [{"path": "i", "repo": {"url": "https://x/y", "rev_lock": "0" * 40}}],
                "outs": [out("imported", "i")],
            },
            "dvc.yaml": {"stages": {"make": {"cmd": "go", "deps": ["in.csv"], "params": ["lr"], "outs": [
                {"out.csv": {"remote": "other"}}], "metrics": [{"m.json": {"cache": False}}]}}},
            "dvc.lock": lock(make={"cmd": "go", "deps": [out("in.csv", "1\n")],
                                   "outs": [out("out.csv", "2\n"), out("m.json", "{}")],
                                   "params": {"params.yaml": {"lr": 0.1}}}),
            "m.json": "{}",
        },
    )  # fmt: skip
    checked = check_repository(str(root), sha256=True)
    stages: Any = checked.stages
    found = wanted_objects(stages, checked.contents)
    assert set(found) == {"", "other", "Other"}
    assert [item.path for item in found["Other"]] == ["a.csv"]
    assert found["other"] == [file("out.csv", b"2\n", sha256=sha256(b"2\n"))]
    default = {item.path: item for item in found[""]}
    assert set(default) == {"d", "gone.csv"}
    assert default["d"] == folder("d", {"x": b"x"}, checked={"x": (1, sha256(b"x"))})
    # What lies there is not what is recorded, so its bytes say nothing of the remote.
    assert default["gone.csv"] == file("gone.csv", b"before")


def test_what_a_remote_should_hold_of_data_whose_sha256_digests_were_signed(tmp_path: Path) -> None:
    entry = {**out("d", ""), "md5": listing_digest({"x": b"x"}), "size": 1, "nfiles": 1}
    root = write(tmp_path / "r", {"d/x": "x", "d.dvc": {"outs": [entry]}})
    checked = check_repository(str(root))
    bound = Content(listing_digest({"x": b"x"}), 1, {"x": FileContent("", 1, sha256(b"x"))})
    stages: Any = checked.stages
    assert wanted_objects(stages, {"d": bound}) == {
        "": [folder("d", {"x": b"x"}, files=None, checked={"x": (1, sha256(b"x"))})]
    }


def test_nothing_of_the_remote_is_changed(tmp_path: Path) -> None:
    root = write_remote(tmp_path / "remote", {**HELD, key_of(md5(RAW)): b"evil"})
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def state() -> dict[str, Any]:
        # Reading may set the time of the last access; nothing else may change.
        found = {}
        for path in [root, *root.rglob("*")]:
            info = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_nlink, data)
        return found

    before = state()
    assert codes(check_remote(str(root), WANTED, storages=Storages())) == [("REMOTE_CORRUPT", "raw.csv")]
    assert state() == before
    for path in root.rglob("*"):
        path.chmod(0o755)
