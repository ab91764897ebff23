"""Forms: one reading. What the reader takes, pydantic takes from the same description, to the same values."""

from __future__ import annotations

import copy
import datetime
import json
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, SealflowError
from sealflow.policy import form as forms
from sealflow.policy.document import TrustPolicy, Waiver, parse_document, parse_policy, parse_waiver
from sealflow.policy.form import Form, members, problems, read, replaced
from sealflow.policy.form_models import model_of, read_as_model
from sealflow.policy.form_parts import Between, Check, Matches, Size, read_moment
from sealflow.policy.revocations import RevocationList
from sealflow.policy.rules import Require, Rule, Scope
from tests.core.policy.whole import DOCUMENTS, HOSTILE, added, paths, put, wrongs

LIMIT = 1 << 20


def readings(form: type[Form], data: bytes) -> tuple[Any, Any]:
    """What the reader and the model make of a document: a form, or why not."""
    try:
        mine: Any = read(form, strictjson.loads(data, limit=LIMIT, what="x"))
    except (EvidenceError, ValueError) as error:
        mine = error
    try:
        theirs: Any = read_as_model(form, data)
    except ValueError as error:
        theirs = error
    return mine, theirs


def agree(form: type[Form], data: bytes) -> bool:
    """Tell whether both take a document; fail where they differ."""
    mine, theirs = readings(form, data)
    if isinstance(mine, EvidenceError):
        return False  # no JSON to us, whatever it is to others
    assert isinstance(mine, Form) == isinstance(theirs, Form), (data[:2000], mine, theirs)
    if isinstance(mine, Form):
        assert mine == theirs, data[:2000]
        assert mine.as_json() == theirs.as_json(), data[:2000]
        assert repr(mine)
        assert type(mine) is form
    return isinstance(mine, Form)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_documents_that_hold_everything(kind: str) -> None:
    form, body = DOCUMENTS[kind]
    assert agree(form, json.dumps(body).encode())
    made = read(form, body)
    # What is written down again says the same.
    for without in ("", "none", "defaults"):
        assert read(form, made.as_json(without=without)) == made  # type: ignore[arg-type]


