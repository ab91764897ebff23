"""The plaintext of an encrypted artifact: the same for the same tree, read by stock tar, one thing to all."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import ArtifactError, EvidenceError
from sealflow.manifest import Manifest
from sealflow.manifest.model import Resource
from sealflow.names import check_tree
from sealflow.transfer.archive import (
    END,
    FOLDER,
    INDEX,
    LOCATOR,
    SIGNATURE,
    TAIL,
    Index,
    Member,
    archive_path,
    check_artifact_name,
    check_gap,
    index_length,
    make_index,
    padding,
    parse_index,
    tar_header,
)
from tests.trees import SHAPES

SIZES = (0, 1, 511, 512, 513, 1023, 1024, 1025)
LONG = "n" * 255


def archived(files: dict[str, bytes], *, kind: Any = "tree", name: str = "model", signature: bytes = b"{}") -> bytes:
    """Write an archive from nothing but the functions that an upload uses, file by file."""
    made = bytearray()
    members = []
    for file, content in sorted(files.items()):
        made += tar_header(archive_path(kind, name, file), len(content), executable=file.endswith(".sh"))
        sha256 = hashlib.sha256(content).hexdigest()
        members.append(Member(file, len(made), len(content), sha256, file.endswith(".sh")))
        made += content + bytes(padding(len(content)))
    made += tar_header(SIGNATURE, len(signature))
    place = (len(made), len(signature))
    made += signature + bytes(padding(len(signature)))
    index = make_index(kind, name, members, place)
    return bytes(made + tar_header(INDEX, len(index)) + index + END)


def read(archive: bytes) -> tuple[Index, dict[str, bytes]]:
    """Read an archive as a download does, and compare all that stands between the files."""
    length = index_length(archive[-TAIL:], len(archive))
    start = len(archive) - len(END) - length
    index = parse_index(archive[start : -len(END)], len(archive))
    for begin, end, path, size, executable in index.gaps():
        check_gap(archive[begin:end], path, size, executable)
    return index, {item.name: archive[item.offset : item.end] for item in index.members}


letters = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/\\") | st.sampled_from(
    "aA.é日ß"
)
parts = st.text(letters, min_size=1, max_size=40) | st.sampled_from(
    ["a", "-rf", "--checkpoint=1", " ", "~", "ü" * 120, LONG, "x.sh", "%2e%2e", "é", "name\u2008", ".hidden", "*"]
)
names = st.lists(parts, min_size=1, max_size=4).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for file in draw(st.lists(names, min_size=1, max_size=6)):
        try:
            check_tree([*files, file])
            Manifest("tree", "model", (Resource(file, "0" * 64),))
            _check(file)
        except ArtifactError:
            continue  # no tree that anybody may sign
        files[file] = draw(st.binary(max_size=4)) * draw(st.sampled_from([1, *SIZES]))
    return files or {"a": b""}


def _check(file: str) -> None:
    from sealflow.names import check_name

    check_name(file)


@given(trees(), st.binary(max_size=600))
@example({"a": b""}, b"")
@example({f"{LONG}/" * 15 + LONG: b"x" * 513}, b"{}")
def test_round_trip(files: dict[str, bytes], signature: bytes) -> None:
    archive = archived(files, signature=signature)
    assert len(archive) % 512 == 0
    index, found = read(archive)
    assert found == files
    assert list(found) == sorted(files)
    place, length = index.signature
    assert archive[place : place + length] == signature
    assert index.size == len(archive)
    assert index.manifest().digest == Manifest("tree", "model", tuple(_resources(files))).digest


def _resources(files: dict[str, bytes]) -> Iterator[Resource]:
    for name, content in sorted(files.items()):
        yield Resource(name, hashlib.sha256(content).hexdigest())


@given(trees())
def test_python_reads_the_same(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(archived(files)), mode="r:") as archive:
        found = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
        modes = {item.name: item.mode for item in archive}
        assert {(item.mtime, item.uid, item.gid, item.uname, item.gname) for item in archive} == {(0, 0, 0, "", "")}
    assert list(found)[-2:] == [SIGNATURE, INDEX]
    assert {name: data for name, data in found.items() if not name.startswith(f"{FOLDER}/")} == {
        f"model/{name}": data for name, data in files.items()
    }
    assert modes == {name: 0o755 if name.endswith(".sh") else 0o644 for name in found}


ODD = {
    "a.bin": b"weights",
    "empty": b"",
    "run.sh": b"#!/bin/sh\n",
    "sub/-rf": b"x" * 511,
    "sub/--to-command=id": b"y" * 512,
    "sub/ü/日本.txt": b"z" * 513,
    f"{LONG}/{LONG}/{LONG}": b"long",
    "*": b"star",
    "%s%n": b"",
}


@pytest.mark.parametrize("files", [ODD, *SHAPES.values()], ids=["odd", *SHAPES])
def test_stock_tar_lists_and_unpacks_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "model.tar").write_bytes(archived(files))
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}

    def tar(*arguments: str) -> str:
        done = subprocess.run(
            ["tar", *arguments, "--quoting-style=literal"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert tar("tf", "model.tar").splitlines() == [*(f"model/{name}" for name in sorted(files)), SIGNATURE, INDEX]
    tar("xf", "model.tar", "-C", "out")
    root = tmp_path / "out" / "model"
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == files
    for name in found:
        assert bool((root / name).stat().st_mode & 0o111) is name.endswith(".sh")


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 40, (1 << 63) - 1], ids=str)
@pytest.mark.parametrize("path", ["model/a", "model/" + "n" * 200, "model/ü"], ids=["plain", "long", "non-ascii"])
@pytest.mark.parametrize("executable", [False, True], ids=["plain", "executable"])
def test_header_of_any_size_without_its_bytes(path: str, size: int, executable: bool) -> None:
    """From 8 GiB on the size no longer fits into the old field."""
    header = tar_header(path, size, executable=executable)
    with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as archive:
        info = archive.next()
    assert info is not None
    assert (info.name, info.size, info.offset_data, info.isreg()) == (path, size, len(header), True)
    for fill in (0, 1, 511):
        check_gap(bytes(fill) + header, path, size, executable)
    for wrong in ((path + "x", size, executable), (path, size ^ 1, executable), (path, size, not executable)):
        with pytest.raises(EvidenceError):
            check_gap(header, *wrong)


#: SHA-256 of headers as they stand in artifacts that exist: another Python must not write them in another way.
HEADERS = {
    ("model/a.bin", 7, False): "d937cf6d6d07da254faf5ff41ff3a0c9c1a948cbf52b640ab3495ff6a8d7a09b",
    ("model/run.sh", 8**11 - 1, True): "3b367b18886cb2602b2fa45d1284a149ac8e12f4c2a0c4bcf5f16d2fd9a468c1",
    ("model/big.bin", 8**11, False): "c6638412728854a615b0fb2dcbf81e751495f63576b05fe6b26bb0674344895c",
    ("model/" + "n" * 94, 1, False): "5b470d96bb106f1e5495d51b02da3814247402a45ad2bde06456d168d544a5d5",
    ("model/" + "n" * 95, 1, False): "40f132f080fad1311e8eddb0be48b29ca54d681430c70001425aa5ff9ac2ec78",
    (
        "model/sub/" + "d" * 100 + "/" + "n" * 50,
        1,
        False,
    ): "8e0d9bc4f2f7f25e3e6226b0f8a596705a744e8765d3c573e8c316b333668b77",
    ("model/ü/日本.txt", 513, False): "1a7c9224d5a813169f1ee69b787ad3fe34e0827cbf793fbdfc3531338e99650e",
    (
        "m/" + "ü" * 120 + "/" + "日" * 80,
        1 << 40,
        True,
    ): "44093dafc8d46c633cef42cb1e9d7b6d226c177eaacecefc8b7d131a37a8de38",
}


@pytest.mark.parametrize(("path", "size", "executable"), HEADERS, ids=range(len(HEADERS)))
def test_headers_never_change(path: str, size: int, executable: bool) -> None:
    found = hashlib.sha256(tar_header(path, size, executable=executable)).hexdigest()
    assert found == HEADERS[path, size, executable]


# --- What is no archive of ours ---


def changed(archive: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return an archive whose index says something else, in its right form."""
    length = index_length(archive[-TAIL:], len(archive))
    start = len(archive) - len(END) - length
    body = strictjson.loads(archive[start : -len(END) - LOCATOR], limit=1 << 20, what="")
    change(body)
    line = strictjson.dumps(body)
    fill = padding(len(line) + LOCATOR)
    line += b" " * fill + b"\n%020d\n" % (len(line) + fill + LOCATOR)
    # The header of the index says its length.
    return archive[: start - 512] + tar_header(INDEX, len(line)) + line + END


