"""The admin's policy comes from the admin's channel alone, and one that is not to be had refuses."""

from __future__ import annotations

import base64
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import context
from sealflow.errors import SealflowError, UsageError
from sealflow.evidence.bundle import MEDIA_TYPE, PAYLOAD_TYPE
from sealflow.policy import source
from sealflow.policy.signed import POLICY_TYPE, WAIVER_TYPE
from sealflow.policy.source import AdminChannel, BrokenChannel, forget, machine_channel
from tests.core.policy.deployment import SCORE, Body, Deployment, at, code, codes, policy, rule
from tests.pki import private_pem, write_pki

pytest_plugins = ["tests.core.policy.fixtures"]


@pytest.fixture
def path(deployment: Deployment) -> Path:
    path = deployment.model()
    deployment.sign(path)
    deployment.publish(body(deployment))
    return path


def body(deployment: Deployment, **more: Any) -> Body:
    rules = [rule("models", f"{deployment.folder}/models/**")]
    return policy(rules, deployment.identities("trainer"), **more)


def laxer(deployment: Deployment, **more: Any) -> Body:
    """A policy under which a stranger's artifact passes."""
    rules = [rule("models", f"{deployment.folder}/models/**", ["stranger"])]
    return policy(rules, deployment.identities("stranger"), **more)


def elapse(monkeypatch: pytest.MonkeyPatch, seconds: float = 61) -> None:
    """Let the process's clock go on, so that what it loaded is no longer fresh."""
    now = time.monotonic() + seconds
    monkeypatch.setattr(source.time, "monotonic", lambda: now)


def replaced(deployment: Deployment, **change: Any) -> bytes:
    """Return the published bundle with members of its envelope exchanged."""
    bundle = json.loads(deployment.place.read_bytes())
    bundle["dsseEnvelope"].update(change)
    return json.dumps(bundle).encode()


# --- Not to be had ---


def _payload(deployment: Deployment, edit: Callable[[Body], object]) -> bytes:
    changed = json.loads(json.dumps(deployment.body))
    edit(changed)
    return replaced(deployment, payload=base64.b64encode(json.dumps(changed).encode()).decode())


def _twice(deployment: Deployment) -> bytes:
    text = json.dumps(laxer(deployment))
    return deployment.bundle(text.replace('"version": 1', '"version": 1, "version": 2').encode())


def _two_signatures(deployment: Deployment) -> bytes:
    bundle = json.loads(deployment.place.read_bytes())
    bundle["dsseEnvelope"]["signatures"] *= 2
    return json.dumps(bundle).encode()


def _certificate(deployment: Deployment) -> bytes:
    from sealflow.keys import load_signer
    from sealflow.policy.signed import make_signed

    pki = write_pki(deployment.folder)
    return make_signed(json.dumps(deployment.body).encode(), load_signer(pki.signer), POLICY_TYPE)


