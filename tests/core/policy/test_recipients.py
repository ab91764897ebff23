"""The policy's field `recipients`: documents, how demands are joined, and what is said of who can open an artifact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import sealflow
from sealflow.actions.policies import policies_for
from sealflow.actions.policy_explain import explain
from sealflow.actions.policy_tables import read_table, run_table
from sealflow.actions.upload import upload
from sealflow.encryption import decrypt_message, encrypt_message, parse_header
from sealflow.encryption.awskms import AwsKmsRecipient
from sealflow.errors import PolicyError
from sealflow.hashing import sha256_hex
from sealflow.policy import Requirement
from sealflow.policy.compose import Arguments, compose
from sealflow.policy.decide import unsealed
from sealflow.policy.document import parse_policy
from sealflow.policy.draft import read_draft
from sealflow.policy.requirement import KnownRecipient, RecipientDemand
from tests.core.encryption.messages import ARN, OTHER_ARN, RSA_PEM, RSA_PUBLIC_PEM, Kms, aes, private_rsa, public_rsa
from tests.core.policy.deployment import FIT, SCORE, Body, Deployment, code, codes, compiled, policy, rule
from tests.pki import NOW, public_pem

PEM = RSA_PUBLIC_PEM.decode()
MARK = ("sealflow", sha256_hex(RSA_PUBLIC_PEM).encode())
VAULT = ("aws-kms", ARN.encode())
STRANGER = ("sealflow", b"0" * 64)
#: What an AES key leaves in a header under a name: the name, the tag's bits, the nonce's length, the nonce.
SYMMETRIC = ("sealflow", b"team" + bytes.fromhex("000000800000000c") + bytes(12))
TABLE: Body = {"recovery": {"rsa": PEM}, "vault": {"kms": ARN}, "team": {"rsa": PEM, "namespace": "t", "name": "2026"}}
TEAM = ("t", b"2026")
PLACE = "file:///data/x/y"


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "deployment")


def body(there: Deployment, *demands: Body, table: Body = TABLE, place: str = "/data/**", **more: Any) -> Body:
    rules = [rule(f"r{number}", place, require={"recipients": demand}) for number, demand in enumerate(demands)]
    return policy([{**item, **more} for item in rules], there.identities("trainer"), recipients=table)


def requirement(there: Deployment, *demands: Body) -> Requirement:
    return compose([compiled(body(there, *demands))], Arguments(), places=(PLACE,), run=FIT, now=NOW).requirement


# --- What is said ---


@pytest.mark.parametrize(
    ("demand", "holders", "expected"),
    [
        pytest.param({"required": ["recovery"]}, None, [], id="in-clear-and-not-spoken-of"),
        pytest.param({"required": ["recovery"], "encrypted": True}, None, ["ENCRYPTION_REQUIRED"], id="in-clear"),
        pytest.param({"encrypted": True}, None, ["ENCRYPTION_REQUIRED"], id="in-clear-alone"),
        pytest.param({"encrypted": True}, [STRANGER], [], id="encrypted-to-anybody"),
        pytest.param({"required": ["recovery"]}, [MARK], [], id="to-the-required"),
        pytest.param({"required": ["recovery"]}, [STRANGER, MARK], [], id="to-others-too"),
        pytest.param({"required": ["recovery"]}, [STRANGER], ["RECIPIENT_REQUIRED"], id="to-another"),
        pytest.param({"required": ["recovery"]}, [], ["RECIPIENT_REQUIRED"], id="to-nobody"),
        pytest.param({"required": ["recovery", "vault"]}, [MARK], ["RECIPIENT_REQUIRED"], id="to-one-of-two"),
        pytest.param({"required": ["recovery", "vault"]}, [VAULT, MARK], [], id="to-both"),
        pytest.param({"only": ["recovery", "vault"]}, [VAULT], [], id="to-one-who-may"),
        pytest.param({"only": ["vault"]}, [VAULT, MARK], ["RECIPIENT_NOT_ALLOWED"], id="to-one-who-may-not"),
        pytest.param({"only": ["team"]}, [TEAM], [], id="under-another-name"),
        pytest.param({"only": ["team"]}, [MARK], ["RECIPIENT_NOT_ALLOWED"], id="the-same-key-under-its-usual-name"),
        pytest.param({"only": ["team"]}, [TEAM, SYMMETRIC], ["RECIPIENT_NOT_ALLOWED"], id="a-symmetric-key-too"),
        pytest.param(
            {"required": ["recovery"], "only": ["recovery"]},
            [STRANGER],
            ["RECIPIENT_REQUIRED", "RECIPIENT_NOT_ALLOWED"],
            id="both-at-once",
        ),
    ],
)  # fmt: skip
def test_who_can_open_it(
    there: Deployment, demand: Body, holders: Sequence[tuple[str, bytes]] | None, expected: list[str]
) -> None:
    found = unsealed(requirement(there, demand), holders)
    assert [item.code for item in found] == expected
    assert {item.rule for item in found} <= {"r0"}


def test_without_the_field_nothing_is_said(there: Deployment) -> None:
    plain = compiled(policy([rule("r", "/data/**")], there.identities("trainer"), recipients=TABLE))
    found = compose([plain], Arguments(), places=(PLACE,), run=FIT, now=NOW).requirement
    assert found.recipients == ()
    assert unsealed(found, None) == unsealed(found, [STRANGER]) == unsealed(Requirement(()), []) == []


def test_messages_name_who_lacks_and_who_is_there(there: Deployment) -> None:
    demand = {"required": ["recovery", "vault"], "only": ["recovery", "vault"]}
    lacking, other = unsealed(requirement(there, demand), [VAULT, SYMMETRIC])
    assert (lacking.expected, lacking.found) == ("recovery", f"aws-kms:{ARN}, sealflow:team")
    assert (other.expected, other.found) == ("only recovery, vault", "sealflow:team")


# --- Joined ---


def test_demands_are_joined(there: Deployment) -> None:
    first = {"required": ["recovery"], "only": ["recovery", "vault"]}
    second = {"required": ["vault"], "only": ["recovery", "vault", "team"]}
    asked = requirement(there, first, second, {"encrypted": True})
    assert [item.code for item in unsealed(asked, None)] == ["ENCRYPTION_REQUIRED"]
    assert unsealed(asked, [MARK, VAULT]) == []
    assert [(item.code, item.rule) for item in unsealed(asked, [MARK])] == [("RECIPIENT_REQUIRED", "r1")]
    assert [(item.code, item.rule) for item in unsealed(asked, [MARK, VAULT, TEAM])] == [
        ("RECIPIENT_NOT_ALLOWED", "r0")
    ]


CONTRADICTIONS = [
    ([{"required": ["recovery"]}, {"only": ["vault"]}], True),
    ([{"only": ["recovery"]}, {"only": ["vault"]}], True),
    ([{"only": ["recovery", "vault"], "required": ["vault"]}, {"only": ["recovery", "team"]}], True),
    ([{"only": ["recovery", "vault"]}, {"only": ["vault", "team"], "required": ["vault"]}], False),
    ([{"required": ["recovery"]}, {"required": ["vault"]}, {"encrypted": True}], False),
    ([{"only": ["recovery"]}, {"encrypted": True}], False),
]


@pytest.mark.parametrize(("demands", "contradict"), CONTRADICTIONS, ids=str)
def test_what_leaves_nobody_is_a_contradiction(there: Deployment, demands: list[Body], contradict: bool) -> None:
    if not contradict:
        compiled(body(there, *demands))
        return
    with pytest.raises(PolicyError) as caught:
        compiled(body(there, *demands))
    assert caught.value.code == "POLICY_CONTRADICTION"
    assert caught.value.problems[0][0] == ("rules", 1, "require", "recipients")


def test_rules_that_never_meet_contradict_nobody(there: Deployment) -> None:
    made = body(there, {"required": ["recovery"]}, {"only": ["vault"]})
    made["rules"][1]["scope"]["artifact"] = ["/elsewhere/**"]
    compiled(made)
    made["rules"][1]["scope"] = {"artifact": ["/data/**"], "pipeline": ["p"]}
    made["rules"][0]["scope"]["dag"] = ["d"]
    compiled(made)


def test_a_waiver_is_bound_to_the_recipients_that_the_rule_names(there: Deployment) -> None:
    def digest(demand: Body | None, table: Body) -> str:
        made = body(there, demand or {"encrypted": True}, table=table)
        if demand is None:
            del made["rules"][0]["require"]["recipients"]
        return compiled(made).rules[0].digest

    other = {**TABLE, "recovery": {"kms": OTHER_ARN}}
    assert digest({"required": ["recovery"]}, TABLE) != digest({"required": ["recovery"]}, other)
    assert digest({"only": ["recovery"]}, TABLE) != digest({"only": ["recovery"]}, other)
    assert digest({"required": ["vault"]}, TABLE) == digest({"required": ["vault"]}, other)
    # A rule without the field keeps the digest that waivers of earlier releases are bound to.
    assert digest(None, TABLE) == digest(None, other)
    body_of = {"rule": {"name": "r0", "scope": {"artifact": ["/data/**"]},
               "require": {"identities": {"any_of": ["trainer"]}}},
               "identities": there.identities("trainer")}  # fmt: skip
    assert digest(None, TABLE) == "sha256:" + sha256_hex(sealflow.strictjson.dumps(body_of))


# --- Documents ---


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"a": {}}, "exactly one"),
        ({"a": {"rsa": PEM, "kms": ARN}}, "exactly one"),
        ({"a": {"aes": "team.key"}}, "secret"),
        ({"a": {"aes": "k", "rsa": PEM}}, "secret"),
        ({"a": {"rsa": "aes:/keys/team.key"}}, "secret"),
        ({"a": {"kms": "alias/vault"}}, "ARN"),
        ({"a": {"kms": f"awskms:{ARN}"}}, "ARN"),
        ({"a": {"kms": f"{ARN}?endpoint=http://evil"}}, "ARN"),
        ({"a": {"kms": ARN.replace(":kms:", "%3Akms:")}}, "ARN"),
        ({"a": {"kms": f"/{ARN}"}}, "ARN"),
        ({"a": {"kms": ARN, "name": "x"}}, "by its ARN"),
        ({"a": {"rsa": PEM, "namespace": "aws-kms"}}, "choose another"),
        ({"a": {"rsa": PEM, "namespace": ""}}, "at least 1"),
        ({"a": {"rsa": PEM, "name": ""}}, "at least 1"),
        ({"a": {"rsa": PEM, "name": "x" * 257}}, "256"),
        ({"a": {"rsa": PEM, "name": "a\nb"}}, "pattern"),
        ({"a": {"rsa": PEM, "more": 1}}, "unknown"),
        ({"a/b": {"rsa": PEM}}, "pattern"),
        ([], "object"),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value).replace(json.dumps(PEM), "PEM")[:60],
)
def test_what_is_no_recipient(there: Deployment, table: Any, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(json.dumps(policy([], there.identities("trainer"), recipients=table)).encode())
    assert reason in f"{caught.value.message} {caught.value.problems}"


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        ({}, "encrypted: true"),
        ({"encrypted": False}, "encrypted: true"),
        ({"required": []}, "at least 1"),
        ({"only": []}, "at least 1"),
        ({"required": ["recovery", "recovery"]}, "twice"),
        ({"only": ["vault", "vault"]}, "twice"),
        ({"required": ["recovery"], "only": ["vault"]}, "leaves out recovery"),
        ({"required": ["nobody"]}, "unknown recipient nobody"),
        ({"only": ["recovery", "nobody"]}, "unknown recipient nobody"),
        ({"required": [f"a{number}" for number in range(33)]}, "at most 32"),
        ({"encrypted": "yes"}, "boolean"),
        ({"required": ["recovery"], "more": 1}, "unknown"),
        (["recovery"], "object"),
    ],
    ids=str,
)
def test_what_no_rule_demands(there: Deployment, demand: Any, reason: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(json.dumps(body(there, demand)).encode())
    assert reason in f"{caught.value.message} {caught.value.problems}"


SHORT = public_pem(rsa.generate_private_key(65537, 1024)).decode()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"a": {"rsa": "recovery.pub"}}, "not an RSA key"),
        ({"a": {"rsa": PEM + "\n"}}, "unusual way"),
        ({"a": {"rsa": "\n" + PEM}}, "unusual way"),
        ({"a": {"rsa": PEM.replace("\n", "\r\n")}}, "unusual way"),
        ({"a": {"rsa": SHORT}}, "1024 bits"),
        ({"a": {"rsa": RSA_PEM.decode()}}, "private key"),
        ({"a": {"rsa": PEM}, "b": {"rsa": PEM}}, "one name"),
        ({"a": {"kms": ARN}, "b": {"kms": ARN}}, "one name"),
        ({"a": {"rsa": PEM}, "b": {"rsa": PEM, "name": MARK[1].decode()}}, "one name"),
    ],
    ids=["a-path", "line-more", "line-before", "line-ends", "short", "private", "twin", "twin-kms", "twin-by-name"],
)
def test_what_no_signed_policy_holds(there: Deployment, table: Body, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason) as caught:
        compiled(policy([], there.identities("trainer"), recipients=table))
    assert caught.value.problems[0][0][0] == "recipients"
    assert "PRIVATE" not in f"{caught.value.message}{caught.value.problems}"


def test_an_elliptic_key_signs_and_opens_nothing(there: Deployment) -> None:
    with pytest.raises(PolicyError, match="not an RSA key"):
        compiled(policy([], {}, recipients={"a": {"rsa": there.pem("trainer")}}))


@pytest.mark.parametrize("how", ["beside", "absolute", "file", "text"])
def test_a_draft_names_the_place_of_the_key(there: Deployment, tmp_path: Path, how: str) -> None:
    # As other tools write it; signing spells it in one way.
    (tmp_path / "r.pub").write_bytes(RSA_PUBLIC_PEM.replace(b"\n", b"\r\n"))
    place = {
        "beside": "r.pub",
        "absolute": str(tmp_path / "r.pub"),
        "file": f"file:{tmp_path / 'r.pub'}",
        "text": "\n" + PEM,
    }
    made = body(there, {"required": ["recovery"]}, table={"recovery": {"rsa": place[how]}, "vault": {"kms": ARN}})
    (tmp_path / "p.yaml").write_text(json.dumps(made))
    draft = read_draft(str(tmp_path / "p.yaml"))
    assert draft.policy().recipients["recovery"].rsa == PEM
    assert draft.policy().recipients["vault"].kms == ARN


@pytest.mark.parametrize(
    ("rsa_", "reason"), [("gone.pub", "no key file"), ("r.pem", "private key"), ("k", "not an RSA")]
)
def test_a_draft_names_no_such_key(there: Deployment, tmp_path: Path, rsa_: str, reason: str) -> None:
    (tmp_path / "r.pem").write_bytes(RSA_PEM)
    (tmp_path / "k").write_bytes(b"k" * 32)
    made = body(there, {"required": ["recovery"]}, table={"recovery": {"rsa": rsa_}})
    (tmp_path / "p.yaml").write_text(json.dumps(made))
    with pytest.raises(PolicyError, match=reason) as caught:
        read_draft(str(tmp_path / "p.yaml"))
    assert caught.value.problems[0][0] == ("recipients", "recovery", "rsa")


# --- Readers and writers know them by the same name ---


def test_a_writer_wraps_and_a_reader_finds_the_same_names(there: Deployment, tmp_path: Path) -> None:
    known = compiled(body(there, {"required": ["recovery"]})).recipients
    assert {item.name: item.mark for item in known.values()} == {"recovery": MARK, "vault": VAULT, "team": TEAM}
    opened = [item.open() for item in known.values()]
    for recipient in opened:
        if isinstance(recipient, AwsKmsRecipient):
            recipient._made = Kms(ARN)
    message = encrypt_message(b"x", opened, {})
    holders = [(key.provider, key.info) for key in parse_header(message).data_keys]
    assert holders == [MARK, VAULT, TEAM]
    asked = requirement(there, {"required": ["recovery", "vault", "team"], "only": ["recovery", "vault", "team"]})
    assert unsealed(asked, holders) == []
    assert decrypt_message(message, [private_rsa(tmp_path)], expected={}) == b"x"
    assert decrypt_message(message, [private_rsa(tmp_path, "?namespace=t&name=2026")], expected={}) == b"x"


def test_a_writer_who_names_the_key_himself_counts(there: Deployment, tmp_path: Path) -> None:
    message = encrypt_message(b"x", [public_rsa(tmp_path)], {})
    holders = [(key.provider, key.info) for key in parse_header(message).data_keys]
    assert unsealed(requirement(there, {"required": ["recovery"], "only": ["recovery"]}), holders) == []


def test_what_an_upload_must_add(there: Deployment) -> None:
    path = there.model("models/m.bin")
    made = body(there, {"required": ["vault", "recovery"]}, {"required": ["recovery", "team"]}, {"encrypted": True},
                place=f"{there.folder}/models/**")  # fmt: skip
    made["rules"].append(rule("named", "name:churn-*", require={"recipients": {"required": ["other"]}}))
    made["recipients"] = {**TABLE, "other": {"kms": OTHER_ARN}}
    there.publish(made)
    surroundings = sealflow.Surroundings(FIT, admin=there.channel())
    policies = policies_for(path.as_uri(), surroundings)
    assert [item.name for item in policies.recipients()] == ["vault", "recovery", "team"]
    assert [item.name for item in policies.recipients(["churn-7"])] == ["other", "vault", "recovery", "team"]
    assert policies_for(there.model("free/f.bin").as_uri(), surroundings).recipients() == ()
    # While its key service is down.
    there.waive(there.waiver("r0", artifact=f"{there.folder}/models/**"))
    assert [item.name for item in policies_for(path.as_uri(), surroundings).recipients()] == ["recovery", "team"]
    there.waive(there.waiver("r1", artifact=f"{there.folder}/models/**", digest="sha256:" + "1" * 64), name="w2.json")
    assert [item.name for item in policies_for(path.as_uri(), surroundings).recipients()] == ["recovery", "team"]


def test_an_audited_rule_is_followed_by_uploads(there: Deployment) -> None:
    path = there.model("models/m.bin")
    there.publish(body(there, {"required": ["recovery"]}, place=f"{there.folder}/models/**", level="audit"))
    policies = policies_for(path.as_uri(), sealflow.Surroundings(FIT, admin=there.channel()))
    assert [item.name for item in policies.recipients()] == ["recovery"]


def test_without_a_policy_nothing_is_added(there: Deployment) -> None:
    assert policies_for(there.model().as_uri(), sealflow.Surroundings(FIT)).recipients() == ()


# --- What comes of it ---


@pytest.mark.parametrize("level", ["enforce", "audit"])
def test_an_artifact_in_clear(there: Deployment, level: str) -> None:
    path = there.model("models/m.bin")
    there.sign(path)
    made = body(there, {"encrypted": True}, place=f"{there.folder}/models/**", level=level)
    there.publish(made)
    verdict = there.verify(path)
    assert (code(verdict), verdict.passed) == (
        ("ENCRYPTION_REQUIRED", False) if level == "enforce" else ("passed", True)
    )
    assert {"ENCRYPTION_REQUIRED"} | ({"POLICY_AUDIT"} if level == "audit" else set()) <= codes(verdict)
    if level == "enforce":
        assert verdict.exit_status == 3
        there.waive(there.waiver("r0"))
        verdict = there.verify(path)
        assert verdict.passed, verdict.summary()
        assert {"WAIVER_USED", "ENCRYPTION_REQUIRED"} <= codes(verdict)
    there.publish(body(there, {"required": ["recovery"]}, place=f"{there.folder}/models/**", level=level))
    assert there.verify(path).passed


def test_no_clear_copy_is_handed_out(there: Deployment) -> None:
    path = there.model("models/m.bin")
    ref = there.sign(path).ref
    there.publish(body(there, {"encrypted": True}, place=f"{there.folder}/models/**"))
    with (
        sealflow.run(sealflow.Surroundings(SCORE, admin=there.channel())),
        pytest.raises(sealflow.VerificationError, match="ENCRYPTION_REQUIRED"),
        sealflow.verified(ref),
    ):
        raise AssertionError("handed out")


def test_explain_says_who_must_be_able_to_open(there: Deployment) -> None:
    def said(*demands: Body) -> list[tuple[str, tuple[str, ...]]]:
        there.publish(body(there, *demands))
        found = explain("/data/x", sealflow.Surroundings(SCORE, admin=there.channel()))
        return [(item.text, item.rules) for item in found.demands if item.what == "recipients"]

    name = f"recovery (sealflow:{MARK[1].decode()})"
    assert said({"required": ["recovery"], "encrypted": True}, {"only": ["recovery", "vault"]}) == [
        ("stored encrypted; in clear it is refused", ("r0",)),
        (f"to {name}", ("r0",)),
        (f"to nobody but {name}, vault (aws-kms:{ARN})", ("r1",)),
    ]
    assert said({"required": ["recovery"]}) == [(f"if it is encrypted: to {name}", ("r0",))]


@pytest.mark.parametrize(
    ("recipients", "reason"),
    [
        (None, "ENCRYPTION_REQUIRED"),
        ("clear", "ENCRYPTION_REQUIRED"),
        (["recovery"], ""),
        (["recovery", "vault"], ""),
        (["vault"], "RECIPIENT_REQUIRED"),
        (["recovery", "team"], "RECIPIENT_NOT_ALLOWED"),
        (["recovery", "sha256:" + "0" * 64], "RECIPIENT_NOT_ALLOWED"),
        (["recovery", OTHER_ARN], "RECIPIENT_NOT_ALLOWED"),
        (["sha256:" + MARK[1].decode(), ARN], ""),
    ],
    # Written out: a fingerprint of a key made here would give every process of a test run other names.
    ids=["nothing-said", "clear", "demanded", "allowed", "another", "a-stranger", "a-key", "an-arn", "by-fingerprint"],
)
def test_a_table_supposes_recipients(there: Deployment, recipients: Any, reason: str) -> None:
    case = {"name": "c", "artifact": "/data/x", "evidence": [{"by": "trainer", "producer": "airflow:train/fit"}]}
    case |= {"expect": "refused", "code": reason} if reason else {"expect": "passed"}
    if recipients is not None:
        case["recipients"] = recipients
    data = json.dumps({"apiVersion": "sealflow/v1", "kind": "PolicyTests", "cases": [case]}).encode()
    made = compiled(body(there, {"required": ["recovery"], "only": ["recovery", "vault"], "encrypted": True}))
    (result,) = run_table(made, *read_table(data, "t"))
    assert result.ok, result


@pytest.mark.parametrize(
    ("recipients", "reason"),
    [
        (["recovry"], "did you mean recovery"),
        (["sha256:0"], "the fingerprint or the ARN"),
        ([], "it is empty|neither `clear` nor a list"),
        ("encrypted", "neither `clear` nor a list"),
        ({"required": ["recovery"]}, "neither `clear` nor a list"),
    ],
    ids=str,
)
def test_a_table_supposes_no_such_thing(there: Deployment, recipients: Any, reason: str) -> None:
    case = {"name": "c", "artifact": "/data/x", "recipients": recipients, "expect": "refused"}
    data = json.dumps({"apiVersion": "sealflow/v1", "kind": "PolicyTests", "cases": [case]}).encode()
    with pytest.raises(PolicyError, match=reason) as caught:
        run_table(compiled(body(there, {"required": ["recovery"]})), *read_table(data, "t"))
    assert caught.value.code == "TABLE_MALFORMED"


def test_no_key_is_opened_to_compare(there: Deployment) -> None:
    item = KnownRecipient("a", "sealflow", b"n", "no key at all")
    asked = Requirement((), recipients=(RecipientDemand("r", (item,), (item,)),))
    assert unsealed(asked, [("sealflow", b"n")]) == []


# --- Real uploads ---


def _upload(there: Deployment, recipients: Any, *, followed: bool = True) -> str:
    """Upload an encrypted artifact; who skips the policy is an author who works without our settings."""
    source = there.model("source/m.bin")
    admin = there.channel() if followed else None
    with sealflow.run(sealflow.Surroundings(FIT, admin=admin)):
        return upload(
            source, f"{there.folder}/models/m.enc", recipients=recipients, signer=there.key("trainer").signer
        ).uri


def test_an_upload_adds_the_recovery_key_and_it_opens(there: Deployment, tmp_path: Path) -> None:
    there.publish(body(there, {"required": ["recovery"], "encrypted": True}, place=f"{there.folder}/models/**"))
    team = aes(tmp_path).uri
    uri = _upload(there, team)
    for key in (team, private_rsa(tmp_path).uri):
        verdict = there.verify(uri, recipients=key)
        assert verdict.passed, verdict.summary()


def test_without_recipients_of_its_own_an_upload_takes_the_policys(there: Deployment, tmp_path: Path) -> None:
    demand = {"required": ["recovery"], "only": ["recovery", "vault"], "encrypted": True}
    there.publish(body(there, demand, place=f"{there.folder}/models/**"))
    verdict = there.verify(_upload(there, None), recipients=private_rsa(tmp_path).uri)
    assert verdict.passed, verdict.summary()


@pytest.mark.parametrize("level", ["enforce", "audit"])
@pytest.mark.parametrize(
    ("demand", "expected"),
    [({"required": ["recovery"]}, "RECIPIENT_REQUIRED"), ({"only": ["recovery"]}, "RECIPIENT_NOT_ALLOWED")],
    ids=["without-the-recovery-key", "to-somebody-else"],
)
def test_who_skips_the_policy_is_refused_where_it_is_read(
    there: Deployment, tmp_path: Path, demand: Body, expected: str, level: str
) -> None:
    there.publish(body(there, demand, place=f"{there.folder}/models/**", level=level))
    team = aes(tmp_path).uri
    verdict = there.verify(_upload(there, team, followed=False), recipients=team)
    assert verdict.passed is (level == "audit"), verdict.summary()
    assert expected in codes(verdict)
    if level == "enforce":
        assert (code(verdict), verdict.exit_status) == (expected, 4)
