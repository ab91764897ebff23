"""A revoked or expired signer counts for what an authority saw in time, and for nothing else."""

from __future__ import annotations

import base64
import datetime
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import sealflow
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.upload import upload_artifact
from sealflow.errors import UnavailableError, UsageError
from sealflow.evidence import EvidenceStore
from sealflow.evidence.bundle import make_bundle, parse_bundle
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.timestamp import Authority, Stamping, earliest_stamp
from sealflow.findings import Verdict
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_public_key, load_signer
from sealflow.keys.signer import stamped_by
from sealflow.storage import Storages
from sealflow.verification.opening import open_provenance
from tests.core.policy.deployment import FIT, Body, Deployment, at, code, codes, policy, rule
from tests.lineages import RUNS, Lineage
from tests.lineages import digest as of_lineage
from tests.pki import DAY, NOW, Certified, certify, private_pem, public_pem
from tests.servers.timestamp_authority import TimestampAuthority

pytest_plugins = ["tests.core.policy.fixtures"]

BEFORE, AFTER = {"hours": 1}, {"hours": -1}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimestampAuthority]:
    with TimestampAuthority(tmp_path_factory.mktemp("authority")).serving() as made:
        yield made


@pytest.fixture
def world(deployment: Deployment, authority: TimestampAuthority) -> World:
    return World(deployment, authority)


class World:
    """A deployment whose policy believes an authority."""

    def __init__(self, deployment: Deployment, authority: TimestampAuthority) -> None:
        self.deployment = deployment
        self.authority = authority
        self.path = deployment.model()
        self.govern()

    def govern(self, authorities: Body | None = None, level: str = "enforce", **require: Any) -> None:
        believed = {"company": {"roots": self.authority.roots, "url": self.authority.url}}
        self.deployment.publish(
            policy(
                [rule("models", f"{self.deployment.folder}/models/**", level=level, require=require)],
                self.deployment.identities("trainer"),
                timestamp_authorities=believed if authorities is None else authorities,
            )
        )

    def sign(self, path: Path | None = None, stamped: bool = True) -> Digest:
        options = {"timestamp": self.authority.url} if stamped else {}
        return self.deployment.sign(path or self.path, **options).ref.digest

    def revoke(self, since: dict[str, float], **subject: str) -> None:
        key = f"sha256:{sha256_hex(self.deployment.key('trainer').public.read_bytes())}"
        self.deployment.revoke([{**(subject or {"key": key}), "since": at(**since), "reason": "stolen"}])

    def verify(self, path: Path | None = None, **options: Any) -> Verdict:
        return self.deployment.verify(path or self.path, **options)

    def objects(self, path: Path | None = None, kind: str = "*") -> list[Path]:
        return sorted(Path(f"{path or self.path}.evidence").rglob(f"{kind}-*.json"))

    def change(self, digest: Digest, edit: Callable[[Body, str], object], path: Path | None = None) -> None:
        """Write each bundle anew, changed, under its proper name."""
        store = EvidenceStore(f"{path or self.path}.evidence", Storages())
        for item in self.objects(path):
            kind = item.name.partition("-")[0]
            body = json.loads(item.read_bytes())
            edit(body, kind)
            item.unlink()
            store.put(digest, kind, json.dumps(body).encode())  # type: ignore[arg-type]


