"""Revoking: one list, rising versions, nothing lost, nothing that fails open."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.respond_revoke import Revoked, revoke
from sealflow.actions.revocation_list import read_list
from sealflow.errors import PolicyError, UsageError
from sealflow.hashing import sha256_hex
from tests.audit_events import read_events
from tests.core.actions.radius_world import digest
from tests.core.conftest import Cli, body
from tests.core.policy.deployment import Deployment, policy, rule

SINCE = "2026-09-01T12:00:00Z"


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Office(Deployment):
    """An admin who revokes."""

    @property
    def list(self) -> Path:
        return self.folder / "admin" / "revocations.json"

    def revoke(self, subject: Any, **options: Any) -> Revoked:
        given = {"since": SINCE, "reason": "laptop stolen", "list_place": str(self.list), "new_list": True, **options}
        return revoke(subject, signer=given.pop("signer", self.key("admin").signer), **given)

    def entries(self) -> list[dict[str, Any]]:
        found = read_list(str(self.list), [str(self.key("admin").public)])
        assert found is not None
        return [item.as_json(without="none") for item in found.document.revocations]

    def version(self) -> int:
        found = read_list(str(self.list), [str(self.key("admin").public)])
        return 0 if found is None else found.document.version


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "office")


def fingerprint(office: Office, name: str) -> str:
    return "sha256:" + sha256_hex(office.key(name).public.read_bytes())


def test_a_key_then_more(office: Office) -> None:
    made = office.revoke(str(office.key("trainer").public), ticket="INC-7")
    assert (made.version, made.written) == (1, True)
    assert office.revoke(digest(1), kind="digest").version == 2
    assert office.revoke("email:eve@example.org").version == 3
    assert office.entries() == [
        {"key": fingerprint(office, "trainer"), "since": SINCE, "reason": "laptop stolen", "id": "INC-7"},
        {"digest": str(digest(1)), "since": SINCE, "reason": "laptop stolen"},
        {"identity": "email:eve@example.org", "since": SINCE, "reason": "laptop stolen"},
    ]


def test_the_same_again_does_nothing(office: Office) -> None:
    office.revoke(str(office.key("trainer").public))
    before = office.list.read_bytes()
    again = office.revoke(str(office.key("trainer").public), reason="said twice")
    assert (again.version, again.written) == (1, False)
    # Later is no more than what holds already; earlier is.
    assert not office.revoke(str(office.key("trainer").public), since="2026-10-01").written
    assert office.list.read_bytes() == before
    assert office.revoke(str(office.key("trainer").public), since="2026-08-01").version == 2
    assert len(office.entries()) == 2


def test_bare_sha256_leaves_neither_in_force(office: Office) -> None:
    """A fingerprint looks like a file's digest; a wrong guess would leave the stolen key in force."""
    text = fingerprint(office, "trainer")
    office.revoke(text)
    assert [{name for name in item if name in ("key", "digest")} for item in office.entries()] == [{"key"}, {"digest"}]
    office.revoke(fingerprint(office, "other"), kind="key")
    assert "digest" not in office.entries()[-1]


def test_locations_and_references(office: Office, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"artifact 1")
    office.revoke(str(tmp_path / "model"))
    ref = sealflow.ArtifactRef("s3://bucket/model", digest(2), "s3://bucket/evidence")
    office.revoke(ref)
    assert [item["digest"] for item in office.entries()] == [str(digest(1)), str(digest(2))]


