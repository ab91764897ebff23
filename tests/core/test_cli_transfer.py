"""`sealflow upload | download | cat | ls | copy | recipients | uploads`: what they print, leave behind and end with."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.conftest import Cli, body
from tests.core.encryption.messages import RSA_PEM, RSA_PUBLIC_PEM
from tests.pki import write_key

pytestmark = pytest.mark.slow

FRAME = 256 << 10
WEIGHTS = bytes(range(97, 123)) * 32_000  # four frames, and text, since it is printed
FILES = {"empty": b"", "run.sh": b"#!/bin/sh\n", "sub/labels.txt": b"cat\ndog\n", "weights.bin": WEIGHTS}

#: Nobody listens there.
NOWHERE = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


@pytest.fixture
def room(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the commands run: a model, keys, and settings that use them."""
    for name, data in FILES.items():
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "model" / "run.sh").chmod(0o755)
    for name in ("trainer", "stranger"):
        write_key(tmp_path, name)
    (tmp_path / "team.key").write_bytes(bytes(32))
    (tmp_path / "other.key").write_bytes(bytes([1]) * 32)
    (tmp_path / "vault.pem").write_bytes(RSA_PEM)
    (tmp_path / "vault.pub").write_bytes(RSA_PUBLIC_PEM)
    for name, value in {
        "SIGNER": "file:trainer.pem",
        "IDENTITIES": "trainer.pub.pem",
        "RECIPIENTS": "aes:team.key",
        "STATE_DIR": str(tmp_path / "state"),
    }.items():
        monkeypatch.setenv(f"SEALFLOW_{name}", value)
    return tmp_path


@pytest.fixture
def sealed(cli: Cli, room: Path) -> Path:
    """Return the encrypted object `store/model`."""
    assert cli("upload", "model", "store/model").returncode == 0
    return room / "store" / "model"


def tree(folder: Path) -> dict[str, bytes]:
    return {item.relative_to(folder).as_posix(): item.read_bytes() for item in folder.rglob("*") if item.is_file()}


def code(done: Any) -> str:
    """Return the code that decided, of an error or of a verdict in JSON."""
    found = body(done)
    if "error" in found:
        return str(found["error"]["code"])
    return str(found["verdict"]["findings"][0]["code"])


def clear_text(folder: Path) -> bytes:
    """Return everything that lies below a folder, what is encoded in bundles included."""
    pieces = []
    for path in folder.rglob("*"):
        if path.is_file():
            pieces += [path.name.encode(), path.read_bytes()]
            if path.suffix == ".json":
                pieces.append(base64.b64decode(json.loads(pieces[-1])["dsseEnvelope"]["payload"]))
    return b"\n".join(pieces)


# --- There and back ---


