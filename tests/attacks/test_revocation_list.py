"""The list of revocations: where it comes from, and whom it takes out."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import sealflow
from sealflow.actions.policy_status import status
from sealflow.actions.revocation_list import read_list, sign_list
from sealflow.errors import PolicyError, UsageError
from sealflow.hashing import sha256_hex
from sealflow.policy.revocations import parse_revocations
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE
from sealflow.policy.source import AdminChannel, forget
from tests.attacks.test_policy_sources import elapse
from tests.core.policy.deployment import SCORE, Body, Deployment, at, code, codes, policy, rule
from tests.pki import NOW, Certified, certify, private_pem, public_pem

pytest_plugins = ["tests.core.policy.fixtures"]


def entry(**subject: str) -> Body:
    return {**subject, "since": at(days=-1), "reason": "stolen"}


def other() -> Body:
    """An entry about nobody here."""
    return entry(key="sha256:" + "0" * 64)


@pytest.fixture
def path(deployment: Deployment) -> Path:
    """A sound artifact under a policy, with a list that says nothing of its signer."""
    path = deployment.model()
    deployment.sign(path)
    rules = [rule("models", f"{deployment.folder}/models/**")]
    deployment.publish(policy(rules, deployment.identities("trainer", "reviewer")))
    deployment.revoke([other()])
    assert deployment.verify(path).passed
    return path


def trainer(deployment: Deployment) -> Body:
    return entry(key=f"sha256:{sha256_hex(deployment.key('trainer').public.read_bytes())}")


# --- Not to be had ---

BROKEN: dict[str, Callable[[Deployment], bytes | None]] = {
    "missing": lambda d: None,
    "empty": lambda d: b"",
    "garbage": lambda d: b"\x00\xff" * 100,
    "unsigned": lambda d: json.dumps({"apiVersion": "sealflow/v1", "kind": "Revocations"}).encode(),
    "of-a-stranger": lambda d: d.bundle(listed(), "stranger", REVOCATIONS_TYPE),
    "of-the-trainer": lambda d: d.bundle(listed(), "trainer", REVOCATIONS_TYPE),
    "signed-as-a-policy": lambda d: d.bundle(listed(), "admin", POLICY_TYPE),
    "signed-as-a-waiver": lambda d: d.bundle(listed(), "admin", WAIVER_TYPE),
    "the-policy-itself": lambda d: d.place.read_bytes(),
    "signed-garbage": lambda d: d.bundle(b"[]", "admin", REVOCATIONS_TYPE),
    "an-unknown-member": lambda d: d.bundle(listed(more=1), "admin", REVOCATIONS_TYPE),
    "a-newer-form": lambda d: d.bundle(listed(apiVersion="sealflow/v2"), "admin", REVOCATIONS_TYPE),
    "expired": lambda d: d.bundle(listed(expires=at(seconds=-1)), "admin", REVOCATIONS_TYPE),
    "expired-and-past-its-grace": lambda d: d.bundle(
        listed(expires=at(hours=-3), grace_hours=2), "admin", REVOCATIONS_TYPE
    ),
    "altered": lambda d: d.revocations.read_bytes().replace(b'"sig":"ME', b'"sig":"MF'),
}


def listed(**changes: Any) -> Body:
    head = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": 9, "expires": at(days=300)}
    return {**head, "revocations": [], **changes}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN.keys())
def test_without_the_list_nothing_managed_passes(
    deployment: Deployment, path: Path, make: Callable[[Deployment], bytes | None]
) -> None:
    data = make(deployment)
    if data is None:
        deployment.revocations.unlink()
    else:
        assert data != deployment.revocations.read_bytes()
        deployment.revocations.write_bytes(data)
    forget()
    verdict = deployment.verify(path)
    assert code(verdict) in ("POLICY_UNAVAILABLE", "POLICY_TOO_NEW")
    assert verdict.status == "unverifiable"
    # What the channel does not manage runs on.
    elsewhere = deployment.channel(managed=["s3://models/**"])
    assert deployment.verify(path, channel=elsewhere, identities=str(deployment.key("trainer").public)).passed


@pytest.mark.parametrize("value", ["revocations.json", "../revocations.json", "", 3, None])
def test_the_channel_names_one_absolute_place(deployment: Deployment, value: Any) -> None:
    body = {"policy": str(deployment.place), "keys": [str(deployment.key("admin").public)], "revocations": value}
    with pytest.raises(UsageError):
        AdminChannel.parse(body, "the test's channel")


@pytest.mark.parametrize("value", [0, -1, True, "3", 1.5])
def test_the_least_version_is_a_number(deployment: Deployment, value: Any) -> None:
    with pytest.raises(UsageError):
        deployment.channel(revocations_minimum_version=value)


def test_a_policy_holds_no_list(deployment: Deployment, path: Path) -> None:
    """Nothing is taken out in silence where an admin writes to the wrong place."""
    deployment.place.write_bytes(deployment.bundle({**deployment.body, "revocations": [trainer(deployment)]}))
    forget()
    assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"


# --- Rolled back ---


class TestRollback:
    """Whoever can write to the list's place puts the one back in which his key did not stand yet."""

    def test_in_the_same_process(self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        channel, before = deployment.channel(), deployment.revocations.read_bytes()
        deployment.revoke([trainer(deployment)])
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        deployment.revocations.write_bytes(before)
        elapse(monkeypatch)
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"

    def test_in_another_process_with_state(self, deployment: Deployment, path: Path) -> None:
        channel = deployment.channel(state=str(deployment.folder / "state"))
        before = deployment.revocations.read_bytes()
        deployment.revoke([trainer(deployment)])
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        deployment.revocations.write_bytes(before)
        forget()
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"

    def test_on_a_fresh_worker(self, deployment: Deployment, path: Path) -> None:
        assert code(deployment.verify(path, channel=deployment.channel(revocations_minimum_version=2))) == (
            "POLICY_UNAVAILABLE"
        )
        deployment.revoke([other()])
        assert deployment.verify(path, channel=deployment.channel(revocations_minimum_version=2)).passed

    def test_the_kept_list_of_another_kind_counts_for_nothing(self, deployment: Deployment, path: Path) -> None:
        """A policy in the file of the last good list stands in for no list."""
        state = deployment.folder / "state"
        channel = deployment.channel(state=str(state))
        assert deployment.verify(path, channel=channel).passed
        (mine,) = state.glob("revocations-*.json")
        (theirs,) = state.glob("policy-*.json")
        mine.write_bytes(theirs.read_bytes())
        deployment.revocations.unlink()
        forget()
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


# --- Grace and warnings ---


class TestGrace:
    """An outage of the list's place does not stop the work, and takes nobody back in."""

    @pytest.fixture
    def channel(self, deployment: Deployment, path: Path) -> AdminChannel:
        channel = deployment.channel(state=str(deployment.folder / "state"))
        deployment.revoke([trainer(deployment)], grace_hours=24)
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        deployment.revocations.unlink()
        forget()
        return channel

    def test_the_last_good_list_stands_in(self, deployment: Deployment, path: Path, channel: AdminChannel) -> None:
        verdict = deployment.verify(path, channel=channel)
        assert code(verdict) == "KEY_REVOKED"
        assert "REVOCATIONS_IN_GRACE" in codes(verdict)

    def test_without_its_file_nothing_does(self, deployment: Deployment, path: Path, channel: AdminChannel) -> None:
        (kept,) = (deployment.folder / "state").glob("revocations-*.json")
        kept.unlink()
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"

    def test_only_for_a_while(
        self, deployment: Deployment, path: Path, channel: AdminChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sealflow.actions import policies

        later = NOW + datetime.timedelta(hours=25)
        monkeypatch.setattr(policies, "utc_now", lambda: later)
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


@pytest.mark.parametrize(("days", "said"), [(29, "30 days"), (6, "7 days"), (0.9, "1 day"), (31, "")])
def test_it_says_when_it_ends(deployment: Deployment, path: Path, days: float, said: str) -> None:
    deployment.revoke([other()], expires=at(days=days))
    found = [item for item in deployment.verify(path).findings if item.code == "REVOCATIONS_EXPIRE_SOON"]
    assert [item.message for item in found] == ([f"The list of revocations expires within {said}."] if said else [])


def test_a_list_that_ends_is_not_taken_from_the_process(deployment: Deployment, path: Path) -> None:
    """What was loaded a second ago holds no longer than it says."""
    from sealflow.policy.source import policy_in_force
    from sealflow.storage import Storages

    deployment.revoke([other()], expires=at(hours=1))
    channel = deployment.channel()
    policy_in_force(channel, Storages(), NOW)
    with pytest.raises(sealflow.errors.UnavailableError):
        policy_in_force(channel, Storages(), NOW + datetime.timedelta(hours=2))


# --- Whom it takes out ---


class TestIdentities:
    """A name stands for every key and certificate under it."""

    def test_a_name_of_the_policy(self, deployment: Deployment, path: Path) -> None:
        deployment.revoke([entry(identity="trainer")])
        assert code(deployment.verify(path)) == "KEY_REVOKED"

    def test_its_key_under_another_name(self, deployment: Deployment, path: Path) -> None:
        """The same key in the identities of the call, or under a second name, is out too."""
        rules = [rule("models", f"{deployment.folder}/models/**", ["alias"])]
        identities = {**deployment.identities("trainer"), "alias": deployment.identity("trainer")}
        deployment.publish(policy(rules, identities))
        deployment.revoke([entry(identity="trainer")])
        assert code(deployment.verify(path)) == "KEY_REVOKED"

    def test_another_name(self, deployment: Deployment, path: Path) -> None:
        deployment.revoke([entry(identity="reviewer")])
        assert deployment.verify(path).passed

    def test_a_name_that_nobody_has_is_told(self, deployment: Deployment, path: Path) -> None:
        deployment.revoke([entry(identity="trianer")])
        verdict = deployment.verify(path)
        (finding,) = [item for item in verdict.findings if item.code == "REVOCATION_UNKNOWN"]
        assert finding.subject == "trianer"
        found = status(sealflow.Surroundings(SCORE, admin=deployment.channel()))
        assert [item["code"] for item in found["warnings"]] == ["REVOCATION_UNKNOWN"]

    def test_the_verifier(self, deployment: Deployment, path: Path) -> None:
        gate = {"gate": deployment.identity("gate", verifier=True)}
        identities = {**deployment.identities("trainer", "reviewer"), **gate}
        deployment.publish({**deployment.body, "identities": identities})
        deployment.revoke([entry(identity="gate")])
        assert "REVOCATION_UNKNOWN" not in codes(deployment.verify(path))


class TestCertificates:
    """Names and keys in chains."""

    @pytest.fixture
    def root(self) -> Certified:
        return certify("root", ca=True)

    @pytest.fixture
    def between(self, root: Certified) -> Certified:
        return certify("between", root, ca=True)

    @pytest.fixture
    def leaf(self, between: Certified) -> Certified:
        return certify(
            "leaf", between, alternative=[x509.RFC822Name("anna@example.org"), x509.DNSName("train.example")]
        )

    @pytest.fixture
    def signed(self, deployment: Deployment, path: Path, root: Certified, between: Certified, leaf: Certified) -> Path:
        key, chain = deployment.folder / "leaf.key", deployment.folder / "leaf.pem"
        key.write_bytes(private_pem(leaf.key))
        chain.write_bytes(leaf.pem + between.pem)
        certificate = {"roots": [root.pem.decode()], "names": ["email:anna@example.org"]}
        rules = [rule("models", f"{deployment.folder}/models/**", ["anna"])]
        deployment.publish(policy(rules, {"anna": {"certificate": certificate}}))
        path = deployment.model("models/certified.bin")
        with sealflow.run(sealflow.Surroundings(sealflow.RunIdentity("airflow", "train", "fit", "run-1"))):
            sealflow.sign(path, signer=f"file:{key}?certificate={chain}")
        assert deployment.verify(path).passed
        return path

    @pytest.mark.parametrize(
        ("name", "passes"),
        [
            ("anna", False),
            ("email:anna@example.org", False),
            ("dns:train.example", False),
            ("subject:CN=leaf", False),
            ("email:ben@example.org", True),
            ("dns:anna@example.org", True),
            ("subject:CN=between", True),
        ],
    )
    def test_a_name(self, deployment: Deployment, signed: Path, name: str, passes: bool) -> None:
        deployment.revoke([entry(identity=name)])
        assert code(deployment.verify(signed)) == ("passed" if passes else "KEY_REVOKED")

    @pytest.mark.parametrize("whose", ["leaf", "between"])
    def test_a_key_of_the_chain(
        self, deployment: Deployment, signed: Path, whose: str, leaf: Certified, between: Certified
    ) -> None:
        """A stolen key of an authority makes leaves under any name."""
        key = {"leaf": leaf, "between": between}[whose].key
        deployment.revoke([entry(key=f"sha256:{sha256_hex(public_pem(key))}")])
        assert code(deployment.verify(signed)) == "KEY_REVOKED"


class TestAdmins:
    """The list holds against those who sign policies and waivers too."""

    def test_a_waiver_of_a_revoked_key(self, deployment: Deployment, path: Path) -> None:
        rules = [rule("models", f"{deployment.folder}/models/**", ["reviewer"])]
        deployment.publish(policy(rules, deployment.identities("trainer", "reviewer")))
        deployment.waive(deployment.waiver("models"), key="breaker")
        channel = deployment.channel(waiver_keys=[str(deployment.key("breaker").public)])
        assert "WAIVER_USED" in codes(deployment.verify(path, channel=channel))
        deployment.revoke([entry(key=f"sha256:{sha256_hex(deployment.key('breaker').public.read_bytes())}")])
        verdict = deployment.verify(path, channel=channel)
        assert "WAIVER_USED" not in codes(verdict)
        assert not verdict.passed
        (problem,) = status(sealflow.Surroundings(SCORE, admin=channel))["waivers_refused"]
        assert "revoked" in problem

    def test_a_policy_of_a_revoked_key(self, deployment: Deployment, path: Path) -> None:
        deployment.key("second")
        keys = [str(deployment.key(name).public) for name in ("admin", "second")]
        channel = deployment.channel(keys=keys)
        revoked = entry(key=f"sha256:{sha256_hex(deployment.key('admin').public.read_bytes())}")
        deployment.revoke([revoked], key="second")
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"
        deployment.publish(deployment.body, key="second")
        assert deployment.verify(path, channel=channel).passed


def test_status_shows_it(deployment: Deployment, path: Path) -> None:
    deployment.revoke(
        [trainer(deployment), entry(identity="reviewer"), {**entry(digest="sha256:" + "1" * 64), "id": "S-1"}]
    )
    found = status(sealflow.Surroundings(SCORE, admin=deployment.channel()))["revocations"]
    assert (found["version"], found["keys"], found["identities"], found["digests"]) == (2, 1, 1, 1)
    assert {item["subject"] for item in found["latest"]} >= {"reviewer", "sha256:" + "1" * 64}
    assert status(sealflow.Surroundings(SCORE, admin=deployment.channel(revocations="/nowhere/x")))["state"] == (
        "unavailable"
    )


def test_two_responders_at_once_lose_no_entry(tmp_path: Path, deployment: Deployment) -> None:
    """Each reads, adds and writes; whoever comes second is refused and reads again."""
    place, signer = str(tmp_path / "list.json"), deployment.key("admin").signer
    keys = [str(deployment.key("admin").public)]

    def respond(number: int) -> None:
        while True:
            before = read_list(place, keys)
            entries = [item.as_json(without="none") for item in before.document.revocations] if before else []
            entries.append(entry(key=f"sha256:{number:064x}"))
            version = before.document.version + 1 if before else 1
            document = parse_revocations(json.dumps(listed(version=version, revocations=entries)).encode())
            with contextlib.suppress(PolicyError):
                sign_list(document, signer=signer, output=place)
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(respond, range(16)))
    found = read_list(place, keys)
    assert found is not None
    assert len({item.key for item in found.document.revocations}) == 16
    assert found.document.version == 16


def test_a_large_list_is_read_once(deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{"key": f"sha256:{n:064x}", "since": "2026-01-01T00:00:00Z", "reason": "lost"} for n in range(20_000)]
    deployment.revoke(entries)
    assert deployment.verify(path).passed
    elapse(monkeypatch)
    monkeypatch.setattr("sealflow.policy.revocations.parse_revocations", None)
    assert deployment.verify(path).passed


# --- A stolen key of an admin ---


class TestStolenAdminsKey:
    """Who is on the list signs no next one, and nobody builds on a list that was put back."""

    @pytest.fixture
    def channel(self, deployment: Deployment, path: Path) -> AdminChannel:
        keys = [str(deployment.key(name).public) for name in ("admin", "second")]
        deployment.publish(deployment.body, key="second")
        return deployment.channel(keys=keys, state=str(deployment.folder / "state"))

    def _hint(self, deployment: Deployment, name: str) -> str:
        return f"sha256:{sha256_hex(deployment.key(name).public.read_bytes())}"

    @pytest.mark.parametrize("fresh", [False, True], ids=["same-process", "state-folder"])
    def test_he_takes_himself_off(
        self,
        deployment: Deployment,
        path: Path,
        channel: AdminChannel,
        fresh: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        both = [entry(key=self._hint(deployment, "admin")), trainer(deployment)]
        deployment.revoke(both, key="second", grace_hours=24)
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        thiefs = deployment.bundle(listed(version=3), "admin", REVOCATIONS_TYPE)
        deployment.revocations.write_bytes(thiefs)
        if fresh:
            forget()
        else:
            elapse(monkeypatch)
        verdict = deployment.verify(path, channel=channel)
        assert code(verdict) == "KEY_REVOKED"  # the last good list stands in
        assert "REVOCATIONS_IN_GRACE" in codes(verdict)

    def test_a_list_signed_by_a_key_that_it_names(
        self, deployment: Deployment, path: Path, channel: AdminChannel
    ) -> None:
        deployment.revoke([entry(key=self._hint(deployment, "admin"))], key="admin")
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"
        mine = listed(revocations=[entry(key=self._hint(deployment, "admin"))])
        document = parse_revocations(json.dumps(mine).encode())
        with pytest.raises(PolicyError) as caught:
            sign_list(document, signer=deployment.key("admin").signer, output=str(deployment.folder / "new.json"))
        assert caught.value.code == "POLICY_SIGNER"

    def test_a_revoked_key_signs_no_next_list(self, deployment: Deployment, path: Path, tmp_path: Path) -> None:
        place, second = str(tmp_path / "list.json"), deployment.key("second")
        first = listed(version=1, revocations=[entry(key=self._hint(deployment, "admin"))])
        sign_list(parse_revocations(json.dumps(first).encode()), signer=second.signer, output=place)
        with pytest.raises(PolicyError) as caught:
            sign_list(
                parse_revocations(json.dumps(listed(version=2)).encode()),
                signer=deployment.key("admin").signer,
                output=place,
                keys=[str(second.public)],
            )
        assert caught.value.code == "POLICY_SIGNER"

    @pytest.mark.parametrize("what", ["an-older-one", "nothing"])
    def test_nobody_builds_on_what_was_put_back(self, deployment: Deployment, path: Path, what: str) -> None:
        """The writer has the readers' memory: else an admin's own signature would make the rollback good."""
        channel = deployment.channel(state=str(deployment.folder / "state"))
        before = deployment.revocations.read_bytes()
        deployment.revoke([trainer(deployment)])
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        if what == "nothing":
            deployment.revocations.unlink()
        else:
            deployment.revocations.write_bytes(before)
        forget()
        key, place = deployment.key("admin"), str(deployment.revocations)
        with sealflow.run(sealflow.Surroundings(SCORE, admin=channel)):
            with pytest.raises(PolicyError) as caught:
                read_list(place, [str(key.public)])
            assert caught.value.code == "POLICY_VERSION"
            with pytest.raises(PolicyError) as caught:
                sign_list(parse_revocations(json.dumps(listed()).encode()), signer=key.signer, output=place)
            assert caught.value.code == "POLICY_VERSION"

    def test_two_lists_of_one_version(
        self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        channel = deployment.channel(state=str(deployment.folder / "state"))
        deployment.revoke([trainer(deployment)], version=7)
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        deployment.revoke([other()], version=7)
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


@pytest.mark.parametrize("odd", ["curve", "algorithm"])
def test_an_odd_certificate_beside_a_good_bundle(deployment: Deployment, path: Path, odd: str) -> None:
    """Chains are not signed; whoever adds an object with one more certificate in it keeps nobody from the good one."""
    import base64

    from sealflow.evidence import EvidenceStore
    from sealflow.storage import Storages

    root = certify("root", ca=True)
    leaf = certify("leaf", root, alternative=[x509.RFC822Name("anna@example.org")])
    key, chain = deployment.folder / "leaf.key", deployment.folder / "leaf.pem"
    key.write_bytes(private_pem(leaf.key))
    chain.write_bytes(leaf.pem)
    certificate = {"roots": [root.pem.decode()], "names": ["email:anna@example.org"]}
    deployment.publish(
        policy([rule("models", f"{deployment.folder}/models/**", ["anna"])], {"anna": {"certificate": certificate}})
    )
    path = deployment.model("models/certified.bin")
    with sealflow.run(sealflow.Surroundings(sealflow.RunIdentity("airflow", "train", "fit", "run-1"))):
        ref = sealflow.sign(path, signer=f"file:{key}?certificate={chain}")
    der = x509.load_pem_x509_certificate(leaf.pem).public_bytes(Encoding.DER)
    # The object identifiers of P-256 and of keys on curves, each made another one.
    known = {"curve": bytes.fromhex("06082a8648ce3d030107"), "algorithm": bytes.fromhex("06072a8648ce3d0201")}[odd]
    assert known in der
    strange = der.replace(known, known[:-1] + b"\x63", 1)
    for item in list(Path(f"{path}.evidence").rglob("*.json")):
        body = json.loads(item.read_bytes())
        listed_ones = body["verificationMaterial"]["x509CertificateChain"]["certificates"]
        listed_ones.append({"rawBytes": base64.b64encode(strange).decode()})
        store = EvidenceStore(f"{path}.evidence", Storages())
        store.put(ref.digest, item.name.partition("-")[0], json.dumps(body).encode())  # type: ignore[arg-type]
    assert deployment.verify(path).passed
    deployment.revoke([other()])
    verdict = deployment.verify(path)
    assert verdict.passed
    assert "EVIDENCE_MALFORMED" in codes(verdict)


# --- Entries do not vanish ---


class TestForgotten:
    """Whoever builds in good faith on a list that was put back forgets what it lacked."""

    @pytest.fixture
    def channel(self, deployment: Deployment, path: Path) -> AdminChannel:
        channel = deployment.channel(state=str(deployment.folder / "state"))
        more = [entry(identity="reviewer"), entry(identity="email:anna@x"), entry(digest="sha256:" + "1" * 64)]
        deployment.revoke([other(), trainer(deployment), *more])
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        return channel

    def _known(self, deployment: Deployment) -> list[Body]:
        more = [entry(identity="reviewer"), entry(identity="email:anna@x"), entry(digest="sha256:" + "1" * 64)]
        return [other(), trainer(deployment), *more]

    @pytest.mark.parametrize("index", range(5))
    @pytest.mark.parametrize("how", ["left-out", "dated-later", "withdrawn"])
    def test_an_entry(self, deployment: Deployment, path: Path, channel: AdminChannel, index: int, how: str) -> None:
        known = self._known(deployment)
        gone = known.pop(index)
        subject = {name: value for name, value in gone.items() if name in ("key", "identity", "digest")}
        changes: Body = {}
        if how == "dated-later":
            known.append({**gone, "since": at(days=3)})
        elif how == "withdrawn":
            changes["withdrawn"] = [{**subject, "reason": "a mistake", "version": 3}]
        deployment.revoke(known, **changes)
        verdict = deployment.verify(path, channel=channel)
        if how == "withdrawn" or (how == "dated-later" and "digest" in gone):
            assert code(verdict) == ("passed" if "key" in gone and gone != other() else "KEY_REVOKED")
        else:
            assert code(verdict) == "POLICY_UNAVAILABLE"

    def test_entries_may_come_earlier_and_more(self, deployment: Deployment, path: Path, channel: AdminChannel) -> None:
        known = [{**item, "since": at(days=-9)} for item in self._known(deployment)]
        deployment.revoke([*known, entry(identity="dns:host")])
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"

    def test_what_was_withdrawn_once_is_protected_again(
        self, deployment: Deployment, path: Path, channel: AdminChannel
    ) -> None:
        """A false alarm, then the theft, and then a list on top of that of the false alarm."""
        known = [item for item in self._known(deployment) if item != trainer(deployment)]
        gone = [{"key": trainer(deployment)["key"], "reason": "a false alarm", "version": 3}]
        deployment.revoke(known, withdrawn=gone)
        assert deployment.verify(path, channel=channel).passed
        deployment.revoke([*known, trainer(deployment)], withdrawn=gone)
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"
        deployment.revoke(known, withdrawn=gone)  # version 5, on top of version 3
        assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"

    def test_a_worker_that_skipped_versions(self, deployment: Deployment, path: Path, channel: AdminChannel) -> None:
        """Revoked in 2, which it saw, withdrawn in 3 and revoked from a later time in 4."""
        known = [item for item in self._known(deployment) if item != trainer(deployment)]
        gone = [{"key": trainer(deployment)["key"], "reason": "a false alarm", "version": 3}]
        later = {**trainer(deployment), "since": at(hours=-1)}
        deployment.revoke([*known, later], withdrawn=gone, version=4)
        assert code(deployment.verify(path, channel=channel)) == "KEY_REVOKED"

    def test_signing_refuses_it(self, tmp_path: Path, deployment: Deployment) -> None:
        place, signer = str(tmp_path / "list.json"), deployment.key("admin").signer
        body = listed(version=1, revocations=[other()])
        sign_list(parse_revocations(json.dumps(body).encode()), signer=signer, output=place)
        with pytest.raises(PolicyError, match="leaves out"):
            sign_list(parse_revocations(json.dumps(listed(version=2)).encode()), signer=signer, output=place)
        taken_back = listed(version=2, withdrawn=[{"key": other()["key"], "reason": "a mistake", "version": 2}])
        assert sign_list(parse_revocations(json.dumps(taken_back).encode()), signer=signer, output=place).written
