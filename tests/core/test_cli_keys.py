"""`sealflow keys`: taking keys in, listing them, replacing them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from tests.audit_events import read_events
from tests.core.conftest import Cli, body
from tests.pki import NOW, certify

SECRET = "correct horse"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A PKCS#12 file with a key and its certificate."""
    from cryptography import x509

    leaf = certify("trainer")
    certificate = x509.load_pem_x509_certificate(leaf.pem)
    path = tmp_path / "trainer.p12"
    encryption = BestAvailableEncryption(SECRET.encode())
    path.write_bytes(pkcs12.serialize_key_and_certificates(None, leaf.key, certificate, None, encryption))
    return path


# --- import ---


def test_an_imported_key_signs_as_it_was_protected(cli: Cli, tmp_path: Path, bundle: Path) -> None:
    made = body(cli("keys", "import", "trainer.p12", "key.pem", "--json", SEALFLOW_KEY_PASSPHRASE=SECRET))
    assert made["encrypted"] is True
    assert made["certificates"] == "key.pem.crt"
    assert made["warnings"] == []
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in (tmp_path / "key.pem").read_text()
    (tmp_path / "f").write_text("x")
    signer = "file:key.pem?certificate=key.pem.crt"
    assert cli("sign", "f", "--signer", signer, SEALFLOW_KEY_PASSPHRASE=SECRET).returncode == 0
    assert cli("sign", "f", "--signer", signer).returncode == 2
    events = [event for event in read_events(tmp_path / "spool") if event["action"] == "key-import"]
    assert [(event["phase"], event["key"]) for event in events] == [("intent", made["key"]), ("outcome", made["key"])]


def test_a_source_that_others_may_read_is_said(cli: Cli, tmp_path: Path) -> None:
    key = certify("trainer").key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.der").write_bytes(key)
    (tmp_path / "key.der").chmod(0o644)
    done = cli("keys", "import", "key.der", "key.pem")
    assert done.returncode == 0
    assert "others may read it (mode 0644)" in done.stderr
    (tmp_path / "key.der").chmod(0o600)
    sealed = body(cli("keys", "import", "key.der", "sealed.pem", "--encrypt", "--json", SEALFLOW_KEY_PASSPHRASE=SECRET))
    assert (sealed["encrypted"], sealed["warnings"]) == (True, [])
    opened = cli("keys", "import", "sealed.pem", "open.pem", "--no-encrypt", "--json", SEALFLOW_KEY_PASSPHRASE=SECRET)
    assert body(opened)["encrypted"] is False
    assert body(opened)["key"] == sealed["key"]


@pytest.mark.parametrize("taken", ["key.pem", "key.pem.pub", "key.pem.crt"])
def test_an_import_writes_over_nothing(cli: Cli, tmp_path: Path, bundle: Path, taken: str) -> None:
    (tmp_path / taken).write_bytes(b"precious")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = cli("keys", "import", "trainer.p12", "key.pem", SEALFLOW_KEY_PASSPHRASE=SECRET)
    assert done.returncode == 2
    assert "exists" in done.stderr
    assert (tmp_path / taken).read_bytes() == b"precious"
    assert {path.name for path in tmp_path.iterdir()} - set(before) <= {"spool"}


def test_refusals_end_with_2_and_repeat_no_secret(cli: Cli, tmp_path: Path, bundle: Path) -> None:
    weak = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "rsa.pem").write_bytes(weak)
    (tmp_path / "garbage").write_bytes(b"\x00garbage")
    pem = certify("x").key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    text = "".join(pem.splitlines()[1:-1])
    for source, code in (
        ("rsa.pem", "KEY_UNSUPPORTED"),
        ("garbage", "KEY_UNREADABLE"),
        ("absent", "KEY_MISSING"),
        ("trainer.p12", "KEY_UNREADABLE"),
        (text, "KEY_MISSING"),
    ):
        done = cli("keys", "import", source, "key.pem", "--json", SEALFLOW_KEY_PASSPHRASE="hunter2")
        assert (done.returncode, body(done)["error"]["code"]) == (2, code)
        assert "hunter2" not in done.stdout + done.stderr
        assert text not in done.stdout + done.stderr
    assert not (tmp_path / "key.pem").exists()


# --- rotate ---

DRAFT = """\
apiVersion: sealflow/v1
version: 1
expires: 2999-01-01T00:00:00Z
grace_hours: 24
identities:
  trainer:
    key: old.pem.pub
    producers: [cli]
rules:
  - name: models
    scope: {artifact: ["%s/**"]}
    require:
      identities: {any_of: [trainer]}
"""