def held(form: type[Form], value: Any, found: dict[type[Form], set[str]]) -> None:
    """Note the members of each form that a document holds."""
    if isinstance(value, Form):
        found.setdefault(type(value), set()).update(vars(value))
        for item in vars(value).values():
            held(form, item, found)
    elif isinstance(value, (tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            held(form, item, found)


def test_they_hold_every_member_of_every_form() -> None:
    """Else the attacks below would leave one out."""
    found: dict[type[Form], set[str]] = {}
    told = set()
    for form, body in DOCUMENTS.values():
        held(form, read(form, body), found)
        told |= set(model_of(form).model_json_schema().get("$defs", {})) | {form.__name__}
    assert {item.__name__ for item in found} == told
    for item, names in found.items():
        assert names == set(members(item)), item


@pytest.mark.slow
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_each_value_in_the_place_of_each(kind: str) -> None:
    form, body = DOCUMENTS[kind]
    taken = refused = 0
    for _, data in wrongs(body):
        both = agree(form, data)
        taken, refused = taken + both, refused + (not both)
    # Not only refusals agree.
    assert taken > 50
    assert refused > 1000


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_an_unknown_member_is_refused_at_every_level(kind: str) -> None:
    form, body = DOCUMENTS[kind]
    seen = 0
    for path in paths(body):
        at = body
        for part in path:
            at = at[part]
        if isinstance(at, dict):
            assert not agree(form, added(body, path)), path
            seen += 1
    assert seen > 3


#: Where one kind of value stands, and what a lenient reader would take for it.
CONFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "integer-bool": (("version",), "true"),
    "integer-float": (("version",), "1.0"),
    "integer-exponent": (("version",), "1e0"),
    "integer-text": (("version",), '"1"'),
    "integer-null": (("version",), "null"),
    "integer-too-large": (("version",), str(2**53 + 1)),
    "integer-beyond-64-bits": (("version",), str(2**64 + 1)),
    "integer-of-4000-digits": (("version",), "9" * 4000),
    "integer-of-5000-digits": (("version",), "9" * 5000),
    "integer-zero": (("version",), "0"),
    "bool-number": (("identities", "a", "verifier"), "0"),
    "bool-text": (("identities", "a", "verifier"), '"false"'),
    "bool-null": (("identities", "a", "verifier"), "null"),
    "text-number": (("signers", 0, "uri"), "1"),
    "text-list": (("signers", 0, "uri"), '["file:/k"]'),
    "text-line-break": (("rules", 0, "name"), '"models\\n"'),
    "list-text": (("rules", 0, "scope", "artifact"), '"**"'),
    "list-mapping": (("rules", 0, "scope", "artifact"), '{"0": "**"}'),
    "list-null": (("rules",), "null"),
    "list-of-101": (("rules", 0, "scope", "artifact"), json.dumps(["/x"] * 101)),
    "mapping-list": (("identities",), "[]"),
    "mapping-of-pairs": (("identities",), '[["a", {}]]'),
    "mapping-null": (("identities",), "null"),
    "form-list": (("rules", 0, "scope"), "[]"),
    "form-text": (("rules", 0, "scope"), '"{}"'),
    "word-case": (("rules", 0, "level"), '"ENFORCE"'),
    "word-bool": (("rules", 0, "level"), "false"),
    "word-list": (("rules", 0, "level"), '["off"]'),
    "union-other-word": (("rules", 0, "require", "freshness"), '"always"'),
    "union-list": (("rules", 0, "require", "freshness"), '["pinned"]'),
    "union-both": (("rules", 0, "require", "freshness"), '{"pinned": true, "max_age": "1h"}'),
    "union-mapping-of-the-word": (("rules", 0, "require", "freshness"), '{"pinned": null}'),
    "union-empty": (("rules", 0, "require", "freshness"), "{}"),
    "an-alias-of-a-name": (("apiversion",), '"sealflow/v1"'),
    "a-field-by-an-alias": (("rules", 0, "require", "maxAge"), '"1h"'),
    "time-number": (("expires",), "1893456000"),
    "time-float": (("expires",), "1893456000.0"),
    "time-digits": (("expires",), '"1893456000"'),
    "time-date": (("expires",), '"2027-01-01"'),
    "nan": (("version",), "NaN"),
    "infinity": (("version",), "Infinity"),
    "too-large-a-float": (("version",), "1e999"),
    "half-a-surrogate-pair": (("signers", 0, "uri"), '"\\ud800"'),
    "half-a-pair-as-a-name": (("identities",), '{"\\udc00": {}}'),
    "nested-deep": (("rules",), "[" * 40 + "]" * 40),
    "nested-mappings": (("rules",), '{"a":' * 40 + "1" + "}" * 40),
}


@pytest.mark.parametrize("case", CONFUSED)
def test_values_of_another_type(case: str) -> None:
    path, text = CONFUSED[case]
    body = DOCUMENTS["policy"][1]
    with pytest.raises(PolicyError) as caught:
        parse_policy(put(body, path, text))
    assert caught.value.code == "POLICY_MALFORMED"
    assert "defect" not in caught.value.message


#: What is no document to any strict reader of JSON, from the whole one.
TEXTS: dict[str, Any] = {
    "a-name-twice": lambda text: text.replace('"version": ', '"version": 1, "version": ', 1),
    "a-name-twice-by-an-escape": lambda text: text.replace('"version": ', '"v\\u0065rsion": 1, "version": ', 1),
    "a-rule-s-name-twice": lambda text: text.replace('"level": "audit"', '"level": "off", "level": "audit"'),
    "an-identity-twice": lambda text: text.replace('"identities": {', '"identities": {"a": {"key": "x"}, ', 1),
    "a-comment": lambda text: text.replace("{", "{/**/", 1),
    "a-last-comma": lambda text: text[:-1] + ",}",
    "two-documents": lambda text: text + text,
    "something-after": lambda text: text + "x",
    "a-leading-zero": lambda text: text.replace('"grace_hours": 24', '"grace_hours": 024'),
    "a-plus": lambda text: text.replace('"grace_hours": 24', '"grace_hours": +24'),
    "an-underscore": lambda text: text.replace('"grace_hours": 24', '"grace_hours": 2_4'),
    "hexadecimal": lambda text: text.replace('"grace_hours": 24', '"grace_hours": 0x18'),
    "a-byte-order-mark": lambda text: "\ufeff" + text,
    "single-quotes": lambda text: text.replace('"', "'"),
    "a-raw-line-break-in-text": lambda text: text.replace("file:/keys", "file:\n/keys"),
    "an-escape-of-three-digits": lambda text: text.replace("file:/keys", "file:\\u041 /keys"),
    "latin-1": lambda text: text.replace("file:/keys", "file:/\udcff"),
    "utf-16": lambda text: text.encode("utf-16"),
    "a-list-around-it": lambda text: f"[{text}]",
    "text-around-it": lambda text: json.dumps(text),
    "nothing": lambda text: "",
    "a-huge-one": lambda text: text + " " * (4 << 20),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts_that_readers_differ_on(case: str) -> None:
    text = json.dumps(DOCUMENTS["policy"][1])
    made = TEXTS[case](text)
    assert made not in (text, text.encode())
    with pytest.raises(PolicyError) as caught:
        parse_policy(made if isinstance(made, bytes) else made.encode("utf-8", "surrogateescape"))
    assert caught.value.code == "POLICY_MALFORMED"
    assert "defect" not in caught.value.message


#: How many there may be of what a policy lists, and a sound one.
MOST: dict[str, tuple[int, Any]] = {
    "identities": (5000, {"key": "x"}),
    "recipients": (1000, {"rsa": "x"}),
    "timestamp_authorities": (16, {"roots": ["x"]}),
    "signers": (5000, {"uri": "file:/k"}),
    "rules": (5000, {"name": "r", "scope": {"artifact": ["/x"]}}),
    "delegations": (1000, {"team": "t", "artifact": ["/x"], "key": "x", "policy": "/p"}),
}


@pytest.mark.parametrize("name", MOST)
def test_how_many_there_may_be(name: str) -> None:
    most, item = MOST[name]
    listed = name in ("signers", "rules", "delegations")
    for count in (most, most + 1):
        # Names are unique among rules, and among delegations.
        items = [item | {key: f"{key}{number}" for key in ("name", "team") if key in item} for number in range(count)]
        found: Any = items if listed else {f"n{number}": item for number, item in enumerate(items)}
        body = {"apiVersion": "sealflow/v1", "version": 1, "expires": "2027-01-01T00:00:00Z", name: found}
        assert agree(TrustPolicy, json.dumps(body).encode()) == (count == most)


def test_what_only_the_model_would_take_stays_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise forms.RefusedError("for no reason")

    monkeypatch.setattr("sealflow.policy.document.read", refuse)
    with pytest.raises(PolicyError, match="refused without a reason") as caught:
        parse_policy(json.dumps(DOCUMENTS["policy"][1]).encode())
    assert caught.value.code == "POLICY_MALFORMED"


# --- Times ---

_HOURS = [
    "00:00",
    "23:59:59",
    "24:00",
    "12:60",
    "12:00:60",
    "12:00:00.5",
    "12:00:00.123456",
    "12:00:00.1234567",
    "1:00",
]
_ZONES = ["Z", "z", "+00:00", "-00:00", "+14:00", "-12:00", "+23:59", "-23:59", "+24:00", "+05:60", "", "+0500", "+05"]
_DATES = ["2027-06-30", "2028-02-29", "2027-02-29", "2027-13-01", "2027-00-10", "2000-01-01", "1999-12-31",
          "2999-12-31", "3000-01-01", "0000-01-01", "10000-01-01", "\uff12027-06-30"]  # fmt: skip


class Dated(Form):
    """A time."""

    at: datetime.datetime


def test_times_are_the_same_to_both() -> None:
    taken = 0
    for date in _DATES:
        for between in "Tt _":
            for hour in _HOURS:
                for zone in _ZONES:
                    data = json.dumps({"at": f"{date}{between}{hour}{zone}"}).encode()
                    if agree(Dated, data):
                        taken += 1
                        theirs = read_as_model(Dated, data)
                        assert read_moment(json.loads(data)["at"]).utcoffset() == theirs.at.utcoffset()
    assert taken == 4 * 3 * 4 * 8


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2027-06-30t00:00z", "2027-06-30T00:00:00Z"),
        ("2027-06-30 00:00:00-00:00", "2027-06-30T00:00:00Z"),
        ("2027-06-30T00:00:00.5+02:00", "2027-06-30T00:00:00.500000+02:00"),
        ("2027-06-30T00:00:00.000001-12:34", "2027-06-30T00:00:00.000001-12:34"),
    ],
)
def test_a_time_is_written_in_one_way(text: str, written: str) -> None:
    """Waivers are bound to digests over it."""
    assert read(Dated, {"at": text}).as_json() == {"at": written}


