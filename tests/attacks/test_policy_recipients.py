"""Who can open an artifact is what the admin says: no header, author, team or call gets around `recipients`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import sealflow
from sealflow.actions.policies import policies_for
from sealflow.encryption import RecipientError, decrypt_message, encrypt_message, load_recipient, parse_header
from sealflow.encryption.raw import RsaRecipient
from sealflow.errors import PolicyError
from sealflow.findings import printable
from sealflow.hashing import sha256_hex
from sealflow.policy import Requirement
from sealflow.policy.compose import Arguments, CompiledPolicy, compose
from sealflow.policy.decide import unsealed
from sealflow.policy.draft import read_draft
from tests.core.encryption.messages import ARN, OTHER_ARN, RSA_PEM, RSA_PUBLIC_PEM, aes, private_rsa
from tests.core.policy.deployment import FIT, Body, Deployment, code, compiled, policy, rule
from tests.pki import NOW, public_pem

pytest_plugins = ["tests.core.policy.fixtures"]

PEM = RSA_PUBLIC_PEM.decode()
NAME = sha256_hex(RSA_PUBLIC_PEM)
MARK, VAULT = ("sealflow", NAME.encode()), ("aws-kms", ARN.encode())
MALLORY = rsa.generate_private_key(65537, 2048)
MALLORYS = public_pem(MALLORY).decode()
TABLE: Body = {"recovery": {"rsa": PEM}, "vault": {"kms": ARN}}
DEMAND: Body = {"required": ["recovery", "vault"], "only": ["recovery", "vault"], "encrypted": True}


def admins(deployment: Deployment, demand: Body | None = None, **more: object) -> Body:
    rules = [rule("models", f"{deployment.folder}/models/**", require={"recipients": demand or DEMAND}, **more)]
    return policy(rules, deployment.identities("trainer"), recipients=TABLE)


def joined(deployment: Deployment, *chain: CompiledPolicy) -> Requirement:
    places = (f"file://{deployment.folder}/models/m.bin",)
    return compose(chain, Arguments(), places=places, run=FIT, now=NOW).requirement


def refused(requirement: Requirement, *holders: tuple[str, bytes]) -> list[str]:
    return [item.code for item in unsealed(requirement, holders)]


# --- Headers ---


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(("sealflow", NAME[:-1].encode()), id="shorter"),
        pytest.param(("sealflow", NAME.encode() + b"0"), id="longer"),
        pytest.param(("sealflow", NAME.encode() + b"\x00"), id="ended-with-zero"),
        pytest.param(("sealflow", NAME.upper().encode()), id="upper-case"),
        pytest.param(("sealflow", b" " + NAME.encode()), id="blank-before"),
        pytest.param(("sealflow", bytes.fromhex(NAME)), id="the-digest-itself"),
        pytest.param(("sealflow", NAME.encode("utf-16")), id="another-encoding"),
        pytest.param(("sealflow", b""), id="empty"),
        pytest.param(("Sealflow", NAME.encode()), id="provider-in-capitals"),
        pytest.param(("sealflow\x00", NAME.encode()), id="provider-ended-with-zero"),
        pytest.param(("", NAME.encode()), id="no-provider"),
        pytest.param(("aws-kms", NAME.encode()), id="of-another-provider"),
        pytest.param(("sealflow", ARN.encode()), id="an-arn-of-another-provider"),
        pytest.param(("aws-kms", OTHER_ARN.encode()), id="another-key-of-the-account"),
        pytest.param(("aws-kms", ARN.replace("eu-west-1", "us-east-1").encode()), id="the-key-in-another-region"),
        pytest.param(("aws-kms", ARN.replace(":key/", ":alias/").encode()), id="an-alias"),
        pytest.param(("aws-kms", b"recovery"), id="its-name-in-the-policy"),
        pytest.param(
            ("sealflow", NAME.encode() + bytes.fromhex("00000080" "0000000c") + bytes(12)), id="a-symmetric-key"
        ),
        pytest.param(("sealflow", b"\xff\xfe"), id="no-text"),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_the_right_one(deployment: Deployment, name: tuple[str, bytes]) -> None:
    """It stands for nobody: neither is a required recipient there, nor is it one of those who may be."""
    asked = joined(deployment, compiled(admins(deployment)))
    assert refused(asked, MARK, VAULT) == []
    for holders in ([name, VAULT], [MARK, name], [name], [name, name]):
        assert refused(asked, *holders) == ["RECIPIENT_REQUIRED", "RECIPIENT_NOT_ALLOWED"]
    assert refused(asked, MARK, VAULT, name) == ["RECIPIENT_NOT_ALLOWED"]
    for found in unsealed(asked, [name]):
        assert found.found == printable(found.found)


def test_a_symmetric_key_under_the_name_of_the_recovery_key(deployment: Deployment, tmp_path: Path) -> None:
    message = encrypt_message(b"x", [aes(tmp_path, query=f"?name={NAME}")], {})
    holders = [(key.provider, key.info) for key in parse_header(message).data_keys]
    asked = joined(deployment, compiled(admins(deployment, {"required": ["recovery"], "only": ["recovery"]})))
    assert refused(asked, *holders) == ["RECIPIENT_REQUIRED", "RECIPIENT_NOT_ALLOWED"]


def test_thirty_two_strangers_are_told_in_short(deployment: Deployment) -> None:
    asked = joined(deployment, compiled(admins(deployment)))
    long = [("n" * 2000, b"\x1b[31m" * 300 + bytes([number])) for number in range(32)]
    for short in unsealed(asked, long):
        assert len(short.found) <= 300
        assert "\x1b" not in short.found


# --- Teams and calls ---


@pytest.mark.parametrize("prefix", ["ml", "policy"])
class TestAnAddedPolicy:
    """A team's policy, and one that a call adds."""

    def added(self, deployment: Deployment, prefix: str, demand: Body, table: Body, **more: object) -> CompiledPolicy:
        place = f"{deployment.folder}/models/**"
        rules = [rule("own", place, require={"recipients": demand}, **more)]
        return compiled(policy(rules, deployment.identities("trainer"), recipients=table), team=prefix)

    @pytest.mark.parametrize("level", ["enforce", "audit", "off"])
    @pytest.mark.parametrize(
        "demand",
        [
            {"encrypted": False, "only": ["recovery", "vault", "mallory"]},
            {"required": ["recovery", "mallory"], "only": ["recovery", "mallory"]},
            {"required": ["mallory"]},
            {"encrypted": True},
        ],
        ids=["more-may", "others-must", "one-more-must", "anybody"],
    )
    def test_takes_nothing_away(self, deployment: Deployment, prefix: str, demand: Body, level: str) -> None:
        table = {"recovery": {"rsa": MALLORYS}, "vault": {"kms": OTHER_ARN}, "mallory": {"rsa": MALLORYS, "name": "m"}}
        admin = compiled(admins(deployment))
        asked = joined(deployment, admin, self.added(deployment, prefix, demand, table, level=level))
        mallory = [("sealflow", b"m"), ("sealflow", sha256_hex(MALLORYS.encode()).encode())]
        for holders in ([], [MARK], [VAULT], mallory, [MARK, *mallory], [MARK, VAULT, mallory[0]]):
            assert set(refused(joined(deployment, admin), *holders)) <= set(refused(asked, *holders))
            assert refused(asked, *holders)
        assert "ENCRYPTION_REQUIRED" in {item.code for item in unsealed(asked, None)}

    def test_may_ask_for_more(self, deployment: Deployment, prefix: str) -> None:
        own = self.added(deployment, prefix, {"required": ["mine"]}, {"mine": {"kms": OTHER_ARN}})
        asked = joined(deployment, compiled(admins(deployment, {"required": ["recovery"]})), own)
        (short,) = unsealed(asked, [MARK])
        assert (short.code, short.expected, short.rule) == ("RECIPIENT_REQUIRED", f"{prefix}/mine", f"{prefix}/own")
        assert refused(asked, MARK, ("aws-kms", OTHER_ARN.encode())) == []

    def test_a_lock_keeps_it_from_that(self, deployment: Deployment, prefix: str) -> None:
        own = self.added(deployment, prefix, {"required": ["mine"]}, {"mine": {"kms": OTHER_ARN}})
        with pytest.raises(PolicyError, match="locks `recipients`") as caught:
            joined(deployment, compiled(admins(deployment, locked=["recipients"])), own)
        assert caught.value.code == "POLICY_LOCKED"

    def test_another_key_under_the_recovery_keys_name(
        self, deployment: Deployment, tmp_path: Path, prefix: str
    ) -> None:
        """An upload wraps to both, so that the admin's key opens it whatever stands beside it under its name."""
        demand: Body = {"required": ["recovery"]}
        own = self.added(deployment, prefix, demand, {"recovery": {"rsa": MALLORYS, "name": NAME}})
        surroundings = sealflow.Surroundings(FIT, admin=deployment.channel())
        deployment.publish(admins(deployment, demand))
        found = policies_for(deployment.model().as_uri(), surroundings)
        added = type(found)(found.places, found.in_force, (*found.chain, own), surroundings).recipients()
        assert [(item.mark, item.key) for item in added] == [(MARK, PEM), (MARK, MALLORYS)]
        message = encrypt_message(b"x", [item.open() for item in reversed(added)], {})
        assert decrypt_message(message, [private_rsa(tmp_path)], expected={}) == b"x"