@pytest.fixture
def keys(cli: Cli, tmp_path: Path) -> dict[str, str]:
    made = {name: body(cli("keys", "generate", f"{name}.pem", "--json"))["key"] for name in ("old", "new", "other")}
    (tmp_path / "policy.yaml").write_text(DRAFT % tmp_path)
    return made


def test_a_rotation_from_the_first_day_to_the_last(cli: Cli, tmp_path: Path, keys: dict[str, str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        assert cli("sign", name, "--signer", "file:old.pem").returncode == 0
    rotated = body(cli("keys", "rotate", "old.pem.pub", "file:new.pem", "a", "b", "--policy", "policy.yaml", "--json"))
    assert (rotated["old"], rotated["new"]) == (keys["old"], keys["new"])
    assert [(len(item["added"]), item["present"]) for item in rotated["artifacts"]] == [(2, 0)] * 2
    assert rotated["policy"]["changed"] is True
    # Whatever stopped it: the second run finds all of it there.
    text, objects = (tmp_path / "policy.yaml").read_text(), sorted(tmp_path.rglob("*.json"))
    again = body(cli("keys", "rotate", "old.pem.pub", "file:new.pem", "a", "b", "--policy", "policy.yaml", "--json"))
    assert [(item["added"], item["present"]) for item in again["artifacts"]] == [([], 2)] * 2
    assert again["policy"]["changed"] is False
    assert ((tmp_path / "policy.yaml").read_text(), sorted(tmp_path.rglob("*.json"))) == (text, objects)
    # During the window tasks sign with both; what they sign and what was signed before passes under either key.
    (tmp_path / "c").write_text("c")
    assert cli("sign", "c", "--signer", "file:old.pem?also=file:new.pem").returncode == 0
    for name in ("a", "b", "c"):
        for key in ("old", "new"):
            done = cli("verify", name, "--identity", f"{key}.pem.pub", "--policy", "policy.yaml", "--json")
            assert done.returncode == 0, done.stdout
            (verdict,) = [body(done)]
            assert keys[key] in {signer["key"] for signer in verdict["signers"]}
        assert cli("verify", name, "--identity", "other.pem.pub").returncode == 4
    # After it the old identity has ended, and the new one's bundles carry all of them.
    ended = "".join(
        "    expires: 2020-01-01T00:00:00Z\n"
        if line.strip().startswith("expires:") and line.startswith("    ")
        else line
        for line in text.splitlines(keepends=True)
    )
    (tmp_path / "policy.yaml").write_text(ended)
    for name in ("a", "b", "c"):
        verdict = body(cli("verify", name, "--policy", "policy.yaml", "--json"))
        assert verdict["status"] == "passed"
        assert {signer["key"] for signer in verdict["signers"]} == {keys["new"]}
    events = [event for event in read_events(tmp_path / "spool") if event["action"] == "key-rotate"]
    assert {event["key"] for event in events} == {keys["new"]}
    assert [event["phase"] for event in events] == ["intent", "outcome"] * 3


def test_a_stop_between_two_bundles_is_made_good(cli: Cli, tmp_path: Path, keys: dict[str, str]) -> None:
    (tmp_path / "a").write_text("a")
    cli("sign", "a", "--signer", "file:old.pem")
    first = body(cli("keys", "rotate", "old.pem.pub", "file:new.pem", "a", "--json"))["artifacts"][0]["added"]
    for name in first:
        (lost,) = (tmp_path / "a.evidence").rglob(name)
        lost.unlink()
        again = body(cli("keys", "rotate", "old.pem.pub", "file:new.pem", "a", "--json"))["artifacts"][0]
        assert (len(again["added"]), again["present"]) == (1, 1)
    assert cli("verify", "a", "--identity", "new.pem.pub").returncode == 0


def test_only_what_the_old_key_stands_for_is_signed_again(cli: Cli, tmp_path: Path, keys: dict[str, str]) -> None:
    for name in ("altered", "foreign", "good"):
        (tmp_path / name).write_text(name)
        cli("sign", name, "--signer", "file:other.pem" if name == "foreign" else "file:old.pem")
    (tmp_path / "altered").write_text("changed since")
    before = (
        sorted((tmp_path / "altered.evidence").rglob("*.json")),
        sorted((tmp_path / "foreign.evidence").rglob("*.json")),
    )
    done = cli("keys", "rotate", "old.pem.pub", "file:new.pem", "altered", "foreign", "good", "--json")
    assert done.returncode == 4
    assert [item["status"] for item in body(done)["artifacts"]] == ["failed", "failed", "passed"]
    after = (
        sorted((tmp_path / "altered.evidence").rglob("*.json")),
        sorted((tmp_path / "foreign.evidence").rglob("*.json")),
    )
    assert after == before
    assert cli("verify", "good", "--identity", "new.pem.pub").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("old.pem.pub", "file:new.pem"), "USAGE"),
        (("old.pem.pub", "file:old.pem", "a"), "USAGE"),
        (("old.pem.pub", "old.pem.pub", "--policy", "policy.yaml"), "USAGE"),
        (("old.pem.pub", "new.pem", "--policy", "policy.yaml"), "USAGE"),  # a private key where a public one belongs
        (("other.pem.pub", "new.pem.pub", "--policy", "policy.yaml"), "KEY_MISSING"),
        (("old.pem.pub", "new.pem.pub", "--policy", "absent.yaml"), "POLICY_MISSING"),
        (("old.pem.pub", "new.pem.pub", "--policy", "policy.yaml", "--days", "0"), "USAGE"),
        (("old.pem.pub", "new.pem.pub", "--policy", "policy.yaml", "--days", "400"), "USAGE"),
        (("old.pem.pub", "file:new.pem?also=file:other.pem", "a"), "USAGE"),
    ],
)
def test_rotations_that_cannot_be(
    cli: Cli, tmp_path: Path, keys: dict[str, str], arguments: tuple[str, ...], code: str
) -> None:
    (tmp_path / "a").write_text("a")
    text = (tmp_path / "policy.yaml").read_text()
    done = cli("keys", "rotate", *arguments, "--json")
    assert (done.returncode, body(done)["error"]["code"]) == (2, code)
    assert (tmp_path / "policy.yaml").read_text() == text