def token_of(body: Body) -> list[Body]:
    listed: list[Body] = body["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
    return listed


def stamp(body: Body, token: bytes) -> None:
    listed = [{"signedTimestamp": base64.b64encode(token).decode()}]
    body["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": listed}


def signature_of(body: Body) -> bytes:
    return base64.b64decode(body["dsseEnvelope"]["signatures"][0]["sig"])


# --- Revoked ---


@pytest.mark.parametrize("how", ["key", "identity"])
def test_signed_before(world: World, how: str) -> None:
    world.sign()
    world.revoke(BEFORE, **({"identity": "trainer"} if how == "identity" else {}))
    verdict = world.verify()
    assert verdict.passed
    told = [item for item in verdict.findings if item.code == "SIGNED_BEFORE_REVOCATION"]
    assert {item.severity for item in told} == {"warning"}
    assert len(told) == 2  # the signature and the provenance
    assert all("company" in item.message and "stolen" in item.found for item in told)


def _strip(world: World, digest: Digest) -> None:
    world.change(digest, lambda body, _: body["verificationMaterial"].pop("timestampVerificationData"))


def _strip_one(kind: str) -> Callable[[World, Digest], None]:
    def attack(world: World, digest: Digest) -> None:
        def edit(body: Body, of: str) -> None:
            if of == kind:
                body["verificationMaterial"].pop("timestampVerificationData", None)

        world.change(digest, edit)

    return attack


def _of_a_stranger(world: World, digest: Digest) -> None:
    """An authority of the same names and other keys."""
    forger = TimestampAuthority(world.deployment.folder / "forger")
    world.change(digest, lambda body, _: stamp(body, forger.token(signature_of(body))))


def _over_the_payload(world: World, digest: Digest) -> None:
    """What was signed, and not the signature: anybody could have it stamped before there was one."""
    world.change(
        digest,
        lambda body, _: stamp(body, world.authority.token(base64.b64decode(body["dsseEnvelope"]["payload"]))),
    )


def _copied(world: World, digest: Digest) -> None:
    """The token of another artifact, truly signed and stamped in time."""
    other = world.deployment.model("models/other.bin", b"other weights")
    world.sign(other)
    tokens = {item.name.partition("-")[0]: json.loads(item.read_bytes()) for item in world.objects(other)}
    _strip(world, digest)

    def edit(body: Body, kind: str) -> None:
        body["verificationMaterial"]["timestampVerificationData"] = tokens[kind]["verificationMaterial"][
            "timestampVerificationData"
        ]

    world.change(digest, edit)


def _swapped(world: World, digest: Digest) -> None:
    """Signature and provenance have each other's token."""
    bodies = {item.name.partition("-")[0]: json.loads(item.read_bytes()) for item in world.objects()}
    others = {"signature": "provenance", "provenance": "signature"}
    world.change(digest, lambda body, kind: token_of(body).__setitem__(0, token_of(bodies[others[kind]])[0]))


def _junk(world: World, digest: Digest) -> None:
    world.change(digest, lambda body, _: stamp(body, b"\x30\x03\x02\x01\x00"))


def _nobody_believed(world: World, _: Digest) -> None:
    world.govern({})


def _another_believed(world: World, _: Digest) -> None:
    stranger = TimestampAuthority(world.deployment.folder / "stranger")
    world.govern({"company": {"roots": stranger.roots}})


def _from_after(world: World, _: Digest) -> None:
    world.revoke(AFTER)


def _within_the_accuracy(world: World, _: Digest) -> None:
    """The authority says to a second when it was; it may have been just after."""
    world.revoke({"seconds": _stamped_at(world)})


def _stamped_at(world: World) -> float:
    later = datetime.datetime.now(datetime.timezone.utc)
    found = []
    for item in world.objects():
        bundle = parse_bundle(item.read_bytes())
        stamped = earliest_stamp(
            bundle.timestamps, bundle.signature, [Authority("x", tuple(world.authority.roots))], later
        )
        found.append((stamped.time - NOW).total_seconds() + 1)  # type: ignore[union-attr]
    return min(found)


ATTACKS: dict[str, Callable[[World, Digest], None]] = {
    "no-token": _strip,
    "none-over-the-signature": _strip_one("signature"),
    "none-over-the-provenance": _strip_one("provenance"),
    "of-a-stranger": _of_a_stranger,
    "over-the-payload": _over_the_payload,
    "copied-from-another-artifact": _copied,
    "swapped": _swapped,
    "junk": _junk,
    "nobody-is-believed": _nobody_believed,
    "another-is-believed": _another_believed,
    "from-after": _from_after,
    "within-the-accuracy": _within_the_accuracy,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_thiefs_artifact(world: World, attack: Callable[[World, Digest], None]) -> None:
    digest = world.sign()
    world.revoke(BEFORE)
    assert world.verify().passed
    attack(world, digest)
    verdict = world.verify()
    assert code(verdict) == "KEY_REVOKED"
    assert verdict.status == "failed"


@pytest.mark.parametrize("level", ["enforce", "audit", "off"])
@pytest.mark.parametrize("since", [BEFORE, AFTER], ids=["stamped-before", "stamped-after"])
def test_at_every_level(world: World, level: str, since: dict[str, float]) -> None:
    world.sign()
    world.govern(level=level)
    world.revoke(since)
    verdict = world.verify(identities=str(world.deployment.key("trainer").public))
    if since is BEFORE and level != "off":
        assert verdict.passed
    elif since is AFTER:
        assert code(verdict) == "KEY_REVOKED"


def test_revoked_bytes_are_refused_whenever_they_were_signed(world: World) -> None:
    digest = world.sign()
    world.revoke(BEFORE, digest=str(digest))
    assert code(world.verify()) == "ARTIFACT_REVOKED"


def test_back_dated_provenance_of_the_thief(world: World) -> None:
    """Times that a signer wrote never count: only the authority's does."""
    digest = world.sign(stamped=False)
    key = load_signer(world.deployment.key("trainer").signer)
    long_ago = make_provenance_statement("m.bin", digest, FIT, now=NOW - 300 * DAY)
    EvidenceStore(f"{world.path}.evidence", Storages()).put(digest, "provenance", make_bundle(long_ago, key))
    world.revoke(AFTER)
    assert code(world.verify()) == "KEY_REVOKED"


def test_a_sound_piece_takes_no_other_one_in(world: World) -> None:
    """What a token did for one piece of evidence it does not do for another of the same key."""
    digest = world.sign()
    genuine = {item: item.read_bytes() for item in world.objects(kind="signature")}
    _strip(world, digest)
    for item, data in genuine.items():
        item.write_bytes(data)
    world.revoke(BEFORE)
    assert code(world.verify()) == "KEY_REVOKED"  # there is no provenance that counts


def test_without_the_library_nothing_is_passed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = world.sign()
    world.revoke(BEFORE)
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    verdict = world.verify()
    assert (verdict.status, code(verdict)) == ("unverifiable", "EXTRA_MISSING")
    assert verdict.deciding_finding is not None
    assert "sealflow[timestamp]" in verdict.deciding_finding.next_step
    # Where no token could help there is nothing that nobody can say.
    _strip(world, digest)
    assert code(world.verify()) == "KEY_REVOKED"
    world.deployment.revoke([])
    assert world.verify().passed


# --- Out of their time ---


class TestExpired:
    """What was signed while its signer counted."""

    @pytest.mark.parametrize("stamped", [True, False])
    def test_an_identity(self, world: World, stamped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        world.sign(stamped=stamped)
        body = dict(world.deployment.body)
        body["identities"] = {"trainer": world.deployment.identity(expires=at(days=1))}
        world.deployment.publish(body)
        assert world.verify().passed
        _later(monkeypatch, 2 * DAY)
        assert code(world.verify()) == ("passed" if stamped else "KEY_EXPIRED")

    def test_an_identity_that_had_ended(self, world: World) -> None:
        world.sign()
        body = dict(world.deployment.body)
        body["identities"] = {"trainer": world.deployment.identity(expires=at(hours=-1))}
        world.deployment.publish(body)
        assert code(world.verify()) == "KEY_EXPIRED"

    @pytest.mark.parametrize(("stamped", "days", "found"), [
        (True, 40, "passed"), (False, 40, "CERTIFICATE_EXPIRED"), (True, 3, "passed"), (False, 3, "passed"),
    ])  # fmt: skip
    def test_a_certificate(
        self, world: World, stamped: bool, days: int, found: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._certified(world, certify("root", ca=True, valid_to=NOW + 400 * DAY), stamped)
        assert world.verify().passed
        _later(monkeypatch, days * DAY)
        assert code(world.verify()) == found

    def test_a_certificate_that_had_ended(self, world: World) -> None:
        """A token of today does not make an old certificate valid."""
        root = certify("root", ca=True, valid_from=NOW - 90 * DAY)
        self._certified(world, root, True, valid_from=NOW - 60 * DAY, valid_to=NOW - DAY)
        assert code(world.verify()) == "CERTIFICATE_EXPIRED"

    def _certified(self, world: World, root: Certified, stamped: bool, **knobs: Any) -> None:
        leaf = certify("leaf", root, alternative=[x509.RFC822Name("anna@example.org")], **knobs)
        key, chain = world.deployment.folder / "leaf.key", world.deployment.folder / "leaf.pem"
        key.write_bytes(private_pem(leaf.key))
        chain.write_bytes(leaf.pem)
        body = dict(world.deployment.body)
        certificate = {"roots": [root.pem.decode()], "names": ["email:anna@example.org"]}
        body["identities"] = {"trainer": {"certificate": certificate}}
        world.deployment.publish(body)
        with sealflow.run(sealflow.Surroundings(FIT)):
            options = {"timestamp": world.authority.url} if stamped else {}
            sealflow.sign(world.path, signer=f"file:{key}?certificate={chain}", **options)  # type: ignore[arg-type]


def _later(monkeypatch: pytest.MonkeyPatch, by: datetime.timedelta) -> None:
    """Let time go on for all who ask for it in a check."""
    later = datetime.datetime.now(datetime.timezone.utc) + by
    for name, module in list(sys.modules.items()):
        if name.startswith("sealflow.actions") and hasattr(module, "utc_now"):
            monkeypatch.setattr(module, "utc_now", lambda: later)


class TestChains:
    """A token is over the signature alone, and says nothing of the certificate beside it."""

    def _signed(self, world: World, chain: list[Certified], root: Certified) -> None:
        key, place = world.deployment.folder / "leaf.key", world.deployment.folder / "leaf.pem"
        key.write_bytes(private_pem(chain[0].key))
        place.write_bytes(b"".join(item.pem for item in chain))
        body = dict(world.deployment.body)
        certificate = {"roots": [root.pem.decode()], "names": ["email:anna@example.org"]}
        body["identities"] = {"trainer": {"certificate": certificate}}
        world.deployment.publish(body)
        with sealflow.run(sealflow.Surroundings(FIT)):
            sealflow.sign(world.path, signer=f"file:{key}?certificate={place}", timestamp=world.authority.url)

    @pytest.mark.parametrize("issued", ["before", "after"])
    def test_a_certificate_from_after_the_revocation(
        self, world: World, issued: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stamped in advance with a key of the thief's own; the certificate in her name he got later."""
        root = certify("root", ca=True, valid_to=NOW + 400 * DAY)
        start = NOW - DAY if issued == "before" else NOW + datetime.timedelta(hours=2)
        leaf = certify("leaf", root, alternative=[x509.RFC822Name("anna@example.org")], valid_from=start)
        self._signed(world, [leaf], root)
        world.deployment.revoke([{"identity": "email:anna@example.org", "since": at(hours=1), "reason": "broken into"}])
        _later(monkeypatch, DAY)
        assert code(world.verify()) == ("passed" if issued == "before" else "KEY_REVOKED")

    def test_a_stolen_authority_dates_its_certificates_back(self, world: World) -> None:
        root = certify("root", ca=True, valid_to=NOW + 400 * DAY)
        between = certify("between", root, ca=True)
        leaf = certify("leaf", between, alternative=[x509.RFC822Name("anna@example.org")])
        self._signed(world, [leaf, between], root)
        assert world.verify().passed
        world.revoke(BEFORE, key=f"sha256:{sha256_hex(public_pem(between.key))}")
        assert code(world.verify()) == "KEY_REVOKED"
        world.revoke(BEFORE, key=f"sha256:{sha256_hex(public_pem(leaf.key))}")
        assert world.verify().passed


class TestWalks:
    """Each step of a walk brings a timestamp of its own; what was opened ahead too."""

    @pytest.fixture
    def lineage(self, tmp_path: Path, authority: TimestampAuthority) -> Stamped:
        made = Stamped(tmp_path / "lineage", authority)
        believed = {"company": {"roots": authority.roots, "url": authority.url}}
        made.govern(identities={"trainer": made.identity(expires=at(days=1))}, timestamp_authorities=believed)
        assert made.trace().verdict.passed
        return made

    @pytest.mark.parametrize("opened", [False, True], ids=["as-it-lies", "opened-ahead"])
    @pytest.mark.parametrize("how", ["expired", "revoked"])
    def test_one_token_is_for_one_piece(
        self, lineage: Stamped, opened: bool, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if opened:
            _open_ahead(lineage, monkeypatch)
        if how == "expired":
            _later(monkeypatch, 2 * DAY)
        else:
            key = f"sha256:{sha256_hex(lineage.key('trainer').public.read_bytes())}"
            lineage.revoke([{"key": key, "since": at(hours=1), "reason": "stolen"}])
        assert lineage.trace().verdict.passed
        # A thief of the key puts a former version behind the model, at the same place and under the same rule.
        lineage.remove("model")
        lineage.made_again("v1", "raw", stamped=False)
        lineage.made_again("model", "v1", stamped=True)
        verdict = lineage.trace().verdict
        assert verdict.status == "failed"
        assert {"KEY_EXPIRED", "KEY_REVOKED"} & codes(verdict)
        lineage.remove("v1")
        lineage.made_again("v1", "raw", stamped=True)
        assert lineage.trace().verdict.passed


class Stamped(Lineage):
    """A graph whose trainer is stamped."""

    def __init__(self, folder: Path, authority: TimestampAuthority) -> None:
        self.authority = authority
        self.stamped = True
        super().__init__(folder)

    def signed(self, statement: Any, signer: str = "trainer") -> bytes:
        data = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        key = load_signer(self.key(signer).signer)
        stamps = self.stamped and signer == "trainer"
        return make_bundle(data, Stamping(key, Authority("x", (), self.authority.url)) if stamps else key)

    def made_again(self, name: str, made_from: str, *, stamped: bool) -> None:
        """Sign a version of the model; all of them lie at one place."""
        self.stamped = stamped
        place = self.lies("model" if made_from == "v1" else made_from)
        inputs = [Dependency(place, of_lineage(made_from), "model" if made_from == "v1" else made_from)]
        now = datetime.datetime.now(datetime.timezone.utc)
        statement = make_provenance_statement("model", of_lineage(name), RUNS["model"], dependencies=inputs, now=now)
        self.file(name, self.signed(statement))


def _open_ahead(lineage: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all evidence opened ahead, as in large walks."""
    keys = {key.hint: key for key in (load_public_key(lineage.pem(name)) for name in ("trainer", "owner"))}
    real = EvidenceReader.__call__

    def ahead(self: Any, *given: Any) -> Any:
        found = real(self, *given)
        return found._replace(opened=[open_provenance(item, lambda claim: keys.get(claim)) for item in found.evidence])

    monkeypatch.setattr(EvidenceReader, "__call__", ahead)


# --- Demanded ---


@pytest.mark.parametrize("kind", ["signature", "provenance"])
class TestDemanded:
    """A rule that asks for a timestamp."""

    def test_it_is_asked_for(self, world: World, kind: str) -> None:
        evidence: Body = {"signature": {}, "provenance": {}}
        evidence[kind] = {"timestamp": True}
        world.govern(evidence=evidence)
        digest = world.sign(stamped=False)
        verdict = world.verify()
        assert code(verdict) == "TIMESTAMP_MISSING"
        world.sign()
        assert world.verify().passed
        _strip_one(kind)(world, digest)
        assert code(world.verify()) == "TIMESTAMP_MISSING"

    @pytest.mark.parametrize("attack", [_of_a_stranger, _over_the_payload, _swapped, _junk])
    def test_a_bad_one_is_none(self, world: World, kind: str, attack: Callable[[World, Digest], None]) -> None:
        digest = world.sign()
        world.govern(evidence={"signature": {}, "provenance": {}, kind: {"timestamp": True}})
        assert world.verify().passed
        attack(world, digest)
        assert code(world.verify()) == "TIMESTAMP_MISSING"

    def test_without_the_library(self, world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        world.sign()
        world.govern(evidence={"signature": {}, "provenance": {}, kind: {"timestamp": True}})
        monkeypatch.setitem(sys.modules, "rfc3161_client", None)
        verdict = world.verify()
        assert (verdict.status, code(verdict)) == ("unverifiable", "EXTRA_MISSING")


# --- Signing ---


class TestSigning:
    """Who stamps, and what happens when it cannot be had."""

    def test_the_policy_says_who_stamps(self, world: World) -> None:
        """No DAG says anything of it."""
        signers = [{"uri": world.deployment.key("trainer").signer, "timestamp": "company"}]
        world.deployment.publish({**world.deployment.body, "signers": signers})
        with sealflow.run(sealflow.Surroundings(FIT, admin=world.deployment.channel())):
            sealflow.sign(world.path)
        bundles = [parse_bundle(item.read_bytes()) for item in world.objects()]
        assert [len(item.timestamps) for item in bundles] == [1, 1]
        world.revoke(BEFORE)
        assert world.verify().passed

    def test_an_authority_of_the_policy_by_name(self, world: World) -> None:
        with sealflow.run(sealflow.Surroundings(FIT, admin=world.deployment.channel())):
            sealflow.sign(world.path, signer=world.deployment.key("trainer").signer, timestamp="company")
            with pytest.raises(UsageError, match="company"):
                sealflow.sign(world.path, signer=world.deployment.key("trainer").signer, timestamp="compnay")

    @pytest.mark.parametrize("way", ["argument", "uri", "policy"])
    def test_an_authority_out_of_reach(self, world: World, way: str) -> None:
        gone = "http://127.0.0.1:9/"
        signer = world.deployment.key("trainer").signer
        believed = {"company": {"roots": world.authority.roots, "url": gone}}
        world.govern(believed)
        world.deployment.publish({**world.deployment.body, "signers": [{"uri": signer, "timestamp": "company"}]})
        options: Body = {
            "argument": {"signer": signer, "timestamp": gone},
            "uri": {"signer": f"{signer}?timestamp={gone.replace(':', '%3A')}"},
            "policy": {},
        }[way]
        with (
            sealflow.run(sealflow.Surroundings(FIT, admin=world.deployment.channel())),
            pytest.raises(UnavailableError, match="timestamp authority"),
        ):
            sealflow.sign(world.path, **options)
        assert world.objects() == []

    def test_a_policy_that_names_an_unknown_one(self, world: World) -> None:
        for unasked in ({}, {"company": {"roots": world.authority.roots}}):
            world.govern(unasked)
            signers = [{"uri": world.deployment.key("trainer").signer, "timestamp": "company"}]
            world.deployment.publish({**world.deployment.body, "signers": signers})
            assert code(world.verify()) == "POLICY_UNAVAILABLE"

    def test_without_the_library(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rfc3161_client", None)
        with pytest.raises(UsageError) as caught:
            world.sign()
        assert caught.value.code == "EXTRA_MISSING"
        assert world.objects() == []


def test_a_signed_policy_holds_the_roots_themselves(world: World) -> None:
    world.govern({"company": {"roots": ["/etc/company.pem"]}})
    assert code(world.verify()) == "POLICY_UNAVAILABLE"


def test_a_call_names_no_authority(world: World) -> None:
    """What a call adds can only tighten."""
    world.sign()
    world.revoke(BEFORE)
    believed = world.deployment.body["timestamp_authorities"]
    world.govern({})
    mine = policy(
        [rule("mine", f"{world.deployment.folder}/**")],
        world.deployment.identities("trainer"),
        timestamp_authorities=believed,
    )
    verdict = world.verify(policy=world.deployment.draft(mine))
    assert code(verdict) == "KEY_REVOKED"
    assert "SIGNED_BEFORE_REVOCATION" not in codes(verdict)


# --- Encrypted artifacts ---


@pytest.mark.parametrize(
    ("stamped", "since", "found"),
    [(True, BEFORE, "passed"), (True, AFTER, "KEY_REVOKED"), (False, BEFORE, "KEY_REVOKED")],
    ids=["stamped-before", "stamped-after", "not-stamped"],
)
def test_an_encrypted_artifact(world: World, stamped: bool, since: dict[str, float], found: str) -> None:
    """Four signatures stand for it, the one inside included; each has a token of its own."""
    key = world.deployment.folder / "team.key"
    key.write_bytes(b"t" * 32)
    recipients = [f"aes:{key}?name=team"]
    target = world.deployment.folder / "models" / "sealed"
    signer = world.deployment.key("trainer").signer
    with sealflow.run(sealflow.Surroundings(FIT)):
        upload_artifact(
            world.path,
            str(target),
            recipients=recipients,
            signer=stamped_by(signer, world.authority.url) if stamped else signer,
        )
    assert world.verify(target, recipients=recipients).passed
    world.revoke(since)
    verdict = world.verify(target, recipients=recipients)
    assert code(verdict) == found
    if found == "passed":
        told = [item.subject for item in verdict.findings if item.code == "SIGNED_BEFORE_REVOCATION"]
        assert len(told) == 3  # for its frames, for its provenance, for what is inside
