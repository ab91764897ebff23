"""Places that overlap, under whatever names: refused by every verb before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.change_recipients import change_recipients
from sealflow.actions.places import refuse_overlap, within
from sealflow.errors import UsageError
from sealflow.storage import Storages
from tests.pki import KeyPair, write_key
from tests.trees import write_tree

FILES = {"a.bin": b"weights", "sub/b.bin": b"more"}

#: Name → a place at or below ``real/model``, ``{}`` being the folder above.
INSIDE: dict[str, str] = {
    "itself": "{}/real/model",
    "itself-with-a-slash": "{}/real/model/",
    "below": "{}/real/model/new",
    "far-below": "{}/real/model/sub/new/er",
    "slashes": "{}//real///model//new//",
    "dots": "{}/real/./model/sub/../new",
    "dots-from-elsewhere": "{}/elsewhere/../real/model/new",
    "uri": "file://{}/real/model/new",
    "uri-with-a-host": "file://localhost{}/real/model/new",
    "uri-with-one-slash": "file:{}/real/model/new",
    "uri-with-escapes": "file://{}/real/mod%65l/new",
    "uri-with-escaped-dots": "file://{}/elsewhere/%2e%2e/real/model/new",
    "relative": "real/model/new",
    "link-above": "{}/link/model/new",
    "link-to-it": "{}/to-model/new",
    "link-to-a-link": "{}/to-link/model/new",
    "link-into-it": "{}/to-sub/new",
    "last-part-is-a-link": "{}/to-sub",
    "last-part-is-a-dangling-link": "{}/to-new",
}
#: Name → a place that lies beside it, and stays allowed.
BESIDE: dict[str, str] = {
    "same-beginning": "{}/real/modelling",
    "same-end": "{}/elsewhere/real/model",
    "above-and-down": "{}/real/model/../model.evidence",
    "dots-beside": "{}/real/model.evidence/../other",
    "other-case": "{}/real/Model/new",
    "escape-of-an-escape": "file://{}/real/mod%2565l/new",
    "link-that-leads-elsewhere": "{}/to-elsewhere/model/new",
}


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path, "trainer")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A signed model below ``real``, and links to it."""
    folder = tmp_path / "places"
    write_tree(folder / "real" / "model", FILES)
    (folder / "elsewhere").mkdir()
    for name, where in {
        "link": "real", "to-link": "link", "to-model": "real/model", "to-sub": "real/model/sub",
        "to-new": "real/model/new", "to-elsewhere": "elsewhere",
    }.items():  # fmt: skip
        (folder / name).symlink_to(where)
    monkeypatch.chdir(folder)
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def canonical(location: str) -> str:
    return Storages().for_uri(location).canonical(location)


@pytest.mark.parametrize("place", INSIDE)
def test_inside(folder: Path, place: str) -> None:
    assert within(canonical(INSIDE[place].format(folder)), canonical(f"{folder}/real/model"))


@pytest.mark.parametrize("place", INSIDE)
def test_inside_of_what_is_called_otherwise(folder: Path, place: str) -> None:
    for other in ("link/model", "to-model", "to-link/model"):
        assert within(canonical(INSIDE[place].format(folder)), canonical(f"{folder}/{other}"))


def test_a_link_lies_where_it_lies_and_where_it_leads(folder: Path) -> None:
    """Who replaces it writes here, who follows it writes there."""
    (folder / "real" / "model" / "out").symlink_to(folder / "elsewhere")
    place = canonical(f"{folder}/link/model/out")
    assert within(place, canonical(f"{folder}/real/model"))
    assert within(place, canonical(f"{folder}/elsewhere"))
    assert not within(place, canonical(f"{folder}/real/other"))


@pytest.mark.parametrize("place", BESIDE)
def test_beside(folder: Path, place: str) -> None:
    for other in ("real/model", "link/model", "to-model"):
        assert not within(canonical(BESIDE[place].format(folder)), canonical(f"{folder}/{other}"))