BROKEN: dict[str, Callable[[Deployment], bytes | None]] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "not-json": lambda _: b"{",
    "binary": lambda _: bytes(range(256)),
    "unsigned": lambda d: json.dumps(laxer(d)).encode(),
    "another-key": lambda d: d.bundle(laxer(d), "stranger"),
    "another-key-that-claims-the-admins-hint": lambda d: d.bundle(laxer(d), "stranger").replace(
        _hint(d, "stranger"), _hint(d, "admin")
    ),
    "a-key-of-the-channels-that-is-for-waivers": lambda d: d.bundle(laxer(d), "waivers"),
    "a-certificate": _certificate,
    "signed-as-an-attestation": lambda d: d.bundle(laxer(d), payload_type=PAYLOAD_TYPE),
    "signed-as-a-waiver": lambda d: d.bundle(laxer(d), payload_type=WAIVER_TYPE),
    "a-waiver-retyped": lambda d: d.bundle(d.waiver("models"), payload_type=WAIVER_TYPE).replace(
        WAIVER_TYPE.encode(), POLICY_TYPE.encode()
    ),
    "a-waiver-signed-as-a-policy": lambda d: d.bundle(d.waiver("models")),
    "evidence-of-an-artifact": lambda d: next(d.folder.rglob("signature-*.json")).read_bytes(),
    "payload-changed": lambda d: _payload(d, lambda b: b["identities"].update(d.identities("stranger"))),
    "payload-expiry-changed": lambda d: _payload(d, lambda b: b.update(expires=at(days=900))),
    "truncated": lambda d: d.place.read_bytes()[:-40],
    "truncated-payload": lambda d: replaced(
        d, payload=json.loads(d.place.read_bytes())["dsseEnvelope"]["payload"][:-4]
    ),
    "two-signatures": _two_signatures,
    "no-signature": lambda d: replaced(d, signatures=[]),
    "empty-signature": lambda d: replaced(d, signatures=[{"sig": "", "keyid": ""}]),
    "bare-envelope": lambda d: json.dumps(json.loads(d.place.read_bytes())["dsseEnvelope"]).encode(),
    "two-documents": lambda d: d.place.read_bytes() * 2,
    "duplicate-members-around": lambda d: d.place.read_bytes().replace(b'{"dsse', b'{"mediaType":"x","dsse', 1),
    "duplicate-keys": _twice,
    "deep": lambda d: d.bundle(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "oversized": lambda d: b" " * (7 << 20),
    "oversized-payload": lambda d: d.bundle(json.dumps(laxer(d)).encode() + b" " * (4 << 20)),
    "not-a-mapping": lambda d: d.bundle(b"[]"),
    "empty-mapping": lambda d: d.bundle({}),
    "null": lambda d: d.bundle(b"null"),
    "not-utf8": lambda d: d.bundle(b'{"apiVersion":"\xff"}'),
    "nan": lambda d: d.bundle(json.dumps(laxer(d)).replace('"version": 1', '"version": NaN').encode()),
    "unknown-field": lambda d: d.bundle({**laxer(d), "default": "allow"}),
    "unknown-api": lambda d: d.bundle({**laxer(d), "apiVersion": "sealflow/v1beta1"}),
    "other-api": lambda d: d.bundle({**laxer(d), "apiVersion": "other/v2"}),
    "no-api": lambda d: d.bundle({k: v for k, v in laxer(d).items() if k != "apiVersion"}),
    "version-as-text": lambda d: d.bundle({**laxer(d), "version": "1"}),
    "version-as-float": lambda d: d.bundle({**laxer(d), "version": 1.0}),
    "version-as-bool": lambda d: d.bundle({**laxer(d), "version": True}),
    "version-zero": lambda d: d.bundle({**laxer(d), "version": 0}),
    "version-huge": lambda d: d.bundle({**laxer(d), "version": 10**30}),
    "expires-missing": lambda d: d.bundle({k: v for k, v in laxer(d).items() if k != "expires"}),
    "expires-as-number": lambda d: d.bundle({**laxer(d), "expires": 4102444800}),
    "expires-without-a-zone": lambda d: d.bundle({**laxer(d), "expires": "2099-01-01T00:00:00"}),
    "expires-at-the-end-of-time": lambda d: d.bundle({**laxer(d), "expires": "9999-12-31T23:59:59-12:00"}),
    "expired": lambda d: d.bundle(laxer(d, expires=at(seconds=-2))),
    "expired-beyond-its-grace": lambda d: d.bundle(laxer(d, expires=at(hours=-5), grace_hours=4)),
    "grace-for-ever": lambda d: d.bundle(laxer(d, grace_hours=10**9)),
    "key-by-its-place": lambda d: d.bundle(_with_identity(d, {"key": str(d.key("stranger").public)})),
    "key-by-uri": lambda d: d.bundle(_with_identity(d, {"key": "awskms:alias/key"})),
    "private-key": lambda d: d.bundle(_with_identity(d, {"key": d.key("stranger").private.read_text()})),
    "key-with-another-spelling": lambda d: d.bundle(_with_identity(d, {"key": d.pem("stranger") + "\n"})),
    "key-with-a-preface": lambda d: d.bundle(_with_identity(d, {"key": "\n" + d.pem("stranger")})),
    "roots-by-their-place": lambda d: d.bundle(
        _with_identity(d, {"certificate": {"roots": ["/etc/ssl/ca.pem"], "names": ["email:a@example.org"]}})
    ),
    "names-without-a-label": lambda d: d.bundle(
        _with_identity(d, {"certificate": {"roots": [d.pem("stranger")], "names": ["a@example.org"]}})
    ),
    "unknown-identity": lambda d: d.bundle({**laxer(d), "identities": {}}),
    "a-verifier-as-a-signer": lambda d: d.bundle(_with_identity(d, {"key": d.pem("stranger"), "verifier": True})),
    "a-verifier-with-a-signers-key": lambda d: d.bundle(
        {**laxer(d), "identities": {**d.identities("stranger"), "v": {"key": d.pem("stranger"), "verifier": True}}}
    ),
    "no-rule-name": lambda d: d.bundle({**laxer(d), "rules": [{"scope": {"artifact": ["**"]}}]}),
    "rule-twice": lambda d: d.bundle({**laxer(d), "rules": laxer(d)["rules"] * 2}),
    "contradiction": lambda d: d.bundle(
        {
            **laxer(d),
            "identities": d.identities("stranger", "trainer"),
            "rules": [rule("a", "/data/**", ["stranger"]), rule("b", "/data/x", ["trainer"])],
        }
    ),
    "scope-of-nowhere": lambda d: d.bundle({**laxer(d), "rules": [rule("a", "models/**", ["stranger"])]}),
    **{
        f"not-landed-{name}": lambda d, name=name: d.bundle(
            {**laxer(d), "rules": [rule("a", "**", ["stranger"], require={name: ["x"]})]}
        )
        for name in ("recipients", "lineage", "gates", "audit")
    },
}