def test_a_teams_only_and_the_admins_recovery_key_let_nothing_pass(deployment: Deployment) -> None:
    admin = compiled(admins(deployment, {"required": ["recovery"], "encrypted": True}))
    rules = [rule("own", "**", require={"recipients": {"only": ["mine"]}})]
    own = compiled(policy(rules, deployment.identities("trainer"), recipients={"mine": {"kms": OTHER_ARN}}), team="ml")
    asked = joined(deployment, admin, own)
    for holders in ([], [MARK], [("aws-kms", OTHER_ARN.encode())], [MARK, ("aws-kms", OTHER_ARN.encode())]):
        assert refused(asked, *holders)
    assert unsealed(asked, None)


# --- Documents ---


BROKEN: dict[str, Body] = {
    "by-its-place": {"recovery": {"rsa": "/keys/recovery.pub"}, "vault": {"kms": ARN}},
    "in-another-spelling": {"recovery": {"rsa": PEM + "\n"}, "vault": {"kms": ARN}},
    "with-a-preface": {"recovery": {"rsa": "Bag Attributes\n" + PEM}, "vault": {"kms": ARN}},
    "a-private-key": {"recovery": {"rsa": RSA_PEM.decode()}, "vault": {"kms": ARN}},
    "a-certificate": {"recovery": {"rsa": PEM.replace("PUBLIC KEY", "CERTIFICATE")}, "vault": {"kms": ARN}},
    "a-symmetric-key": {"recovery": {"aes": "00" * 32}, "vault": {"kms": ARN}},
    "an-alias": {"recovery": {"rsa": PEM}, "vault": {"kms": "alias/vault"}},
    "another-endpoint": {"recovery": {"rsa": PEM}, "vault": {"kms": f"{ARN}?endpoint=https://example.org"}},
    "in-the-place-of-kms": {"recovery": {"rsa": PEM, "namespace": "aws-kms", "name": ARN}, "vault": {"kms": ARN}},
    "two-under-one-name": {"recovery": {"rsa": PEM}, "vault": {"rsa": MALLORYS, "name": NAME}},
    "unknown": {"recovery": {"rsa": PEM}},
    "none": {},
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_signed_policy_that_cannot_be_held(deployment: Deployment, how: str) -> None:
    """Managed artifacts wait; nothing is passed over, and no secret is repeated."""
    path = deployment.model()
    deployment.sign(path)
    deployment.publish({**admins(deployment), "recipients": BROKEN[how]})
    verdict = deployment.verify(path)
    assert (verdict.status, code(verdict)) == ("unverifiable", "POLICY_UNAVAILABLE")
    said = json.dumps(verdict.as_dict())
    assert RSA_PEM.decode().splitlines()[1] not in said
    assert "00" * 30 not in said


@pytest.mark.parametrize("name", ["recovery", "recipients"])
def test_a_draft_tells_nothing_of_the_file_that_it_names(deployment: Deployment, tmp_path: Path, name: str) -> None:
    """Whoever hands over a draft may name any file that the process can read."""
    secret = "root:x:0:0:topsecret"
    (tmp_path / "secret").write_text(secret)
    table = {"recovery": {"rsa": str(tmp_path / "secret"), **({"name": name} if name != "recovery" else {})}}
    (tmp_path / "p.yaml").write_text(json.dumps(policy([], {}, recipients=table)))
    with pytest.raises(PolicyError, match="not an RSA key") as caught:
        read_draft(str(tmp_path / "p.yaml"))
    assert "topsecret" not in f"{caught.value.message} {caught.value.problems} {caught.value.next_step}"


def test_a_waiver_ends_with_the_key_that_the_rule_named(deployment: Deployment) -> None:
    path = deployment.model()
    deployment.sign(path)
    deployment.publish(admins(deployment))
    deployment.waive(deployment.waiver("models"))
    assert deployment.verify(path).passed
    changed = admins(deployment)
    changed["recipients"] = {**TABLE, "recovery": {"rsa": MALLORYS}}
    deployment.publish({**changed, "version": 2})
    assert code(deployment.verify(path)) == "ENCRYPTION_REQUIRED"


# --- What the check does not prove; the reference says so ---


def test_a_wrapped_key_of_the_right_name_may_open_nothing(deployment: Deployment, tmp_path: Path) -> None:
    forged = RsaRecipient.from_pem(MALLORYS, "mallory", name=NAME)
    message = encrypt_message(b"x", [forged], {})
    holders = [(key.provider, key.info) for key in parse_header(message).data_keys]
    assert refused(joined(deployment, compiled(admins(deployment, {"required": ["recovery"]}))), *holders) == []
    (tmp_path / "rsa.pem").write_bytes(RSA_PEM)
    with pytest.raises(RecipientError) as caught:
        decrypt_message(message, [load_recipient(f"rsa:{tmp_path / 'rsa.pem'}")], expected={})
    assert caught.value.code == "RECIPIENT_KEY_WRONG"