@pytest.mark.parametrize(
    ("inner", "outer", "found"),
    [
        pytest.param("s3://b/a", "s3://b/a", True, id="itself"),
        pytest.param("s3://b/a/", "s3://b/a", True, id="a-slash"),
        pytest.param("s3://b/a", "s3://b/a/", True, id="a-slash-outside"),
        pytest.param("s3://b/a/c", "s3://b/a", True, id="below"),
        pytest.param("s3://b/a", "s3://b", True, id="bucket"),
        pytest.param("s3://b/a", "s3://b/", True, id="bucket-with-a-slash"),
        pytest.param("s3a://b/a/c", "s3n://b/a", True, id="other-schemes"),
        pytest.param("S3://b/a/c", "s3://b/a", True, id="scheme-in-capitals"),
        pytest.param("s3://b/x/../a/c", "s3://b/a", True, id="dots-if-the-store-resolves-them"),
        pytest.param("s3://b//a/c", "s3://b/a", True, id="slashes-if-the-store-joins-them"),
        pytest.param("s3://b/%61/c", "s3://b/a", True, id="escapes-if-the-store-resolves-them"),
        pytest.param("s3://b/ab", "s3://b/a", False, id="same-beginning"),
        pytest.param("s3://b/a", "s3://b/ab", False, id="same-beginning-outside"),
        pytest.param("s3://b/a.evidence", "s3://b/a", False, id="evidence-beside"),
        pytest.param("s3://bb/a", "s3://b", False, id="bucket-of-the-same-beginning"),
        pytest.param("s3://b/A", "s3://b/a", False, id="case"),
        pytest.param("s3://b/a", "s3://b/a/c", False, id="above"),
        pytest.param("minio://b/a", "s3://b/a", False, id="another-endpoint"),
        pytest.param("minio://b/a/c", "minio://b/a", True, id="same-endpoint"),
        pytest.param("gcs://b/a/c", "gs://b/a", True, id="two-names-of-one-store"),
        pytest.param("gs://b/a", "s3://b/a", False, id="two-stores"),
        pytest.param("memory://b/a/../a/c", "memory://b/a", True, id="fsspec-with-dots"),
        pytest.param("/b/a", "s3://b/a", False, id="path-and-bucket"),
        pytest.param("/b/a/c", "/", True, id="root"),
        pytest.param("/b//a/", "/b/a", True, id="path-with-slashes"),
    ],
)
def test_in_stores(inner: str, outer: str, found: bool) -> None:
    assert within(canonical(inner), canonical(outer)) is found


def test_where_a_store_is_mounted() -> None:
    mounts = {"/s3/": "s3://"}
    assert within("s3://b/a/evidence", "file:///s3/b/a", mounts)
    assert within("file:///s3/b/a/evidence", "s3://b/a", mounts)
    assert not within("s3://b/ab", "file:///s3/b/a", mounts)
    assert not within("s3://b/a", "file:///s3/b/a")


# --- The rules ---


@pytest.mark.parametrize(
    ("places", "code"),
    [
        pytest.param({"store": "s3://b/a/e"}, "EVIDENCE_STORE_INSIDE_TREE", id="store-in-the-source"),
        pytest.param({"store": "s3://b/a"}, "EVIDENCE_STORE_INSIDE_TREE", id="store-is-the-source"),
        pytest.param({"store": "s3://b/c/e"}, "EVIDENCE_STORE_INSIDE_TREE", id="store-in-the-destination"),
        pytest.param({"destination": "s3://b/a"}, "USAGE", id="destination-is-the-source"),
        pytest.param({"destination": "s3://b/a/c"}, "USAGE", id="destination-in-the-source"),
        pytest.param({"destination": "s3://b"}, "USAGE", id="destination-holds-the-source"),
        pytest.param({"destination": "s3://d"}, "USAGE", id="destination-holds-the-evidence"),
        pytest.param({"destination": "s3://d/evidence"}, "USAGE", id="destination-is-the-evidence"),
        pytest.param({}, None, id="all-apart"),
        pytest.param({"store": "s3://b"}, None, id="store-above"),
        pytest.param({"store": "s3://d/evidence"}, None, id="one-store"),
        pytest.param({"destination": "s3://d/evidence/a"}, None, id="destination-beside-evidence"),
        pytest.param({"destination": None}, None, id="no-destination"),
    ],
)
def test_rules(places: dict[str, Any], code: str | None) -> None:
    given = {"source": "s3://b/a", "store": "s3://e", "destination": "s3://b/c", "evidence": "s3://d/evidence"} | places
    if code is None:
        refuse_overlap(**given)
        return
    with pytest.raises(UsageError) as caught:
        refuse_overlap(**given)
    assert caught.value.code == code


