"""The quick way to read a list of revocations says what the strict way says, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import PolicyError
from sealflow.policy.revocations import CompiledRevocations, parse_revocations, read_own_form
from tests.core.policy.test_revocations import LIST, REFUSED, edited
from tests.fuzz.test_untrusted_bytes import EXAMPLES

HEAD: dict[str, Any] = {name: value for name, value in LIST.items() if name != "revocations"}
OWN: list[dict[str, Any]] = [
    {"key": "sha256:" + "0" * 64, "since": "2026-01-01T00:00:00Z", "reason": "stolen", "id": "SEC-17"},
    {"key": "sha256:" + "0" * 64, "since": "2025-12-31T23:59:59Z", "reason": "{stolen}, 'earlier' [x]"},
    {"identity": "trainer", "since": "2026-02-28T00:00:00Z", "reason": "laptop lost"},
    {"identity": "email:anna@example.org", "since": "2026-01-01T00:00:00Z", "reason": "left"},
    {"digest": "dirHash:" + "1" * 64, "since": "2026-01-01T00:00:00Z", "reason": "poisoned", "id": "SEC-18"},
]
WRITTEN = strictjson.dumps({**HEAD, "revocations": OWN, "withdrawn": [
    {"identity": "other", "version": 2, "reason": 'not "revocations":[ at all'},
]})  # fmt: skip
#: What parsers may differ on.
PIECES = [
    b'"revocations":[', b'"revocations":[]', b",", b"]", b"}", b"{}", b'"', b"\\", b'\\"', b" ", b"\n", b"\x00",
    b"\x7f", "é".encode(), b"\\u0041", b'"since":', b'"reason":"x",', b'"key":"sha256:' + b"0" * 64 + b'",',
    b"2026-02-30", b"T24:", b'"until":"x",', b"null", b"0",
]  # fmt: skip


def maps(listed: CompiledRevocations) -> Any:
    return listed._keys, listed._names, listed._digests, listed._identities, listed.document.version


def agree(data: bytes) -> bool:
    """Tell whether the quick way read it; then the strict way must, and to the same end."""
    own = read_own_form(data)
    if own is None:
        return False
    strict = parse_revocations(data)
    assert maps(CompiledRevocations(own, digest="")) == maps(CompiledRevocations(strict, digest=""))
    assert own.revocations == strict.revocations
    assert (own.expires, own.grace_hours, own.withdrawn) == (strict.expires, strict.grace_hours, strict.withdrawn)
    return True


def test_what_we_write_is_read_so() -> None:
    assert agree(WRITTEN)
    assert agree(WRITTEN.replace(b'"version":3', b' "version" : 3'))  # around the entries anything strict will do
    assert not agree(strictjson.dumps(LIST))  # other forms of time
    assert not agree(strictjson.dumps(HEAD))
    assert not agree(strictjson.dumps({**HEAD, "revocations": []}))


def test_what_the_strict_way_refuses() -> None:
    for name, edit in REFUSED.items():
        body = strictjson.loads(edited(edit), limit=1 << 20, what="x")
        if isinstance(body.get("revocations"), list):
            # The first entry alone: the others have forms that only the strict way reads.
            body["revocations"] = body["revocations"][:1]
        data = strictjson.dumps(body)
        assert read_own_form(data) is None, name


@pytest.mark.slow
@settings(max_examples=2 * EXAMPLES)
@given(data=st.data())
def test_mutated(data: st.DataObject) -> None:
    changed = bytearray(WRITTEN)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
        cut = data.draw(st.sampled_from([0, 0, 1, 2, len(piece), 40]))
        changed[at : at + cut] = piece
    try:
        agree(bytes(changed))
    except PolicyError as error:
        raise AssertionError((bytes(changed), error.message)) from None


@pytest.mark.slow
def test_each_place_with_each_piece() -> None:
    """Put in, or put in the place of as many bytes."""
    read = 0
    for at in range(len(WRITTEN)):
        for piece in PIECES:
            for cut in (0, len(piece)):
                made = WRITTEN[:at] + piece + WRITTEN[at + cut :]
                own = read_own_form(made)
                if own is not None:
                    read += agree(made)
    assert read > 500