# --- Forms themselves ---


def test_a_form_is_never_changed() -> None:
    rule = parse_policy(json.dumps(DOCUMENTS["policy"][1]).encode()).rules[0]
    with pytest.raises(AttributeError, match="cannot be changed"):
        rule.level = "off"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del rule.level
    assert replaced(rule, level="off").level == "off"
    assert rule.level == "audit"
    assert copy.deepcopy(rule) == rule


def test_defaults() -> None:
    rule = read(Rule, {"name": "x", "scope": {"artifact": ["**"]}})
    assert (rule.require, rule.level, rule.locked) == (Require(), "enforce", ())
    assert rule == read(Rule, {"name": "x", "scope": {"artifact": ["**"]}, "require": {}, "level": "enforce"})
    assert rule.as_json(without="defaults") == {"name": "x", "scope": {"artifact": ["**"]}}
    assert Scope() != Require()
    policy = read(TrustPolicy, {"apiVersion": "sealflow/v1", "version": 1, "expires": "2027-01-01T00:00:00Z"})
    with pytest.raises(TypeError):
        policy.identities["x"] = None  # type: ignore[index]


class _Float(Form):
    number: float


class _Number(Form):
    word: Literal[1]


class _Pair(Form):
    pair: tuple[str, int]


class _Listed(Form):
    items: list[str]