@pytest.mark.parametrize(
    ("subject", "options"),
    [
        ("dirHash:" + "a" * 64, {"kind": "key"}),
        ("email:x@y", {"kind": "key"}),
        ("sha256:" + "a" * 64, {"since": "2999-01-01"}),
        ("sha256:" + "a" * 64, {"since": "yesterday"}),
        ("sha256:" + "a" * 64, {"since": ""}),
        ("sha256:" + "a" * 64, {"life": "forever"}),
        ("sha256:" + "a" * 64, {"list_place": None}),
        ("sha256:" + "a" * 64, {"signer": "file:/nowhere.pem"}),
    ],
    ids=repr,
)
def test_what_cannot_work(office: Office, subject: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        office.revoke(subject, **options)
    assert not office.list.exists()


@pytest.mark.parametrize("options", [{"reason": ""}, {"reason": "two\nlines"}, {"ticket": "no ticket!"}], ids=repr)
def test_what_the_list_does_not_take(office: Office, options: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        office.revoke(digest(1), **options)
    assert not office.list.exists()


def test_a_name_mistyped_revokes_nobody_and_says_so(office: Office) -> None:
    office.publish(policy([rule("all", "**", ["trainer"])], office.identities("trainer")))
    with sealflow.run(sealflow.Surroundings(admin=office.channel())):
        with pytest.raises(UsageError, match="no identity trianer"):
            office.revoke("trianer")
        assert not office.list.exists()
        office.revoke("trainer")
    assert office.entries()[0]["identity"] == "trainer"


def test_a_file_that_is_called_as_an_identity(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office.publish(policy([rule("all", "**", ["trainer"])], office.identities("trainer")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trainer").write_bytes(b"artifact 1")
    with sealflow.run(sealflow.Surroundings(admin=office.channel())):
        with pytest.raises(UsageError, match="is called so"):
            office.revoke("trainer")
        office.revoke("trainer", kind="digest")
        office.revoke("trainer", kind="identity")
    assert [set(item) & {"digest", "identity"} for item in office.entries()] == [{"digest"}, {"identity"}]


def test_a_list_of_somebody_else_is_not_built_on(office: Office) -> None:
    office.revoke(digest(1), kind="digest", signer=office.key("thief").signer)
    before = office.list.read_bytes()
    with pytest.raises(PolicyError):
        office.revoke(digest(2), kind="digest")
    assert office.list.read_bytes() == before
    # Two admins are, where one names the other.
    office.revoke(digest(2), kind="digest", keys=[str(office.key("thief").public)])
    assert len(office.entries()) == 2


def test_a_list_that_is_gone_is_not_begun_anew(office: Office) -> None:
    """Whoever removed it would have its entries forgotten, by the admin's own signature."""
    office.revoke(digest(1), kind="digest")
    office.list.unlink()
    with pytest.raises(UsageError, match="no list"):
        office.revoke(digest(2), kind="digest", new_list=False)
    assert not office.list.exists()


def test_a_list_that_was_put_back(office: Office, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The thief has the list from before his key was on it."""
    office.revoke(digest(1), kind="digest")
    old = office.list.read_bytes()
    office.revoke(str(office.key("trainer").public))
    new = office.list.read_bytes()
    office.list.write_bytes(old)
    for options in ({}, {"after": 2}):
        for subject in (digest(1), digest(2)):
            with pytest.raises(PolicyError, match="version 2"):
                office.revoke(subject, kind="digest", **options)
    assert office.list.read_bytes() == old
    # Another machine knows of nothing, and says so.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="newest"):
        office.revoke(digest(2), kind="digest")
    with pytest.raises(PolicyError):
        office.revoke(digest(2), kind="digest", after=2)
    office.list.write_bytes(new)
    office.revoke(digest(2), kind="digest", after=2)
    assert len(office.entries()) == 3


def test_what_is_only_remembered_is_told(office: Office) -> None:
    """Another responder may have written since, and the thief put the older list back."""
    office.revoke(digest(1), kind="digest")
    assert any("remembers" in text for text in office.revoke(digest(2), kind="digest").warnings)
    assert office.revoke(digest(3), kind="digest", after=2).warnings == ()


def test_nothing_is_asked_where_nothing_is_to_be_written(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died after it wrote, and before it remembered, is followed by one that finds all done."""
    office.revoke(digest(1), kind="digest")
    monkeypatch.setenv("XDG_STATE_HOME", str(office.folder / "elsewhere"))
    assert not office.revoke(digest(1), kind="digest").written


def test_another_list_of_the_same_version(office: Office) -> None:
    office.revoke(digest(1), kind="digest")
    mine = office.list.read_bytes()
    office.revoke(digest(3), kind="digest")
    office.list.write_bytes(mine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(office.folder / "elsewhere"))
        office.revoke(digest(2), kind="digest", after=1)
    with pytest.raises(PolicyError, match="not the one that is known"):
        office.revoke(digest(4), kind="digest")


def test_no_key_signs_a_list_that_revokes_it(office: Office) -> None:
    with pytest.raises(UsageError, match="revokes"):
        office.revoke(str(office.key("admin").public))
    assert not office.list.exists()
    office.revoke(digest(1), kind="digest")
    office.revoke(str(office.key("admin").public), signer=office.key("other").signer, keys=[office.pem("admin")])
    for keys in ((), (office.pem("other"),)):
        with pytest.raises((UsageError, PolicyError)):
            office.revoke(digest(2), kind="digest", keys=keys)


def test_what_was_withdrawn_stays_so_also_where_it_is_revoked_anew(office: Office) -> None:
    from sealflow.actions.revocation_list import sign_list
    from sealflow.policy.revocations import parse_revocations

    office.revoke(digest(1), kind="digest")
    office.revoke(digest(2), kind="digest")
    found = read_list(str(office.list), [office.pem("admin")])
    assert found is not None
    body = found.document.as_json(without="none")
    body["revocations"] = [item for item in body["revocations"] if item["digest"] != str(digest(1))]
    body |= {"version": 3, "withdrawn": [{"digest": str(digest(1)), "version": 3, "reason": "false alarm"}]}
    sign_list(parse_revocations(json.dumps(body).encode()), signer=office.key("admin").signer, output=str(office.list))
    office.revoke(digest(1), kind="digest", after=3)
    found = read_list(str(office.list), [office.pem("admin")])
    assert found is not None
    assert [item.digest for item in found.document.revocations] == [str(digest(2)), str(digest(1))]
    assert [(item.digest, item.version) for item in found.document.withdrawn] == [(str(digest(1)), 3)]


def test_of_many_at_once_none_is_lost(office: Office) -> None:
    office.revoke(digest("first"), kind="digest")
    failed: list[BaseException] = []

    def one(number: int) -> None:
        try:
            office.revoke(digest(number), kind="digest")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert {item["digest"] for item in office.entries()} >= {str(digest(number)) for number in range(6)}
    assert office.version() == 7


def test_the_life_only_grows(office: Office) -> None:
    long = office.revoke(digest(1), kind="digest", life="300d").expires
    assert office.revoke(digest(2), kind="digest", life="1d").expires == long


def test_the_act_is_audited_before_the_key_is_used(office: Office, tmp_path: Path) -> None:
    office.revoke(digest(1), kind="digest")
    events = read_events(tmp_path / "spool")
    said = [(event["action"], event["phase"]) for event in events]
    assert said[0] == ("revoke", "intent")
    assert said[-1] == ("revoke", "outcome")
    assert events[0]["artifact"] == str(digest(1))
    assert events[0]["key"] == fingerprint(office, "admin")


def test_the_command(cli: Cli, office: Office) -> None:
    common = [
        "--since",
        SINCE,
        "--reason",
        "stolen",
        "--list",
        str(office.list),
        "--signer",
        office.key("admin").signer,
    ]
    assert cli("respond", "revoke", str(office.key("trainer").public), *common).returncode == 2
    common.append("--new-list")
    done = cli("respond", "revoke", str(office.key("trainer").public), *common, "--json")
    assert done.returncode == 0, done.stderr
    made = body(done)
    assert made["written"] is True
    assert made["revoked"][0]["key"] == fingerprint(office, "trainer")
    done = cli("respond", "revoke", str(office.key("trainer").public), *common)
    assert "already revoked" in done.stdout
    assert cli("respond", "revoke", str(digest(1)), *common, "--as", "model").returncode == 2
    assert json.loads(office.list.read_bytes())["dsseEnvelope"]["payloadType"].endswith("revocations.v1+json")