def swap(body: dict[str, Any]) -> None:
    first, second, *_ = body["files"]
    first[1:3], second[1:3] = second[1:3], first[1:3]


def entry(position: int, value: Any, which: int = 0) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["files"][which][position] = value

    return change


def more(position: int, count: int, which: int = 0) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["files"][which][position] += count

    return change


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "offset-later": more(1, 1),
    "offset-a-block-later": more(1, 512),
    "offset-earlier": more(1, -512),
    "offset-nought": entry(1, 0),
    "offset-beyond": entry(1, 1 << 40),
    "offset-huge": entry(1, 1 << 63),
    "offset-negative": entry(1, -512),
    "offset-a-fraction": entry(1, 512.0),
    "offset-true": entry(1, True),
    "size-more": more(2, 1),
    "size-less": more(2, -1),
    "size-nought": entry(2, 0),
    "size-a-block-more": more(2, 512),
    "size-beyond": entry(2, 1 << 40),
    "size-negative": entry(2, -1),
    "executable": entry(4, 1),
    "executable-twice": entry(4, 2),
    "executable-true": entry(4, True),
    "digest-short": entry(3, "0" * 63),
    "digest-upper-case": entry(3, "A" * 64),
    "digest-none": entry(3, None),
    "name-other": entry(0, "b.bin"),
    "name-parent": entry(0, "../a.bin"),
    "name-absolute": entry(0, "/etc/passwd"),
    "name-empty": entry(0, ""),
    "name-dot": entry(0, "."),
    "name-nul": entry(0, "a\x00"),
    "name-line-feed": entry(0, "a\nb"),
    "name-backslash": entry(0, "a\\b"),
    "name-no-text": entry(0, 3),
    "name-too-long": entry(0, "n" * 256),
    "swapped": swap,
    "unsorted": lambda body: body["files"].reverse(),
    "twice": lambda body: body["files"].insert(0, body["files"][0]),
    "one-missing": lambda body: body["files"].pop(),
    "first-missing": lambda body: body["files"].pop(0),
    "middle-missing": lambda body: body["files"].pop(1),
    "one-more": lambda body: body["files"].append(["z", 1 << 20, 0, "0" * 64, 0]),
    "none": lambda body: body["files"].clear(),
    "case-collision": lambda body: entry(0, "A.BIN", 1)(body),
    "entry-short": lambda body: body["files"][0].pop(),
    "entry-long": lambda body: body["files"][0].append(0),
    "entry-object": lambda body: body["files"].__setitem__(0, {}),
    "files-object": lambda body: body.update(files={}),
    "kind-file": lambda body: body.update(kind="file"),
    "kind-link": lambda body: body.update(kind="link"),
    "kind-none": lambda body: body.pop("kind"),
    "root-other": lambda body: body.update(name="other"),
    "root-parent": lambda body: body.update(name=".."),
    "root-ours": lambda body: body.update(name=".sealflow"),
    "root-ours-in-capitals": lambda body: body.update(name=".SealFlow"),
    "root-with-a-slash": lambda body: body.update(name="model/sub"),
    "root-absolute": lambda body: body.update(name="/model"),
    "version-2": lambda body: body.update(sealflow_index=2),
    "version-true": lambda body: body.update(sealflow_index=True),
    "unknown-member": lambda body: body.update(more=1),
    "signature-elsewhere": lambda body: body.update(signature=[0, 2]),
    "signature-later": lambda body: body["signature"].__setitem__(0, body["signature"][0] + 512),
    "signature-longer": lambda body: body["signature"].__setitem__(1, 3),
    "signature-huge": lambda body: body["signature"].__setitem__(1, 1 << 40),
    "signature-of-three": lambda body: body["signature"].append(0),
    "signature-text": lambda body: body.update(signature=["0", "2"]),
    "signature-in-a-file": lambda body: body.update(signature=body["files"][0][1:3]),
}
SMALL = {"a.bin": b"first weights", "b.sh": b"#!/bin/sh", "sub/c": b"x" * 513}


