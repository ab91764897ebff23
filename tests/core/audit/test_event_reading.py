"""Reading events fast loosens nothing: what is accepted is what the slow, plain way accepts."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import to_json

from sealflow import strictjson
from sealflow.audit import AuditEvent
from sealflow.audit.event import MAX_EVENT, MAX_LISTED
from sealflow.audit.event_model import EventModel
from sealflow.errors import EvidenceError, UsageError
from sealflow.run_identity import RunIdentity
from tests.core.audit.test_event import EVENTS, GOOD, changed

END = AuditEvent("end", "end", RunIdentity("kfp", "p", "t", "r", 3, 2), count=7, after="0" * 64)


def plainly(data: bytes) -> AuditEvent | None:
    """Read an event step by step: parse, check, build, and write it again, which must give the same text."""
    try:
        body = strictjson.loads(data, limit=MAX_EVENT, what="It", most_values=4 * MAX_LISTED)
        members = EventModel.model_validate(body).model_dump(exclude_unset=True)
        run = {name: value for name, value in members.pop("run").items() if name not in ("producer", "invocation")}
        del members["sealflow_audit"]
        for name in ("codes", "signers"):
            members[name] = tuple(members.get(name, ()))
        event = AuditEvent(run=RunIdentity(**run), **members)
        return event if event.to_json() == data else None
    except (EvidenceError, UsageError, ValueError):
        return None


def read(data: bytes) -> AuditEvent | None:
    try:
        return AuditEvent.parse(data)
    except EvidenceError as error:
        if error.code != "AUDIT_MALFORMED":
            raise
        return None


def _swapped(data: bytes, one: bytes, other: bytes) -> bytes:
    assert one in data
    return data.replace(one, other, 1)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(changed(sealflow_audit=1.0), id="version-1.0"),
        pytest.param(changed(sealflow_audit=True), id="version-true"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":7.0'), id="count-with-a-point"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":true'), id="count-true"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":7e0'), id="count-with-an-exponent"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":-0'), id="count-minus-0"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":' + b"9" * 5000), id="count-of-5000-digits"),
        pytest.param(_swapped(END.to_json(), b'"count":7', b'"count":NaN'), id="count-nan"),
        pytest.param(_swapped(END.to_json(), b'"attempt":2', b'"attempt":null'), id="attempt-null"),
        pytest.param(_swapped(END.to_json(), b'"attempt":2', b'"attempt":2,"attempt":2'), id="same-member-twice"),
        pytest.param(_swapped(END.to_json(), b'"attempt":2', b'"attempt":3'), id="invocation-of-another-try"),
        pytest.param(_swapped(END.to_json(), b'"producer":"kfp:p/t"', b'"producer":"kfp:p/u"'), id="producer-lies"),
        pytest.param(_swapped(END.to_json(), b'"action":"end","after"', b'"after"'), id="no-action"),
        pytest.param(_swapped(END.to_json(), b'"0000', b'"\\u0030000'), id="escaped-digit"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"m\xff"'), id="not-utf-8"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"\xed\xa0\x80"'), id="encoded-surrogate"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"\\ud83d\\ude00"'), id="escaped-pair"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"a\\/b"'), id="escaped-slash"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"\\u001F"'), id="upper-case-escape"),
        pytest.param(_swapped(GOOD.to_json(), b'"me"', b'"\x7f\t"'), id="bare-tab"),
        pytest.param(b"\xef\xbb\xbf" + GOOD.to_json(), id="byte-order-mark"),
        pytest.param(GOOD.to_json() + b"\x00", id="zero-behind"),
        pytest.param(b"[" * 20_000, id="deep"),
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    assert read(END.to_json()) == END
    assert read(data) is None
    assert plainly(data) is None


def test_members_in_another_order_are_refused() -> None:
    body = GOOD.as_dict()
    for place in (body, body["run"]):
        members = list(place.items())
        place.clear()
        place.update(reversed(members))
        assert read(to_json(body)) is None
        place.clear()
        place.update(sorted(members))
    assert read(to_json(body)) == GOOD


@example(GOOD, 0, 0, b"")
@given(
    EVENTS, st.integers(0, 1500), st.integers(0, 12), st.binary(max_size=6) | st.sampled_from([b"1.0", b'"",', b"{"])
)
def test_what_is_accepted_is_what_the_plain_way_accepts(event: AuditEvent, at: int, cut: int, put: bytes) -> None:
    data = event.to_json()
    assert read(data) == plainly(data) == event
    altered = data[:at] + put + data[at + cut :]
    found: Any = read(altered)
    assert found == plainly(altered)
    assert found is None or found.to_json() == altered


def test_every_character_has_one_spelling_for_both_writers() -> None:
    text = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    assert to_json({text: [text, 10**40, -1]}) == strictjson.dumps({text: [text, 10**40, -1]})


def test_events_do_not_share_what_they_do_not_say() -> None:
    one, other = AuditEvent.parse(END.to_json()), AuditEvent.parse(END.to_json())
    assert one.claims == other.claims == {}
    assert one.claims is not other.claims
    assert (one.codes, one.signers, one.outcome) == ((), (), "")