class _AnyMapping(Form):
    items: dict


class _SizedNumber(Form):
    number: Annotated[int, Size(0, 1)]


class _PatternOfList(Form):
    items: Annotated[tuple[str, ...], Matches("^x$")]


class _RangeOfText(Form):
    text: Annotated[str, Between(0, 1)]


class _MarkedBool(Form):
    truth: Annotated[bool, Check(lambda _: None)]


class _MarkedUnion(Form):
    text: Annotated[str | None, Size(1, 2)]


@pytest.mark.parametrize(
    "form",
    [_Float, _Number, _Pair, _Listed, _AnyMapping, _SizedNumber, _PatternOfList, _RangeOfText, _MarkedBool,
     _MarkedUnion],
)  # fmt: skip
def test_what_no_form_may_hold(form: type[Form]) -> None:
    """A limit that the reader would not hold, or a value that could be read in two ways, is a defect and said so."""
    with pytest.raises(TypeError, match=r"no form holds|says nothing"):
        read(form, {})


def test_a_pattern_is_about_a_whole_text() -> None:
    with pytest.raises(ValueError, match="whole text"):
        Matches("[a-z]+")


def test_reading_a_policy_loads_no_library_and_saying_what_is_wrong_does() -> None:
    code = (
        "import sys, json; from sealflow.errors import PolicyError; from sealflow.policy import document, revocations\n"
        "body = json.load(sys.stdin)\n"
        "document.parse_policy(json.dumps(body).encode())\n"
        "print('pydantic' in sys.modules)\n"
        "body['version'] = 0\n"
        "try: document.parse_policy(json.dumps(body).encode())\n"
        "except PolicyError as error: print('pydantic' in sys.modules, error.message)\n"
    )
    text = json.dumps(DOCUMENTS["policy"][1])
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "False"
    assert second == "True The policy at version: input should be greater than or equal to 1 (found '0')."