@pytest.mark.parametrize("lie", LIES)
def test_index_that_lies(lie: str) -> None:
    archive = archived(SMALL)
    forged = changed(archive, LIES[lie])
    assert forged != archive
    with pytest.raises(EvidenceError) as caught:
        read(forged)
    assert caught.value.code == "ARCHIVE_MALFORMED"
    assert caught.value.next_step


@pytest.mark.parametrize("body", [b"1", b"99999999", b"null", b"true", b'"text"', b"[]", b'["files"]'])
def test_index_that_is_no_object(body: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_index(body + b"\n%020d\n" % len(body), 7680)
    assert caught.value.code == "ARCHIVE_MALFORMED"


def test_index_that_is_changed_to_itself() -> None:
    """So the lies above are refused for what they say."""
    assert changed(archived(SMALL), lambda body: None) == archived(SMALL)


def gap_of(archive: bytes, which: int) -> tuple[int, int]:
    start, end, *_ = list(read(archive)[0].gaps())[which]
    return start, end


def test_every_byte_between_the_files_counts() -> None:
    archive = archived({"a.bin": b"first weights", "ü.bin": b"x"})
    index, _ = read(archive)
    gaps = list(index.gaps())
    for begin, end, path, size, executable in gaps:
        gap = archive[begin:end]
        for position in range(0, len(gap) * 8, 7):  # one bit of each byte, or two
            forged = bytearray(gap)
            forged[position // 8] ^= 1 << position % 8
            with pytest.raises(EvidenceError):
                check_gap(bytes(forged), path, size, executable)


def crafted(path: str, size: int, **fields: Any) -> bytes:
    """Return a header that another tar may take for the same file, and that says more."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o644
    form = fields.pop("form", tarfile.PAX_FORMAT)
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(form, "utf-8", "strict")


def sparse(path: str, size: int) -> bytes:
    """A sparse file of old GNU tar: it says a size, holds nothing, and what follows are headers to stock tar."""
    block = bytearray(crafted(path, 0, type=tarfile.GNUTYPE_SPARSE, form=tarfile.GNU_FORMAT))
    # One hole: offset and length of no data at the end; then the true size.
    block[386 : 386 + 24] = b"%011o\x00%011o\x00" % (size, 0)
    block[483:495] = b"%011o\x00" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\x00 " % sum(block)
    return bytes(block)


TRICKS = {
    "sparse-old": sparse,
    "sparse-1.0": lambda path, size: crafted(
        path, size, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
    ),
    "sparse-0.1": lambda path, size: crafted(
        path, size, pax_headers={"GNU.sparse.map": f"{size},0", "GNU.sparse.size": str(size)}
    ),
    "capabilities": lambda path, size: crafted(
        path, size, pax_headers={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}
    ),
    "access-list": lambda path, size: crafted(path, size, pax_headers={"SCHILY.acl.access": "user::rwx"}),
    "global-header": lambda path, size: (
        tarfile.TarInfo.create_pax_global_header({"comment": "x"}) + crafted(path, size)
    ),
    "contiguous": lambda path, size: crafted(path, size, type=tarfile.CONTTYPE),
    "old-form": lambda path, size: crafted(path, size, type=tarfile.AREGTYPE),
    "hard-link": lambda path, size: crafted(path, size, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "soft-link": lambda path, size: crafted(path, size, type=tarfile.SYMTYPE, linkname="/etc"),
    "folder": lambda path, size: crafted(path, size, type=tarfile.DIRTYPE),
    "character-device": lambda path, size: crafted(path, size, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block-device": lambda path, size: crafted(path, size, type=tarfile.BLKTYPE),
    "fifo": lambda path, size: crafted(path, size, type=tarfile.FIFOTYPE),
    "set-uid": lambda path, size: crafted(path, size, mode=0o4755),
    "world-writable": lambda path, size: crafted(path, size, mode=0o666),
    "owner": lambda path, size: crafted(path, size, uid=1000, uname="root"),
    "time": lambda path, size: crafted(path, size, mtime=1 << 31),
    "other-name-first": lambda path, size: crafted("other", 0) + crafted(path, size),
    "name-twice": lambda path, size: crafted(path, size, pax_headers={"path": path}),
    "absolute": lambda path, size: crafted("/" + path, size),
    "parent": lambda path, size: crafted("x/../" + path, size),
    "longer-name": lambda path, size: crafted(path + "/", size),
    "size-in-a-record": lambda path, size: crafted(path, 0, pax_headers={"size": str(size)}),
    "base-256-size": lambda path, size: crafted(path, size, form=tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_header_that_says_more_than_the_index(trick: str) -> None:
    """Whatever other tars would make of it: only the one header that we write stands before a file."""
    header = TRICKS[trick]("model/a.bin", 13)
    assert header != tar_header("model/a.bin", 13)
    with pytest.raises(EvidenceError) as caught:
        check_gap(header, "model/a.bin", 13, False)
    assert caught.value.code == "ARCHIVE_MALFORMED"


def test_sparse_header_would_hide_a_file(tmp_path: Path) -> None:
    """Why: stock tar unpacks zeros where the index, and so the signature, has weights."""
    header = sparse("model/a.bin", 13)
    archive = header + b"first weights" + bytes(499) + END
    (tmp_path / "x.tar").write_bytes(archive)
    subprocess.run(["tar", "xf", "x.tar"], cwd=tmp_path, capture_output=True)
    assert (tmp_path / "model" / "a.bin").read_bytes() == bytes(13)


ENDS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda archive: b"",
    "one-byte-less": lambda archive: archive[:-1],
    "one-block-less": lambda archive: archive[:-512],
    "no-end": lambda archive: archive[: -len(END)],
    "one-byte-more": lambda archive: archive + b"\x00",
    "one-block-more": lambda archive: archive + bytes(512),
    "end-not-zero": lambda archive: archive[:-1] + b"\x01",
    "length-nought": lambda archive: archive[:-TAIL] + b"\n%020d\n" % 0 + END,
    "length-odd": lambda archive: archive[:-TAIL] + b"\n%020d\n" % 513 + END,
    "length-of-all": lambda archive: archive[:-TAIL] + b"\n%020d\n" % (len(archive) - 512) + END,
    "length-beyond": lambda archive: archive[:-TAIL] + b"\n%020d\n" % (1 << 20) + END,
    "length-huge": lambda archive: archive[:-TAIL] + b"\n%020d\n" % (257 << 20) + END,
    "length-signed": lambda archive: archive[:-TAIL] + b"\n%+020d\n" % 512 + END,
    "length-in-hex": lambda archive: archive[:-TAIL] + b"\n0000000000000000x200\n" + END,
}


@pytest.mark.parametrize("change", ENDS)
def test_another_end(change: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        read(ENDS[change](archived(SMALL)))
    assert caught.value.code == "ARCHIVE_MALFORMED"


@pytest.mark.parametrize(
    "name", [".sealflow", ".SEALFLOW", ".\u017fealflow", "a/b", "..", ".", "", "a\x00", "/a"], ids=ascii
)
def test_names_that_no_artifact_has(name: str) -> None:
    with pytest.raises(ArtifactError):
        check_artifact_name(name)


def test_too_many_files_are_refused_when_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.transfer.archive.MAX_INDEX", 1 << 10)
    with pytest.raises(ArtifactError, match="too many files"):
        archived({str(number): b"" for number in range(20)})