def test_an_encrypted_artifact_is_left_as_it_is(cli: Cli, tmp_path: Path, keys: dict[str, str]) -> None:
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    (tmp_path / "a").write_text("a")
    opener = {"SEALFLOW_RECIPIENTS": "aes:team.key"}
    assert cli("upload", "a", "sealed", "--signer", "file:old.pem", **opener).returncode == 0
    done = cli("keys", "rotate", "old.pem.pub", "file:new.pem", "sealed", "--json", **opener)
    assert (done.returncode, body(done)["error"]["code"]) == (2, "KEY_UNSUPPORTED")
    assert cli("verify", "sealed", "--identity", "old.pem.pub", **opener).returncode == 0


# --- list ---


def in_days(days: float) -> str:
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


LISTED = """\
apiVersion: sealflow/v1
version: 1
expires: 2999-01-01T00:00:00Z
identities:
  trainer: {key: old.pem.pub, producers: ["airflow:train/*"], valid_from: %(past)s, expires: %(soon)s}
  other: {key: other.pem.pub, valid_from: %(later)s}
  gone: {key: new.pem.pub, expires: %(past)s}
  gate: {key: gate.pem.pub, verifier: true}
  person: {certificate: {roots: [ca.pem], names: ["email:ada@example.org"]}}
rules:
  - name: models
    scope: {artifact: ["s3://models/**"]}
    require:
      identities: {any_of: [trainer, person]}
      reuse_verdict: {max_age: 1h}
  - name: data
    scope: {artifact: ["s3://data/**", "name:table"]}
    require: {identities: {all_of: [other]}, lineage: {roots: [trainer]}}
delegations:
  - {team: blue, artifact: ["s3://blue/**"], key: old.pem.pub, policy: s3://blue-admin/policy.json}
"""


@pytest.fixture
def listed(cli: Cli, tmp_path: Path, keys: dict[str, str]) -> dict[str, str]:
    keys["gate"] = body(cli("keys", "generate", "gate.pem", "--json"))["key"]
    (tmp_path / "ca.pem").write_bytes(certify("root", ca=True).pem)
    times = {"past": in_days(-40), "soon": in_days(6.5), "later": in_days(5)}
    (tmp_path / "listed.yaml").write_text(LISTED % times)
    (tmp_path / "revocations.yaml").write_text(
        "apiVersion: sealflow/v1\nkind: Revocations\nversion: 1\nexpires: 2999-01-01T00:00:00Z\nrevocations:\n"
        f"- {{key: '{keys['old']}', since: 2026-01-01T00:00:00Z, reason: the laptop was stolen}}\n"
        "- {identity: person, since: 2026-01-02T00:00:00Z, reason: left the company}\n"
    )
    return keys