def test_there_and_back(cli: Cli, room: Path) -> None:
    sent = cli("upload", "model", "store/model")
    assert sent.returncode == 0
    assert sent.stdout.startswith("uploaded  file://")
    assert "(4 files, 812.5 KiB; stored as " in sent.stdout
    assert "name      model\n" in sent.stdout
    reference = sent.stdout.splitlines()[-1].partition(" ")[2]
    assert json.loads(reference)["encrypted"] is True
    got = cli("download", reference, "copy")
    assert got.returncode == 0
    assert got.stdout.startswith("passed")
    assert tree(room / "copy") == FILES
    assert (room / "copy" / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (room / "copy" / "empty").stat().st_mode & stat.S_IXUSR
    # The evidence came along, so the copy can be checked where it lies now; so can the object.
    for place in ("copy", "store/model"):
        assert cli("verify", place, "--name", "model").returncode == 0


def test_nothing_of_the_files_stands_in_clear(sealed: Path) -> None:
    text = clear_text(sealed.parent)
    for secret in (b"weights.bin", b"labels", b"cat\ndog", b"832000", b"abcdefghijkl"):
        assert secret not in text
    # What the tests would find if it were there: the logical name does stand in clear.
    assert b'"name":"model"' in text


def test_of_a_single_file_its_digest_stands_in_clear_and_its_name_does_not(cli: Cli, room: Path) -> None:
    assert cli("upload", "model/sub/labels.txt", "store/labels").returncode == 0
    text = clear_text(room / "store")
    assert b"labels.txt" not in text
    assert hashlib.sha256(FILES["sub/labels.txt"]).hexdigest().encode() in text


def test_a_download_takes_the_names_out_into_the_store_that_it_is_given(cli: Cli, sealed: Path, room: Path) -> None:
    common = {"SEALFLOW_EVIDENCE_STORE": str(room / "common")}
    beside = ("--evidence-store", "store/model.evidence")
    assert cli("download", "store/model", "one", *beside, "--destination-store", "own", **common).returncode == 0
    assert not (room / "common").exists()
    assert b"weights.bin" in clear_text(room / "own")


def test_a_single_file_comes_back_as_a_file(cli: Cli, room: Path) -> None:
    assert cli("upload", "model/weights.bin", "store/weights", "--name", "weights").returncode == 0
    assert cli("download", "store/weights", "deep/er/weights.bin").returncode == 0
    assert (room / "deep" / "er" / "weights.bin").read_bytes() == WEIGHTS


def test_json(cli: Cli, room: Path) -> None:
    sent = body(cli("upload", "model", "store/model", "--name", "churn", "--json"))
    assert (sent["name"], sent["existed"], sent["ref"]["encrypted"]) == ("churn", False, True)
    assert sent["stored"] == (room / "store" / "model").stat().st_size
    assert (room / "store" / "model.evidence" / f"message-{sent['message']}").is_dir()
    listed = body(cli("ls", "store/model", "--json"))
    assert [(item["name"], item["size"], item["executable"]) for item in listed["files"]] == [
        (name, len(data), name == "run.sh") for name, data in FILES.items()
    ]
    assert "RANGES_CHECKED" in {item["code"] for item in listed["verdict"]["findings"]}
    got = body(cli("download", "store/model", "copy", "--json"))
    assert (got["verdict"]["status"], got["verdict"]["held"]) == ("passed", True)
    assert got["ref"] == sent["ref"] | {
        "uri": (room / "copy").as_uri(), "evidence": (room / "copy.evidence").as_uri(), "encrypted": False
    }  # fmt: skip
    assert body(cli("copy", "store/model", "prod/model", "--json"))["existed"] is False
    holders = body(cli("recipients", "list", "store/model", "--json"))
    assert holders["verified"] is False
    assert [item["provider"] for item in holders["recipients"]] == ["sealflow"]
    changed = body(cli("recipients", "add", "store/model", "rsa:vault.pub", "--json"))
    assert changed["ref"]["digest"] == sent["ref"]["digest"]
    assert [item["provider"] for item in changed["recipients"]] == ["sealflow", "sealflow"]
    assert body(cli("uploads", "store", "--json")) == {"aborted": False, "uploads": []}


# --- Upload ---


def test_the_same_again_is_a_success(cli: Cli, sealed: Path) -> None:
    before = sealed.read_bytes()
    again = cli("upload", "model", "store/model")
    assert again.returncode == 0
    assert again.stdout.startswith("there already  file://")
    assert body(cli("upload", "model", "store/model", "--json"))["existed"] is True
    assert sealed.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda room: (room / "model" / "run.sh").write_bytes(b"rm -r /"), id="other-bytes"),
        pytest.param(lambda room: (room / "team.key").write_bytes(bytes([3]) * 32), id="other-recipients"),
        pytest.param(lambda room: write_key(room, "trainer"), id="other-signer"),
        pytest.param(lambda room: (room / "store" / "model").write_bytes(b"something else"), id="something-else"),
        pytest.param(lambda room: shutil.rmtree(room / "store" / "model.evidence"), id="evidence-gone"),
        pytest.param(lambda room: spoil(room / "store" / "model"), id="stored-bytes-altered"),
    ],
)
def test_what_lies_there_is_left_alone_unless_asked(
    cli: Cli, sealed: Path, room: Path, change: Callable[[Path], object]
) -> None:
    change(room)
    before = sealed.read_bytes()
    refused = cli("upload", "model", "store/model", "--json")
    assert (refused.returncode, code(refused)) == (3, "ARTIFACT_EXISTS")
    assert sealed.read_bytes() == before
    assert cli("upload", "model", "store/model", "--overwrite").returncode == 0
    assert sealed.read_bytes() != before
    assert cli("verify", "store/model").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "expected"),
    [
        pytest.param(("upload", "model", "x"), {"SEALFLOW_RECIPIENTS": ""}, 2, "RECIPIENT_MISSING", id="for-nobody"),
        pytest.param(("upload", "model", "x"), {"SEALFLOW_SIGNER": ""}, 2, "SIGNER_MISSING", id="nobody-signs"),
        pytest.param(("upload", "model", "x", "--recipient", "aes:no.key"), {}, 2, "KEY_MISSING", id="no-such-key"),
        pytest.param(("upload", "model", "x", "--recipient", "aes:vault.pub"), {}, 2, "KEY_UNREADABLE", id="not-32"),
        pytest.param(("upload", "model", "x", "--recipient", "rsa:team.key"), {}, 2, "KEY_UNREADABLE", id="no-rsa"),
        pytest.param(("upload", "model", "x", "--recipient", "pgp:x"), {}, 2, "USAGE", id="no-such-kind"),
        pytest.param(("upload", "model", "x"), {"SEALFLOW_RECIPIENTS": "[1]"}, 2, "USAGE", id="setting-of-other-form"),
        pytest.param(("upload", "model", "model/x"), {}, 2, "USAGE", id="into-itself"),
        pytest.param(("upload", "model", "model"), {}, 2, "USAGE", id="onto-itself"),
        pytest.param(
            ("upload", "model", "x", "--evidence-store", "model/e"),
            {},
            2,
            "EVIDENCE_STORE_INSIDE_TREE",
            id="evidence-into-itself",
        ),
        pytest.param(("upload", "model", "https://example.org/x"), {}, 2, "USAGE", id="to-the-web"),
        pytest.param(
            ("upload", "model", "memory://b/x"), {}, 2, "OVERWRITE_NOT_PROTECTED", id="where-nothing-is-protected"
        ),
        pytest.param(("upload", "nothing", "x"), {}, 3, "ARTIFACT_MISSING", id="nothing-there"),
        pytest.param(("upload", "hollow", "x"), {}, 3, "ARTIFACT_REFUSED", id="empty-folder"),
        pytest.param(("upload", "linked", "x"), {}, 3, "ARTIFACT_REFUSED", id="a-link-in-it"),
        pytest.param(("upload", ".sealflow", "x"), {}, 3, "ARTIFACT_REFUSED", id="the-name-of-our-folder"),
    ],
)
def test_what_cannot_be_uploaded(
    cli: Cli, room: Path, arguments: tuple[str, ...], variables: dict[str, str], status: int, expected: str
) -> None:
    for name in ("hollow", "linked", ".sealflow"):
        (room / name).mkdir()
    (room / "linked" / "out").symlink_to("/etc/passwd")
    (room / ".sealflow" / "file").write_text("x")
    refused = cli(*arguments, "--json", **variables)
    assert (refused.returncode, code(refused)) == (status, expected), refused.stdout
    assert not (room / "x").exists()
    assert tree(room / "model") == FILES