# --- The verbs ---


def aes(folder: Path) -> str:
    (folder.parent / "key").write_bytes(bytes(32))
    return f"aes:{folder.parent / 'key'}"


def sealed(folder: Path, key: KeyPair) -> str:
    """Return an encrypted artifact, elsewhere."""
    place = str(folder.parent / "sealed")
    sealflow.upload(folder / "elsewhere" / "other", place, recipients=aes(folder), signer=key.signer)
    return place


#: Name → what it does with the model and a place inside of it.
VERBS: dict[str, Callable[[Path, KeyPair, str], object]] = {
    "sign": lambda folder, key, place: sealflow.sign(
        folder / "real" / "model", signer=key.signer, evidence_store=place
    ),
    "upload-to": lambda folder, key, place: sealflow.upload(
        folder / "real" / "model", place, recipients=aes(folder), signer=key.signer,
        evidence_store=str(folder / "e"), overwrite=True,
    ),
    "upload-with-evidence": lambda folder, key, place: sealflow.upload(
        folder / "real" / "model", str(folder / "made"), recipients=aes(folder), signer=key.signer,
        evidence_store=place,
    ),
    "download-to": lambda folder, key, place: sealflow.download(
        str(folder / "real" / "model"), place, identities=str(key.public), destination_store=str(folder / "e"),
        overwrite=True,
    ),
    "download-with-evidence": lambda folder, key, place: sealflow.download(
        str(folder / "real" / "model"), str(folder / "made"), identities=str(key.public), destination_store=place
    ),
    "copy-to": lambda folder, key, place: sealflow.promote(
        str(folder / "real" / "model"), place, identities=str(key.public), signer=key.signer,
        destination_store=str(folder / "e"), overwrite=True,
    ),
    "copy-with-evidence": lambda folder, key, place: sealflow.promote(
        str(folder / "real" / "model"), str(folder / "made"), identities=str(key.public), signer=key.signer,
        destination_store=place,
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.parametrize("verb", VERBS)
def test_refused_before_anything_is_written(folder: Path, key: KeyPair, verb: str, place: str) -> None:
    if not verb.startswith(("sign", "upload")):
        sealflow.sign(folder / "real" / "model", signer=key.signer)
    aes(folder)
    before = listing(folder)
    with pytest.raises(UsageError) as caught:
        VERBS[verb](folder, key, INSIDE[place].format(folder))
    assert caught.value.code == ("USAGE" if verb.endswith("-to") else "EVIDENCE_STORE_INSIDE_TREE")
    assert listing(folder) == before


def test_a_change_is_not_written_into_evidence_or_around_the_artifact(folder: Path, key: KeyPair) -> None:
    write_tree(folder / "elsewhere" / "other", FILES)
    place = sealed(folder, key)
    given: dict[str, Any] = {"recipients": aes(folder), "identities": str(key.public), "signer": key.signer}
    for destination in (place, f"{place}/below", str(folder.parent)):
        with pytest.raises(UsageError):
            change_recipients(place, destination=destination, **given)
    with pytest.raises(UsageError):
        change_recipients(place, destination=str(folder / "new"), evidence_store=str(folder / "new" / "e"), **given)