@pytest.mark.parametrize("name", HOSTILE)
def test_any_value_is_no_document(name: str) -> None:
    for form, _ in DOCUMENTS.values():
        with pytest.raises(SealflowError):
            parse_document(form, HOSTILE[name].encode(), "x")
        if not name.startswith("huge"):
            assert problems(form, HOSTILE[name].encode(), None)


# --- Saying what is wrong ---


def spoiled(count: int) -> dict[str, Any]:
    return {**DOCUMENTS["policy"][1], "rules": [1] * count}


def test_much_that_is_wrong_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pydantic would take ten seconds and gigabytes, and end the process where there are none."""
    monkeypatch.setattr("sealflow.policy.form_models.problems", lambda *_: pytest.fail("put into words whole"))
    for form, data in (
        (TrustPolicy, json.dumps(spoiled(forms.MOST_WORDED + 1))),
        (RevocationList, json.dumps({**DOCUMENTS["revocations"][1], "revocations": [1] * (forms.MOST_WORDED + 1)})),
        (Waiver, json.dumps({**DOCUMENTS["waiver"][1], "rules": [1] * 3000})),
    ):
        parse: Any = parse_waiver if form is Waiver else lambda data, form=form: parse_document(form, data, "It")
        with pytest.raises(PolicyError) as caught:
            parse(data.encode())
        ((path, words),) = caught.value.problems
        assert path in {("rules",), ("rules", 0), ("revocations",), ("revocations", 0)}
        assert words.startswith("it is refused: ")


@pytest.mark.parametrize("missing", [ModuleNotFoundError("pydantic"), MemoryError(), RecursionError(), TypeError("x")])
def test_what_has_no_words_stays_refused(monkeypatch: pytest.MonkeyPatch, missing: Exception) -> None:
    def fail(*_: object) -> Any:
        raise missing

    monkeypatch.setattr("sealflow.policy.form_models.problems", fail)
    body = copy.deepcopy(DOCUMENTS["policy"][1])
    body["version"] = 0
    with pytest.raises(PolicyError, match="The policy at version: it is refused: no such integer"):
        parse_policy(json.dumps(body).encode())


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_first_problem_lies_where_the_document_was_spoiled(kind: str) -> None:
    form, body = DOCUMENTS[kind]
    for path in paths(body):
        # No form holds a fraction.
        wrong = json.loads(put(body, path, "0.5"))
        with pytest.raises(ValueError, match=r"."):
            read(form, wrong)
        found, words = forms.first_problem(form, wrong)
        # The place, or that of the whole whose parts do not go together or of which there are alternatives.
        assert path[: len(found)] == found
        assert len(found) >= min(1, len(path))
        assert words


def test_an_unknown_member_is_named() -> None:
    body = {**DOCUMENTS["policy"][1], "strange": 1}
    assert forms.first_problem(TrustPolicy, body) == (("strange",), "it is refused: an unknown member")


def test_a_number_may_be_less_than_nothing() -> None:
    class Cold(Form):
        degrees: int
        most: Annotated[int, Between(-5, 5)]

    assert read(Cold, {"degrees": -3, "most": -5}).most == -5
    with pytest.raises(ValueError, match="no such integer"):
        read(Cold, {"degrees": -3, "most": -6})


def test_no_member_shadows_what_a_form_is() -> None:
    class Shadow(Form):
        as_json: str

    with pytest.raises(TypeError, match="by the name of what every form has: as_json"):
        read(Shadow, {"as_json": "x"})