# --- Refusals ---


def spoil(sealed: Path, at: int = -100) -> None:
    """Flip a bit of the object."""
    data = bytearray(sealed.read_bytes())
    data[at] ^= 1
    sealed.write_bytes(data)


def _lose_statements(sealed: Path) -> None:
    for path in sealed.parent.glob("model.evidence/message-*/encryption-*.json"):
        path.unlink()


def _lose_list(sealed: Path) -> None:
    for path in sealed.parent.glob("model.evidence/message-*/frames-*.bin"):
        path.unlink()


COMMANDS = {
    "download": ("download", "store/model", "made"),
    "copy": ("copy", "store/model", "made"),
    "ls": ("ls", "store/model"),
    "cat": ("cat", "store/model", "--file", "run.sh"),
    "add": ("recipients", "add", "store/model", "rsa:vault.pub"),
    "remove": ("recipients", "remove", "store/model", "aes:team.key"),
}
#: One that makes something and one that prints are enough for a quick look.
EACH = [name if name in ("download", "cat") else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]


@pytest.mark.parametrize("command", EACH)
@pytest.mark.parametrize(
    ("change", "arguments", "status", "expected"),
    [
        pytest.param(None, ("--recipient", "aes:other.key"), 4, "RECIPIENT_MISSING", id="another-key"),
        pytest.param(None, ("--recipient", "rsa:vault.pem"), 4, "RECIPIENT_MISSING", id="a-key-of-another-kind"),
        pytest.param(None, ("--identity", "stranger.pub.pem"), 4, "SIGNER_NOT_ALLOWED", id="another-signer"),
        pytest.param(None, ("--name", "other"), 3, "CONTEXT_MISMATCH", id="another-name"),
        pytest.param(spoil, (), 3, "MESSAGE_ALTERED", id="altered-at-the-end"),
        pytest.param(lambda path: spoil(path, 40), (), 3, "", id="altered-header"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), (), 3, "", id="cut"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"x"), (), 3, "", id="lengthened"),
        pytest.param(_lose_statements, (), 3, "ENCRYPTION_UNBOUND", id="statement-gone"),
        pytest.param(_lose_list, (), 3, "EVIDENCE_MISSING", id="list-gone"),
    ],
)  # fmt: skip
def test_refused(
    cli: Cli,
    sealed: Path,
    room: Path,
    command: str,
    change: Callable[[Path], object] | None,
    arguments: tuple[str, ...],
    status: int,
    expected: str,
) -> None:
    """Nothing is printed of what is in it, nothing made, and the object stays as it is."""
    if change is not None:
        change(sealed)
    before = tree(room / "store")
    refused = cli(*COMMANDS[command], *arguments)
    assert refused.returncode == status, refused.stdout
    assert expected in refused.stdout + refused.stderr
    assert "bin/sh" not in refused.stdout
    assert "labels" not in refused.stdout
    assert tree(room / "store") == before
    assert not [path.name for path in room.rglob("*") if path.name.startswith("made") or "partial" in path.name]