def _hint(deployment: Deployment, name: str) -> bytes:
    from sealflow.keys import load_public_key

    return load_public_key(str(deployment.key(name).public)).hint.encode()


def _with_identity(deployment: Deployment, identity: Body) -> Body:
    return {**laxer(deployment), "identities": {"stranger": identity}}


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_broken(deployment: Deployment, path: Path, how: str) -> None:
    """Managed artifacts wait, with a code that says so and that a retry may heal; others run."""
    data = BROKEN[how](deployment)
    deployment.place.unlink()
    if data is not None:
        deployment.place.write_bytes(data)
    forget()
    other = deployment.model("free/f.bin")
    for key in ("trainer", "stranger"):
        deployment.sign(path, key)
        deployment.sign(other, key)
    channel = deployment.channel(
        managed=[f"{deployment.folder}/models/**"], waiver_keys=[str(deployment.key("waivers").public)]
    )
    for options in ({}, {"identities": str(deployment.key("stranger").public)}):
        verdict = deployment.verify(path, channel=channel, **options)
        assert (verdict.status, code(verdict)) == ("unverifiable", "POLICY_UNAVAILABLE"), verdict.as_dict()
        assert verdict.deciding_finding is not None
        assert verdict.deciding_finding.next_step
    assert deployment.verify(other, channel=channel, identities=str(deployment.key("stranger").public)).passed
    # By default everything is managed.
    assert code(deployment.verify(other, identities=str(deployment.key("stranger").public))) == "POLICY_UNAVAILABLE"
    with (
        pytest.raises(sealflow.VerificationError) as caught,
        sealflow.run(sealflow.Surroundings(SCORE, admin=channel)),
        sealflow.verified(str(path)),
    ):
        pass
    assert caught.value.retryable


def test_a_newer_form(deployment: Deployment, path: Path) -> None:
    deployment.publish({**body(deployment), "apiVersion": "sealflow/v2", "kinds": {}})
    verdict = deployment.verify(path)
    assert (verdict.status, code(verdict)) == ("unverifiable", "POLICY_TOO_NEW")


def test_a_pipe_in_its_place(deployment: Deployment, path: Path) -> None:
    deployment.place.unlink()
    os.mkfifo(deployment.place)
    forget()
    assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"


def test_a_link_in_its_place(deployment: Deployment, path: Path) -> None:
    """What is signed may come over any way; a link at the end of it is as strange as for evidence."""
    (deployment.folder / "elsewhere.json").write_bytes(deployment.place.read_bytes())
    deployment.place.unlink()
    deployment.place.symlink_to(deployment.folder / "elsewhere.json")
    forget()
    assert code(deployment.verify(path)) in ("POLICY_UNAVAILABLE", "passed")


