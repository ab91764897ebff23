"""The smaller verbs: make keys, export evidence, show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sealflow
from sealflow.actions.export import export_evidence
from sealflow.actions.inspect import describe, inspect_evidence
from sealflow.actions.keys_generate import ALGORITHMS, generate_key
from sealflow.errors import UsageError
from sealflow.keys import load_public_key, load_signer
from tests.pki import KeyPair, write_key, write_pki
from tests.trees import write_tree


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "model", {"a": b"1", "b/c": b"2"})


@pytest.mark.parametrize("passphrase", [None, b"secret"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_generate(tmp_path: Path, algorithm: str, passphrase: bytes | None) -> None:
    path = tmp_path / "key.pem"
    public = generate_key(str(path), algorithm=algorithm, passphrase=passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (passphrase is not None)
    signer = load_signer(f"file:{path}", lambda uri: passphrase or b"")
    assert load_public_key(f"{path}.pub").hint == public.hint == signer.public_key.hint
    assert public.verify(signer.sign(b"x"), b"x")


@pytest.mark.parametrize("taken", ["key.pem", "key.pem.pub"])
@pytest.mark.parametrize("kind", ["file", "dangling-link"])
def test_generate_never_writes_over_anything(tmp_path: Path, taken: str, kind: str) -> None:
    if kind == "file":
        (tmp_path / taken).write_bytes(b"precious")
    else:
        (tmp_path / taken).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="never written over"):
        generate_key(str(tmp_path / "key.pem"))
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_generate_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Unknown algorithm"):
        generate_key(str(tmp_path / "key"), algorithm="rsa")
    with pytest.raises(UsageError, match="passphrase is empty"):
        generate_key(str(tmp_path / "key"), passphrase=b"")
    with pytest.raises(UsageError, match="cannot be written"):
        generate_key(str(tmp_path / "absent" / "key"))
    assert list(tmp_path.iterdir()) == []


def test_export(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = write_key(tmp_path, "other")
    ref = sealflow.sign(model, signer=keys.signer)
    sealflow.sign(model, signer=other.signer)
    (tmp_path / "out").mkdir()
    names = [Path(path).name for path in export_evidence(ref.as_dict(), str(tmp_path / "out"))]
    assert names == ["model.sig", "model.2.sig", "model.intoto.jsonl"]
    lines = (tmp_path / "out" / "model.intoto.jsonl").read_text().splitlines()
    for line in lines:
        envelope = json.loads(line)
        assert set(envelope) == {"payload", "payloadType", "signatures"}
        assert envelope["signatures"][0]["keyid"] == ""
    assert len(lines) == 2
    with pytest.raises(UsageError, match="exists"):
        export_evidence(str(model), str(tmp_path / "out"))
    assert export_evidence(str(model), str(tmp_path / "out"), overwrite=True)


def test_export_without_evidence_or_folder(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export_evidence(str(model), str(tmp_path))
    assert caught.value.code == "EVIDENCE_MISSING"
    sealflow.sign(model, signer=keys.signer)
    with pytest.raises(UsageError, match="not a folder"):
        export_evidence(str(model), str(tmp_path / "absent"))
    with pytest.raises(UsageError) as missing:
        export_evidence(str(tmp_path / "nothing"), str(tmp_path))
    assert missing.value.code == "ARTIFACT_MISSING"


def test_planted_evidence_does_not_stop_an_export(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    from sealflow.hashing import sha256_hex

    ref = sealflow.sign(model, signer=keys.signer)
    folder = Path(f"{model}.evidence") / ref.digest.path_segment
    for data in (b"", b"{}", b'{"dsseEnvelope": 1}', b"\xff"):
        (folder / f"provenance-{sha256_hex(data)}.json").write_bytes(data)
    (tmp_path / "out").mkdir()
    names = [Path(path).name for path in export_evidence(ref.as_dict(), str(tmp_path / "out"))]
    assert names == ["model.sig", "model.intoto.jsonl"]
    assert len((tmp_path / "out" / "model.intoto.jsonl").read_text().splitlines()) == 1


def test_inspect(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    pki = write_pki(tmp_path)
    ref = sealflow.sign(model, signer=keys.signer, name="the model")
    sealflow.sign(model, signer=pki.signer)
    for target in (ref.as_dict(), ref.to_json(), str(model), model):
        shown = inspect_evidence(target)
        assert len(shown) == 4
        assert {item["digest"] for item in shown} == {str(ref.digest)}
        assert not any(item["verified"] for item in shown)
        assert {item.get("files") for item in shown} == {2, None}
        certified = [item for item in shown if "certificate_names" in item]
        assert len(certified) == 2
        assert "email:trainer@example.org" in certified[0]["certificate_names"]
        provenance = [item["provenance"] for item in shown if "provenance" in item]
        assert {item["name"] for item in provenance} == {"the model", "model"}


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100, b'{"mediaType": 1}'])
def test_malformed_evidence_is_described_by_its_error(data: bytes) -> None:
    shown = describe(data)
    assert shown["verified"] is False
    assert shown["error"]