@pytest.mark.parametrize("command", EACH)
def test_another_signer_is_a_refused_identity(cli: Cli, sealed: Path, command: str) -> None:
    assert cli(*COMMANDS[command], "--identity", "stranger.pub.pem").returncode == 4


@pytest.mark.parametrize("command", EACH)
def test_evidence_out_of_reach_is_unverifiable(
    cli: Cli, sealed: Path, room: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    before = tree(room / "store")
    done = cli(*COMMANDS[command], "--evidence-store", "s3://bucket/evidence", **NOWHERE)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "BACKEND_UNAVAILABLE" in done.stdout + done.stderr
    assert tree(room / "store") == before
    assert not (room / "made").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("upload", "model", "s3://bucket/model"), id="upload"),
        pytest.param(("download", "s3://bucket/model", "made"), id="download"),
        pytest.param(("ls", "s3://bucket/model"), id="ls"),
        pytest.param(("recipients", "list", "s3://bucket/model"), id="recipients"),
        pytest.param(("uploads", "s3://bucket/model"), id="uploads"),
    ],
)
def test_a_store_out_of_reach(
    cli: Cli, room: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = cli(*arguments, "--json", **NOWHERE)
    assert done.returncode == 5, done.stdout + done.stderr
    assert code(done) == "BACKEND_UNAVAILABLE"


@pytest.mark.parametrize("command", ["download", "copy", "ls", "cat"])
def test_a_refusal_in_json_is_a_verdict(cli: Cli, sealed: Path, command: str) -> None:
    if command == "cat":  # prints bytes, and verdicts for people
        refused = cli(*COMMANDS[command], "--recipient", "aes:other.key")
        assert refused.stdout.startswith("failed    file://")
        return
    verdict = body(cli(*COMMANDS[command], "--recipient", "aes:other.key", "--json"))["verdict"]
    assert verdict["status"] == "failed"
    assert verdict["findings"][0]["next_step"]


def test_what_was_not_fetched_was_not_checked(cli: Cli, sealed: Path, room: Path) -> None:
    """An altered first frame: who reads elsewhere does not see it, who reads there gets nothing of it."""
    spoil(sealed, 60_000)
    assert cli("ls", "store/model").returncode == 0
    assert cli("cat", "store/model", "--file", "weights.bin", "--range", "831900-").returncode == 0
    refused = cli("cat", "store/model", "--file", "run.sh")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr.startswith("MESSAGE_ALTERED: ")
    for command in ("download", "copy"):
        assert cli(*COMMANDS[command]).returncode == 3
        assert not (room / "made").exists()


@pytest.mark.parametrize("command", ["ls", "cat", "list", "add"])
def test_a_clear_artifact_is_told_so(cli: Cli, room: Path, command: str) -> None:
    assert cli("sign", "model/run.sh").returncode == 0
    arguments = {**COMMANDS, "list": ("recipients", "list", "store/model")}[command]
    done = cli(*(item.replace("store/model", "model/run.sh") for item in arguments))
    assert done.returncode in (2, 3)
    assert "not encrypted" in done.stderr or "not one" in done.stdout


# --- cat ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0-0", WEIGHTS[:1], id="first-byte"),
        pytest.param("10-25", WEIGHTS[10:26], id="both-ends-included"),
        pytest.param("831990-", WEIGHTS[831_990:], id="open"),
        pytest.param(f"{FRAME - 3000}-{FRAME + 3000}", WEIGHTS[FRAME - 3000 : FRAME + 3001], id="over-frames"),
        pytest.param("831990-999999999", WEIGHTS[831_990:], id="last-beyond-the-end"),
        pytest.param("832000-", b"", id="first-at-the-end"),
        pytest.param("999999999999999999-", b"", id="first-beyond-the-end"),
        pytest.param(None, WEIGHTS, id="all"),
    ],
)
def test_ranges(cli: Cli, sealed: Path, text: str | None, expected: bytes) -> None:
    ranged = ("--range", text) if text else ()
    done = cli("cat", "store/model", "--file", "weights.bin", *ranged)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.encode() == expected