def test_a_policys_keys_and_what_each_is_trusted_for(cli: Cli, listed: dict[str, str]) -> None:
    shown = body(cli("keys", "list", "--policy", "listed.yaml", "--json"))
    assert (shown["policy"], shown["believed"], shown["revocations"]) == ("listed.yaml", "a draft", "")
    found = {item["key"]: item for item in shown["keys"]}
    assert set(found) == {*(listed[name] for name in ("old", "new", "other", "gate")), ""}
    signer, team = found[listed["old"]]["trust"]
    assert (signer["identity"], signer["role"], signer["state"]) == ("trainer", "signer", "valid")
    assert signer["producers"] == ["airflow:train/*"]
    assert {rule["name"]: rule["artifact"] for rule in signer["rules"]} == {
        "models": ["s3://models/**"],
        "data": ["s3://data/**", "name:table"],
    }
    assert (team["identity"], team["role"]) == ("blue", "team")
    assert found[listed["old"]]["warnings"][0].startswith("trainer expires within 7 days, on ")
    assert found[listed["other"]]["trust"][0]["state"] == "not yet"
    assert found[listed["new"]]["trust"][0]["state"] == "expired"
    assert found[listed["new"]]["trust"][0]["rules"] == []
    assert found[listed["new"]]["warnings"][0].startswith("gone has expired, on ")
    assert (found[listed["gate"]]["trust"][0]["role"], len(found[listed["gate"]]["trust"][0]["rules"])) == (
        "verifier",
        1,
    )
    assert found[""]["names"] == ["email:ada@example.org"]
    assert all(item["revoked"] is None for item in shown["keys"])


@pytest.mark.parametrize(("days", "said"), [(29, "30 days"), (6, "7 days"), (0.5, "1 day"), (31, None)])
def test_warnings_begin_30_7_and_1_days_before(
    cli: Cli, tmp_path: Path, listed: dict[str, str], days: float, said: str | None
) -> None:
    times = {"past": in_days(-40), "soon": in_days(days), "later": in_days(5)}
    (tmp_path / "listed.yaml").write_text(LISTED % times)
    (item,) = body(cli("keys", "list", "old.pem.pub", "--policy", "listed.yaml", "--json"))["keys"]
    assert [said in text for text in item["warnings"]] == ([True] if said else [])  # type: ignore[operator]


def test_what_was_revoked(cli: Cli, listed: dict[str, str]) -> None:
    options = ("--policy", "listed.yaml", "--revocations", "revocations.yaml")
    shown = body(cli("keys", "list", *options, "--json"))
    found = {item["key"]: item for item in shown["keys"]}
    assert found[listed["old"]]["revoked"] == {"since": "2026-01-01T00:00:00Z", "reason": "the laptop was stolen"}
    assert {trust["state"] for trust in found[listed["old"]]["trust"]} == {"revoked"}
    assert found[""]["revoked"]["reason"] == "left the company"
    assert found[""]["trust"][0]["state"] == "revoked"
    text = cli("keys", "list", *options).stdout
    for part in ("revoked    since 2026-01-01", "the laptop was stolen", "rule models: s3://models/**", "not yet"):
        assert part in text
    # A key of no policy can be on the list too.
    (alone,) = body(cli("keys", "list", "old.pem.pub", "--revocations", "revocations.yaml", "--json"))["keys"]
    assert (alone["revoked"]["reason"], alone["trust"]) == ("the laptop was stolen", [])


def test_keys_by_their_place(cli: Cli, tmp_path: Path, listed: dict[str, str]) -> None:
    (tmp_path / "cert.pem").write_bytes(certify("short", valid_to=NOW + datetime.timedelta(days=5)).pem)
    shown = body(cli("keys", "list", "old.pem.pub", "file:other.pem.pub", "cert.pem", "--json"))["keys"]
    assert [item["key"] for item in shown[:2]] == [listed["old"], listed["other"]]
    assert [item["sources"] for item in shown] == [["old.pem.pub"], ["file:other.pem.pub"], ["cert.pem"]]
    assert "The certificate expires within 7 days" in shown[2]["warnings"][0]
    assert "trusted    for nothing" in cli("keys", "list", "old.pem.pub").stdout
    secret = cli("keys", "list", "old.pem", "--json")
    assert (secret.returncode, body(secret)["error"]["code"]) == (2, "USAGE")
    assert cli("keys", "list", "absent.pem").returncode == 2