@pytest.mark.parametrize(
    "keys",
    [["{}/nowhere.pem"], ["{}/admin.pem"], ["{}"], ["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]],
)
def test_a_key_that_cannot_be_had(deployment: Deployment, path: Path, keys: list[str]) -> None:
    channel = deployment.channel(keys=[key.format(deployment.folder) for key in keys])
    assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


# --- Rollback, expiry, grace ---


class TestRollback:
    def test_on_a_fresh_worker(self, deployment: Deployment, path: Path) -> None:
        deployment.publish(body(deployment, version=4))
        assert code(deployment.verify(path, channel=deployment.channel(minimum_version=5))) == "POLICY_UNAVAILABLE"
        assert deployment.verify(path, channel=deployment.channel(minimum_version=4)).passed

    def test_on_a_worker_that_kept_the_newer_one(self, deployment: Deployment, path: Path) -> None:
        channel = deployment.channel(state=str(deployment.folder / "state"))
        deployment.publish(body(deployment, version=7))
        assert deployment.verify(path, channel=channel).passed
        deployment.publish(laxer(deployment, version=6))
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"
        deployment.publish(laxer(deployment, version=8))
        assert code(deployment.verify(path, channel=channel)) == "SIGNER_NOT_ALLOWED"

    def test_while_a_process_lives(self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deployment.publish(body(deployment, version=7))
        assert deployment.verify(path).passed
        deployment.place.write_bytes(deployment.bundle(laxer(deployment, version=6)))
        assert deployment.verify(path).passed, "what was loaded within the last minute is used"
        elapse(monkeypatch)
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"
        deployment.place.write_bytes(deployment.bundle(laxer(deployment, version=8)))
        assert code(deployment.verify(path)) == "SIGNER_NOT_ALLOWED"

    def test_of_a_team_while_a_process_lives(
        self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = deployment.folder / "team.json"
        models = f"{deployment.folder}/models/**"
        delegation = {"team": "ml", "artifact": [models], "key": deployment.pem("team"), "policy": str(place)}
        deployment.publish(body(deployment, delegations=[delegation]))
        strict = rule("ours", models, [], require={"loaders": ["airflow:nobody/*"]})
        deployment.publish(policy([strict], version=2), "team", place)
        assert code(deployment.verify(path)) == "LOADER_NOT_ALLOWED"
        place.write_bytes(deployment.bundle(policy([], version=1), "team"))
        elapse(monkeypatch)
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"


class TestExpiry:
    def test_while_a_process_lives(self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was loaded a second ago is not used beyond its own end."""
        deployment.publish(body(deployment, expires=at(hours=1)))
        assert deployment.verify(path).passed
        later = sealflow.actions.policies.utc_now() + datetime.timedelta(hours=2)
        monkeypatch.setattr("sealflow.actions.policies.utc_now", lambda: later)
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    def test_signed_grace(self, deployment: Deployment, path: Path) -> None:
        deployment.publish(body(deployment, expires=at(hours=-1), grace_hours=2))
        verdict = deployment.verify(path)
        assert verdict.passed
        assert "POLICY_IN_GRACE" in codes(verdict)
        deployment.publish(body(deployment, expires=at(hours=-3), grace_hours=2))
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    @pytest.mark.parametrize("days", [0.5, 5, 20, 40])
    def test_warnings(self, deployment: Deployment, path: Path, days: float) -> None:
        identities = {"trainer": deployment.identity(expires=at(days=days))}
        deployment.publish({**body(deployment, expires=at(days=days)), "identities": identities})
        found = codes(deployment.verify(path))
        assert ({"POLICY_EXPIRES_SOON", "KEY_EXPIRES_SOON"} <= found) is (days < 30)


class TestGraceDuringAnOutage:
    @pytest.fixture(params=["state", "process"])
    def channel(self, deployment: Deployment, request: pytest.FixtureRequest) -> AdminChannel:
        return deployment.channel(**({"state": str(deployment.folder / "state")} if request.param == "state" else {}))

    def outage(self, channel: AdminChannel, monkeypatch: pytest.MonkeyPatch) -> None:
        if channel.state:
            forget()
        else:
            elapse(monkeypatch)

    @pytest.mark.parametrize("how", ["missing", "unsigned", "another-key", "truncated"])
    def test_the_last_good_one_stands_in(
        self, deployment: Deployment, path: Path, channel: AdminChannel, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployment.publish(body(deployment, grace_hours=1))
        assert deployment.verify(path, channel=channel).passed
        data = BROKEN[how](deployment)
        deployment.place.unlink()
        if data is not None:
            deployment.place.write_bytes(data)
        self.outage(channel, monkeypatch)
        verdict = deployment.verify(path, channel=channel)
        assert verdict.passed
        assert "POLICY_IN_GRACE" in codes(verdict)
        deployment.sign(path, "stranger")
        assert code(deployment.verify(deployment.model("models/n.bin"), channel=channel)) == "EVIDENCE_MISSING"

    def test_only_where_its_admin_signed_a_grace(
        self, deployment: Deployment, path: Path, channel: AdminChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deployment.publish(body(deployment))
        assert deployment.verify(path, channel=channel).passed
        deployment.place.unlink()
        self.outage(channel, monkeypatch)
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


class TestTheStateFolder:
    """Whoever can write there can make an old policy stand in until its own grace ends, and do nothing else."""

    def kept(self, deployment: Deployment) -> Path:
        (path,) = (deployment.folder / "state").glob("policy-*.json")
        return path

    @pytest.fixture
    def channel(self, deployment: Deployment, path: Path) -> AdminChannel:
        deployment.publish(body(deployment, version=3, grace_hours=24))
        channel = deployment.channel(state=str(deployment.folder / "state"))
        assert deployment.verify(path, channel=channel).passed
        deployment.place.unlink()
        forget()
        return channel

    def entry(self, data: bytes, seen: str) -> bytes:
        return json.dumps({"seen": seen, "bundle": base64.b64encode(data).decode()}).encode()

    @pytest.mark.parametrize(
        "how",
        ["empty", "not-json", "unsigned", "another-key", "binary", "deep", "oversized", "pipe", "folder", "link",
         "seen-long-ago", "seen-in-the-future", "seen-at-the-start-of-time", "seen-at-the-end-of-time",
         "seen-without-a-zone", "seen-as-number", "below-the-minimum"],
    )  # fmt: skip
    def test_tampered(self, deployment: Deployment, path: Path, channel: AdminChannel, how: str) -> None:
        kept = self.kept(deployment)
        good = base64.b64decode(json.loads(kept.read_bytes())["bundle"])
        seen = json.loads(kept.read_bytes())["seen"]
        contents: dict[str, bytes] = {
            "empty": b"",
            "not-json": b"{",
            "unsigned": self.entry(json.dumps(laxer(deployment)).encode(), seen),
            "another-key": self.entry(deployment.bundle(laxer(deployment, grace_hours=24), "stranger"), seen),
            "binary": bytes(range(256)),
            "deep": b"[" * 100_000,
            "oversized": b" " * (13 << 20),
            "seen-long-ago": self.entry(good, at(days=-9)),
            "seen-in-the-future": self.entry(good, at(days=9)),
            "seen-at-the-start-of-time": self.entry(good, "0001-01-01T00:00:00+00:00"),
            "seen-at-the-end-of-time": self.entry(good, "9999-12-31T23:59:59-12:00"),
            "seen-without-a-zone": self.entry(good, "2026-01-01T00:00:00"),
            "seen-as-number": json.dumps({"seen": 5, "bundle": "AAAA"}).encode(),
            "below-the-minimum": self.entry(deployment.bundle(laxer(deployment, version=1, grace_hours=24)), seen),
        }
        kept.unlink()
        if how == "pipe":
            os.mkfifo(kept)
        elif how == "folder":
            kept.mkdir()
        elif how == "link":
            (deployment.folder / "copy").write_bytes(self.entry(good, seen))
            kept.symlink_to(deployment.folder / "copy")
        else:
            kept.write_bytes(contents[how])
        if how == "below-the-minimum":
            channel = deployment.channel(state=channel.state, minimum_version=3)
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"
        # And it does no harm once the policy is back.
        deployment.publish(body(deployment, version=4))
        assert deployment.verify(path, channel=channel).passed

    def test_a_planted_link_is_not_followed(self, deployment: Deployment, path: Path) -> None:
        victim = deployment.folder / "victim"
        victim.write_text("precious")
        state = deployment.folder / "state"
        state.mkdir()
        channel = deployment.channel(state=str(state))
        deployment.publish(body(deployment))
        assert deployment.verify(path, channel=channel).passed
        kept = self.kept(deployment)
        kept.unlink()
        kept.symlink_to(victim)
        forget()
        assert deployment.verify(path, channel=channel).passed
        assert victim.read_text() == "precious"

    def test_a_folder_that_cannot_be_written(self, deployment: Deployment, path: Path) -> None:
        (deployment.folder / "file").write_text("")
        channel = deployment.channel(state=str(deployment.folder / "file" / "state"))
        assert deployment.verify(path, channel=channel).passed


# --- The admin's channel ---


CHANNEL = {"policy": "/etc/sealflow/policy.json", "keys": ["/etc/sealflow/admin.pem"]}

CHANNELS: dict[str, Any] = {
    "list": [],
    "text": "x",
    "null": None,
    "empty": {},
    "no-keys": {"policy": "/p.json"},
    "no-policy": {"keys": ["/k.pem"]},
    "empty-keys": CHANNEL | {"keys": []},
    "empty-key": CHANNEL | {"keys": [""]},
    "keys-as-mapping": CHANNEL | {"keys": {"a": "/k.pem"}},
    "keys-as-number": CHANNEL | {"keys": 5},
    "unknown-member": CHANNEL | {"enforce": False},
    "where": CHANNEL | {"where": "elsewhere"},
    "version-as-text": CHANNEL | {"minimum_version": "5"},
    "version-as-bool": CHANNEL | {"minimum_version": True},
    "version-zero": CHANNEL | {"minimum_version": 0},
    "managed-nothing": CHANNEL | {"managed": []},
    "managed-nowhere": CHANNEL | {"managed": ["models/**"]},
    "managed-typing-error": CHANNEL | {"managed": ["s3:/models/**"]},
    "managed-no-bucket": CHANNEL | {"managed": ["s3:///models/**"]},
    "managed-no-segment": CHANNEL | {"managed": ["file:/models//**"]},
    "managed-by-name": CHANNEL | {"managed": ["name:*"]},
    "managed-alias": CHANNEL | {"managed": ["s3a://models/**"]},
    "relative-policy": CHANNEL | {"policy": "policy.json"},
    "relative-file-uri": CHANNEL | {"policy": "file:policy.json"},
    "policy-on-another-host": CHANNEL | {"policy": "file://host/policy.json"},
    "policy-in-another-case": CHANNEL | {"policy": "File:///policy.json"},
    "policy-without-a-scheme": CHANNEL | {"policy": "://policy.json"},
    "policy-with-no-scheme": CHANNEL | {"policy": "my bucket://policy.json"},
    "home-policy": CHANNEL | {"policy": "~/policy.json"},
    "relative-key": CHANNEL | {"keys": ["admin.pem"]},
    "home-key": CHANNEL | {"keys": ["~/admin.pem"]},
    "key-service": CHANNEL | {"keys": ["awskms:alias/admin"]},
    "key-in-a-bucket": CHANNEL | {"keys": ["s3://keys/admin.pem"]},
    "relative-waivers": CHANNEL | {"waivers": "waivers"},
    "waiver-key-service": CHANNEL | {"waiver_keys": ["awskms:alias/admin"]},
    "relative-state": CHANNEL | {"state": "state"},
    "home-state": CHANNEL | {"state": "~/.sealflow"},
    "state-in-a-bucket": CHANNEL | {"state": "s3://state/x"},
}


@pytest.mark.parametrize("how", CHANNELS)
def test_a_malformed_channel(how: str) -> None:
    with pytest.raises(UsageError):
        AdminChannel.parse(CHANNELS[how], "the channel")


def test_a_broken_channel_manages_everything(deployment: Deployment, path: Path) -> None:
    broken = BrokenChannel(UsageError("no good"))
    for target in (path, deployment.model("free/f.bin")):
        verdict = deployment.verify(target, channel=broken, identities=str(deployment.key("trainer").public))
        assert code(verdict) == "POLICY_UNAVAILABLE"


@pytest.fixture
def give_away(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a file another user's, where all of the deployment is root's.

    Who is not root cannot do that; for him open files only say so.
    """
    if os.geteuid() == 0:
        return lambda file: os.chown(file, 1000, 1000)
    given = set()
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        info = real(descriptor)
        if info.st_uid != os.geteuid():
            return info
        owner = 1000 if (info.st_dev, info.st_ino) in given else 0
        exact = {name: getattr(info, name) for name in dir(info) if name.startswith("st_")}
        return os.stat_result([*info[:4], owner, *info[5:]], exact)

    monkeypatch.setattr(os, "fstat", fstat)

    def give(file: Path) -> None:
        info = file.stat()
        given.add((info.st_dev, info.st_ino))

    return give


class TestTheMachinesFile:
    @pytest.fixture
    def file(
        self,
        deployment: Deployment,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
        give_away: Callable[[Path], None],
    ) -> Path:
        file = deployment.folder / "etc" / "admin.json"
        file.parent.mkdir()
        body = {"policy": str(deployment.place), "keys": [str(deployment.key("admin").public)]}
        file.write_text(json.dumps(body))
        file.chmod(0o644)
        monkeypatch.setattr(source, "MACHINE_FILE", str(file))
        monkeypatch.setattr(context, "MACHINE_FILE", str(file))
        monkeypatch.setattr(source, "ENVIRONMENT_FILE", "etc/sealflow/no-such-file.json")
        return file

    def check(self, deployment: Deployment, **options: Any) -> str:
        """Check without any channel but the machine's, in a run that an author entered."""
        own = deployment.folder / "own.json"
        deployment.publish(laxer(deployment), "stranger", own)
        mine = AdminChannel.parse({"policy": str(own), "keys": [str(deployment.key("stranger").public)]}, "mine")
        path = deployment.folder / "models" / "m.bin"
        with sealflow.run(sealflow.Surroundings(SCORE, admin=mine)):
            return code(sealflow.verify(str(path), **options))

    def test_it_stands_before_all_others(self, deployment: Deployment, file: Path) -> None:
        assert self.check(deployment) == "passed"
        deployment.sign(deployment.model(data=b"evil"), "stranger")
        assert self.check(deployment) == "SIGNER_NOT_ALLOWED"
        file.unlink()
        assert self.check(deployment) == "passed", "without it the run's own channel holds"

    @pytest.mark.parametrize(
        "how",
        ["group-writable", "world-writable", "of-another-user", "link-to-another-users", "dangling-link", "folder",
         "pipe", "socket", "empty", "not-json", "unknown-member", "duplicate-keys", "oversized", "deep", "unreadable"],
    )  # fmt: skip
    def test_one_that_cannot_be_taken_refuses(
        self, deployment: Deployment, file: Path, how: str, give_away: Callable[[Path], None]
    ) -> None:
        good = file.read_bytes()
        if how in ("link-to-another-users", "dangling-link", "folder", "pipe", "socket"):
            file.unlink()
        match how:
            case "group-writable":
                file.chmod(0o664)
            case "world-writable":
                file.chmod(0o646)
            case "of-another-user":
                give_away(file)
            case "link-to-another-users":
                other = deployment.folder / "theirs.json"
                other.write_bytes(good)
                give_away(other)
                file.symlink_to(other)
            case "dangling-link":
                file.symlink_to("nowhere")
            case "folder":
                file.mkdir()
            case "pipe":
                os.mkfifo(file)
            case "socket":
                # By way of the folder's descriptor: a socket's path has 107 characters at most.
                folder = os.open(file.parent, os.O_RDONLY)
                with socket.socket(socket.AF_UNIX) as listening:
                    listening.bind(f"/proc/self/fd/{folder}/{file.name}")
                os.close(folder)
            case "empty":
                file.write_bytes(b"")
            case "not-json":
                file.write_bytes(b"{")
            case "unknown-member":
                file.write_text(json.dumps(json.loads(good) | {"off": True}))
            case "duplicate-keys":
                file.write_bytes(good[:-1] + b', "policy": "/other.json"}')
            case "oversized":
                file.write_bytes(good + b" " * (65 << 10))
            case "deep":
                file.write_bytes(b"[" * 60_000)
            case "unreadable":
                file.write_bytes(b"\xff\xfe")
        assert isinstance(machine_channel(), BrokenChannel)
        assert self.check(deployment) == "POLICY_UNAVAILABLE"
        assert self.check(deployment, identities=str(deployment.key("stranger").public)) == "POLICY_UNAVAILABLE"

    def test_links_of_a_mounted_config_map(self, deployment: Deployment, file: Path) -> None:
        (file.parent / "..data").mkdir()
        file.rename(file.parent / "..data" / "admin.json")
        file.symlink_to("..data/admin.json")
        assert self.check(deployment) == "passed"

    def test_a_folder_that_cannot_be_entered(
        self, deployment: Deployment, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Root enters every folder, so the refusal is played."""
        real = os.lstat

        def lstat(path: Any, **options: Any) -> os.stat_result:
            if str(path) == str(file):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, **options)

        monkeypatch.setattr(os, "lstat", lstat)
        file.unlink()
        assert self.check(deployment) == "POLICY_UNAVAILABLE"

    def test_the_environments_file_is_second(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, give_away: Callable[[Path], None]
    ) -> None:
        monkeypatch.setattr(source, "ENVIRONMENT_FILE", str(file))
        monkeypatch.setattr(source, "MACHINE_FILE", "/nowhere/admin.json")
        channel = machine_channel()
        assert isinstance(channel, AdminChannel)
        assert channel.where == str(file)
        give_away(file)
        assert isinstance(machine_channel(), BrokenChannel)


VARIABLES = [
    "SEALFLOW_POLICY",
    "SEALFLOW_POLICY_KEY",
    "SEALFLOW_POLICY_KEYS",
    "SEALFLOW_ADMIN",
    "SEALFLOW_ADMIN_KEY",
    "SEALFLOW_ADMIN_FILE",
    "SEALFLOW_MINIMUM_VERSION",
    "SEALFLOW_WAIVERS",
    "SEALFLOW_MOUNT",
    "SEALFLOW_IDENTITIES",
    "SEALFLOW_LEVEL",
    "SEALFLOW_DISABLED",
]


def test_no_variable_says_whose_policy_holds(
    deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a settings file that a variable names."""
    own = deployment.folder / "own.json"
    deployment.publish(laxer(deployment), "stranger", own)
    deployment.sign(deployment.model(data=b"evil"), "stranger")
    mount = deployment.folder / "mount"
    mount.mkdir()
    key = str(deployment.key("stranger").public)
    (mount / "sealflow.json").write_text(json.dumps({"identities": key}))
    (mount / "admin.json").write_text(json.dumps({"policy": str(own), "keys": [key]}))
    values = {"SEALFLOW_MOUNT": str(mount), "SEALFLOW_IDENTITIES": key, "SEALFLOW_POLICY_KEY": key}
    for name in VARIABLES:
        monkeypatch.setenv(name, values.get(name, str(own)))
    assert code(deployment.verify(path)) == "SIGNER_NOT_ALLOWED"
    assert code(deployment.verify(path, policy=deployment.draft(laxer(deployment)))) == "SIGNER_NOT_ALLOWED"


@pytest.mark.parametrize("member", ["admin", "policy", "keys", "minimum_version", "managed", "waivers"])
def test_no_settings_file_says_whose_policy_holds(
    deployment: Deployment, path: Path, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = deployment.folder / "mount"
    mount.mkdir()
    (mount / "sealflow.json").write_text(json.dumps({member: str(deployment.folder)}))
    monkeypatch.setenv("SEALFLOW_MOUNT", str(mount))
    with pytest.raises(UsageError):
        deployment.verify(path)


@pytest.mark.parametrize(
    "name",
    ["admin", "admin_key", "policy_key", "policy_keys", "keys", "minimum_version", "waivers", "level", "managed"],
)
def test_no_parameter_says_whose_policy_holds(deployment: Deployment, path: Path, name: str) -> None:
    with pytest.raises(TypeError):
        deployment.verify(path, **{name: str(path)})


def test_a_signed_policy_of_the_authors_own_only_adds(deployment: Deployment, path: Path) -> None:
    own = deployment.folder / "own.json"
    deployment.publish(laxer(deployment), "stranger", own)
    with pytest.raises(SealflowError):
        deployment.verify(path, policy=str(own))
    from sealflow.actions.policies import read_added

    added = read_added(str(own), [str(deployment.key("stranger").public)])
    deployment.sign(deployment.model(data=b"evil"), "stranger")
    assert code(deployment.verify(path, policy=added)) == "SIGNER_NOT_ALLOWED"


# --- A living process ---


def test_many_threads_load_it_once(deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = source._open_policy

    def counting(*arguments: Any) -> Any:
        opened.append(threading.current_thread().name)
        return real(*arguments)

    monkeypatch.setattr(source, "_open_policy", counting)
    forget()
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: deployment.verify(path), range(24)))
    assert all(verdict.passed for verdict in verdicts)
    assert len(opened) == 1


def test_threads_while_it_is_replaced(deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check sees one whole policy, and once a newer one was seen no check sees the older one."""
    good = [
        deployment.bundle(body(deployment, version=number, expires=at(days=300 + number))) for number in range(2, 7)
    ]
    monkeypatch.setattr(source, "FRESH_FOR", 0.0)
    done = threading.Event()

    def replace() -> None:
        for data in good:
            temporary = deployment.place.with_suffix(".new")
            temporary.write_bytes(data)
            temporary.rename(deployment.place)
            time.sleep(0.05)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    with ThreadPoolExecutor(4) as pool:
        while not done.is_set():
            for verdict in pool.map(lambda _: deployment.verify(path), range(4)):
                assert verdict.passed, verdict.as_dict()
    writer.join()


def test_a_fork_while_another_thread_loads(deployment: Deployment, path: Path) -> None:
    """A worker that was forked at a bad moment must not wait for ever."""
    source._lock.acquire()
    try:
        child = os.fork()
        if not child:
            os._exit(0 if deployment.verify(path).passed else 1)
    finally:
        source._lock.release()
    for _ in range(300):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0


def test_the_private_key_of_the_admin_is_no_way_in(deployment: Deployment, path: Path) -> None:
    """A channel that names it is refused, not quietly accepted."""
    from cryptography.hazmat.primitives.asymmetric import ec

    text = private_pem(ec.generate_private_key(ec.SECP256R1())).decode()
    verdict = deployment.verify(path, channel=deployment.channel(keys=[text]))
    assert code(verdict) == "POLICY_UNAVAILABLE"
    assert "PRIVATE" not in json.dumps(verdict.as_dict())


def test_bundles_say_what_they_are(deployment: Deployment, path: Path) -> None:
    bundle = json.loads(deployment.place.read_bytes())
    assert bundle["mediaType"] == MEDIA_TYPE
    assert bundle["dsseEnvelope"]["payloadType"] == POLICY_TYPE