@pytest.mark.parametrize(
    "text", ["", "-", "-5", "5", "5-4", "1-2-3", "0x1-2", " 1-2", "1-2 ", "\u0661-\u0662", "1" * 19 + "-"]
)
def test_malformed_ranges(cli: Cli, sealed: Path, text: str) -> None:
    done = cli("cat", "store/model", "--file", "weights.bin", f"--range={text}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "FIRST-LAST" in done.stderr


def test_cat_of_several_files_wants_one_named(cli: Cli, sealed: Path) -> None:
    assert cli("cat", "store/model").returncode == 2
    missing = cli("cat", "store/model", "--file", "../trainer.pem")
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr.startswith("ARTIFACT_MISSING: ")
    assert cli("cat", "store/model", "--file", "empty").stdout == ""


def test_cat_of_a_single_file_needs_no_name(cli: Cli, room: Path) -> None:
    assert cli("upload", "model/sub/labels.txt", "store/labels").returncode == 0
    assert cli("cat", "store/labels", "--range", "4-6").stdout == "dog"


# --- download ---


def test_a_download_leaves_what_lies_there(cli: Cli, sealed: Path, room: Path) -> None:
    (room / "made").mkdir()
    (room / "made" / "mine").write_text("mine")
    refused = cli("download", "store/model", "made", "--json")
    assert (refused.returncode, code(refused)) == (3, "ARTIFACT_EXISTS")
    assert tree(room / "made") == {"mine": b"mine"}
    assert cli("download", "store/model", "made", "--overwrite").returncode == 0
    assert tree(room / "made") == FILES
    assert cli("download", "store/model", "made").returncode == 0  # the same again


def test_a_download_goes_to_this_machine(cli: Cli, sealed: Path) -> None:
    refused = cli("download", "store/model", "s3://bucket/model", "--json")
    assert (refused.returncode, code(refused)) == (2, "USAGE")


def test_a_clear_artifact_is_downloaded_verified_too(cli: Cli, room: Path) -> None:
    assert cli("sign", "model").returncode == 0
    assert cli("download", "model", "made").returncode == 0
    (room / "model" / "run.sh").write_bytes(b"#!/bin/ls\n")
    assert cli("download", "model", "again").returncode == 3
    assert not (room / "again").exists()


# --- copy ---


def test_an_encrypted_artifact_is_copied_as_it_is(cli: Cli, sealed: Path, room: Path) -> None:
    done = cli("copy", "store/model", "prod/model")
    assert done.returncode == 0
    assert "copied to file://" in done.stdout
    assert (room / "prod" / "model").read_bytes() == sealed.read_bytes()
    evidence = {path.name.partition("-")[0] for path in (room / "prod" / "model.evidence").rglob("*-*.*")}
    assert evidence == {"encryption", "frames", "promotion", "provenance"}
    assert cli("download", "prod/model", "made").returncode == 0
    again = cli("copy", "store/model", "prod/model")
    assert again.returncode == 0
    assert "there     file://" in again.stdout


def test_a_copy_leaves_what_lies_there(cli: Cli, sealed: Path, room: Path) -> None:
    (room / "made").write_text("mine")
    refused = cli("copy", "store/model", "made", "--json")
    assert (refused.returncode, code(refused)) == (3, "ARTIFACT_EXISTS")
    assert (room / "made").read_text() == "mine"
    assert cli("copy", "store/model", "made", "--overwrite").returncode == 0
    assert (room / "made").read_bytes() == sealed.read_bytes()


def test_a_copy_says_who_promoted_what_from_where(cli: Cli, sealed: Path, room: Path) -> None:
    assert cli("copy", "store/model", "prod/model", "--signer", "file:stranger.pem").returncode == 0
    (stored,) = (room / "prod" / "model.evidence").rglob("promotion-*.json")
    statement = json.loads(base64.b64decode(json.loads(stored.read_text())["dsseEnvelope"]["payload"]))
    said = statement["predicate"]
    assert (said["source"], said["destination"]) == (sealed.as_uri(), (room / "prod" / "model").as_uri())
    assert (said["verdict"]["status"], statement["subject"][0]["name"]) == ("passed", "model")
    # The promoter need not be a signer of artifacts, and becomes none.
    assert cli("verify", "prod/model").returncode == 0
    refused = cli("verify", "prod/model", "--identity", "stranger.pub.pem")
    assert "SIGNER_NOT_ALLOWED" in refused.stdout
    assert refused.returncode == 4


@pytest.mark.parametrize(("artifact", "place"), [("model", "prod/other"), ("model/weights.bin", "prod/weights.bin")])
def test_a_clear_artifact_is_copied_with_its_evidence(cli: Cli, room: Path, artifact: str, place: str) -> None:
    assert cli("sign", artifact).returncode == 0
    assert cli("copy", artifact, place).returncode == 0
    assert cli("verify", place).returncode == 0
    assert list((room / f"{place}.evidence").rglob("promotion-*.json"))
    assert "there     file://" in cli("copy", artifact, place).stdout


def test_a_copy_into_itself(cli: Cli, room: Path) -> None:
    assert cli("sign", "model").returncode == 0
    assert cli("copy", "model", "model/copy").returncode == 2


# --- recipients ---


def holders(cli: Cli) -> list[str]:
    done = cli("recipients", "list", "store/model")
    assert done.returncode == 0
    return [line.partition(" ")[2] for line in done.stdout.splitlines()]


def test_recipients_are_added_and_removed(cli: Cli, sealed: Path, room: Path) -> None:
    (team,) = holders(cli)
    first = sealed.read_bytes()
    assert cli("verify", "store/model", "--recipient", "rsa:vault.pem").returncode == 4
    added = cli("recipients", "add", "store/model", "rsa:vault.pub")
    assert added.returncode == 0
    assert added.stdout.startswith("written anew  file://")
    assert holders(cli)[0] == team
    assert len(holders(cli)) == 2
    for uri in ("aes:team.key", "rsa:vault.pem"):
        assert cli("verify", "store/model", "--recipient", uri).returncode == 0
    # Another key, so another message: nothing of the old body is left.
    assert sealed.read_bytes()[3:35] != first[3:35]
    assert not set(_blocks(sealed.read_bytes())) & set(_blocks(first))
    removed = cli("recipients", "remove", "store/model", "aes:team.key", "--recipient", "rsa:vault.pem",
                  "--recipient", "aes:team.key")  # fmt: skip
    assert removed.returncode == 0
    assert holders(cli) == [item for item in holders(cli) if item != team]
    assert cli("verify", "store/model", "--recipient", "aes:team.key").returncode == 4
    assert cli("verify", "store/model", "--recipient", "rsa:vault.pem").returncode == 0


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + 64] for at in range(len(data) // 2, len(data) - 64, 64)]


@pytest.mark.parametrize("provider", [True, False])
def test_recipients_are_removed_by_name(cli: Cli, sealed: Path, provider: bool) -> None:
    assert cli("recipients", "add", "store/model", "rsa:vault.pub").returncode == 0
    team, vault = holders(cli)
    name = vault if provider else vault.partition(":")[2]
    assert cli("recipients", "remove", "store/model", name).returncode == 0
    assert holders(cli) == [team]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("remove", "store/model", "rsa:vault.pub"), "cannot be removed", id="no-recipient"),
        pytest.param(("remove", "store/model", "sealflow:ab"), "cannot be removed", id="no-such-name"),
        pytest.param(("remove", "store/model", "aes:team.key"), "Nobody could open", id="the-last-one"),
        pytest.param(("add", "store/model", "aes:no.key"), "no key file", id="no-such-key"),
        pytest.param(("add", "store/model"), "URI", id="nobody"),
    ],
)
def test_changes_that_make_no_sense(cli: Cli, sealed: Path, arguments: tuple[str, ...], said: str) -> None:
    before = sealed.read_bytes()
    done = cli("recipients", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert sealed.read_bytes() == before


def test_a_shared_secret_that_stays_must_be_at_hand(cli: Cli, room: Path) -> None:
    both = ("--recipient", "rsa:vault.pub", "--recipient", "aes:team.key")
    assert cli("upload", "model", "store/model", *both).returncode == 0
    change = ("recipients", "add", "store/model", "aes:other.key", "--recipient", "rsa:vault.pem")
    refused = cli(*change)
    assert refused.returncode == 2
    assert "its key is not at hand" in refused.stderr
    assert cli(*change, "--recipient", "aes:team.key").returncode == 0
    assert cli("verify", "store/model", "--recipient", "aes:other.key").returncode == 0


def test_readers_must_accept_who_changed_the_recipients(cli: Cli, sealed: Path) -> None:
    assert cli("recipients", "add", "store/model", "rsa:vault.pub", "--signer", "file:stranger.pem").returncode == 0
    refused = cli("verify", "store/model")
    assert "SIGNER_NOT_ALLOWED" in refused.stdout
    assert refused.returncode == 4
    both = ("--identity", "trainer.pub.pem", "--identity", "stranger.pub.pem")
    assert cli("verify", "store/model", *both).returncode == 0
    # Alone the stranger stands for the frames, and not for the artifact.
    assert cli("verify", "store/model", "--identity", "stranger.pub.pem").returncode == 4


@pytest.mark.parametrize(("place", "status"), [("model/run.sh", 2), ("nothing", 2), ("model", 3)])
def test_recipients_of_what_is_not_encrypted(cli: Cli, room: Path, place: str, status: int) -> None:
    assert cli("recipients", "list", place).returncode == status


# --- uploads ---


@pytest.fixture
def left(room: Path) -> Path:
    """An upload to `store/left` that nobody finished."""
    place = room / "store" / "left"
    outgoing = Storages().for_uri(str(place)).begin(str(place), overwrite=False)
    outgoing.send(1, 0, memoryview(b"half"))
    return place


def test_unfinished_uploads_are_listed_and_aborted(cli: Cli, left: Path) -> None:
    assert len(list(left.parent.iterdir())) == 1
    for place in ("store/left", "store", "."):
        listed = cli("uploads", place)
        assert listed.returncode == 0
        assert listed.stdout.startswith("since    2")
        assert listed.stdout.endswith(f"  {left.as_uri()}\n")
    assert [item["uri"] for item in body(cli("uploads", "store", "--json"))["uploads"]] == [left.as_uri()]
    # Of another place, or too young.
    for arguments in (("store/le",), ("store", "--older-than", "1h"), ("store", "--older-than", "1h", "--abort")):
        assert cli("uploads", *arguments).stdout == "There is no unfinished upload here.\n"
    assert list(left.parent.iterdir())
    assert cli("uploads", "store", "--abort").stdout.startswith("aborted  2")
    assert not list(left.parent.iterdir())
    assert cli("uploads", "store").stdout == "There is no unfinished upload here.\n"


@pytest.mark.parametrize("age", ["", "0h", "24", "h", "-1h", "1y", "1h ", "9999999h"])
def test_malformed_ages(cli: Cli, left: Path, age: str) -> None:
    done = cli("uploads", "store", f"--older-than={age}", "--abort")
    assert done.returncode == 2
    assert "such as 24h" in done.stderr
    assert list(left.parent.iterdir())


# --- Audit ---


def test_every_use_of_a_key_was_announced(cli: Cli, sealed: Path, room: Path) -> None:
    assert cli("download", "store/model", "made").returncode == 0
    assert cli("copy", "store/model", "prod/model").returncode == 0
    assert cli("cat", "store/model", "--file", "empty").returncode == 0
    assert cli("recipients", "add", "store/model", "rsa:vault.pub").returncode == 0
    assert cli("ls", "store/model", "--recipient", "aes:other.key").returncode == 4
    events = read_events(room / "spool")
    told = [(event["action"], event["phase"], event.get("outcome", "")) for event in events]
    assert [item[0] for item in told if item[1] == "intent"] == [
        "upload", "download", "promote", "read", "change-recipients", "read",
    ]  # fmt: skip
    assert told[-1] == ("read", "outcome", "failed")
    assert events[0]["key"].startswith("sha256:")
