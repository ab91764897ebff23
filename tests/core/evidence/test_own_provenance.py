"""Provenance in the bytes that we write is read by a shorter way, and says what the parsers find in it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow import RunIdentity
from sealflow.errors import EvidenceError
from sealflow.evidence.own_provenance import Digests, find_own_form, read_own_form, tell, understand
from sealflow.evidence.provenance import (
    MAX_TEXT,
    Dependency,
    make_provenance_statement,
    parse_dependencies,
    parse_provenance,
)
from sealflow.evidence.statement import parse_statement
from sealflow.hashing import Digest

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
DATA = Dependency("s3://b/data", Digest("sha256", "cd" * 32), "data")
CODE = Dependency("git+https://example.org/x", Digest("dirHash", "ef" * 32), "code", source=True)


def made(run: RunIdentity | None = None, name: str = "model", **options: Any) -> bytes:
    run = run or RunIdentity("airflow", "train", "fit", "manual__1", 3, 2, "uuid", "ml")
    return make_provenance_statement(name, Digest("dirHash", "ab" * 32), run, now=NOW, **options)


def parsed(payload: bytes) -> Any:
    """Return what the parsers find, ``None`` where they refuse."""
    try:
        said = parse_provenance(parse_statement(payload))
        return said._replace(dependencies=()), parse_dependencies(said)
    except EvidenceError:
        return None


FULL = made(dependencies=[DATA, CODE, DATA], parameters={"day": "1", "lr": "2"}, parameter_key=b"k", adoption="a move")

OWN: dict[str, bytes] = {
    "all members": FULL,
    "no inputs": made(),
    "inputs": made(dependencies=[DATA, CODE]),
    "an input without a name or location": made(dependencies=[Dependency("", DATA.digest, "")]),
    "redacted parameters": made(parameters={"day": "1", "": "2"}),
    "a run that knows nothing of itself": made(RunIdentity()),
    "a run on the command line": made(RunIdentity("cli", run="x")),
    "another builder": made(RunIdentity("kfp", "p", "t", "r", builder="urn:x")),
    "a mapped task": made(RunIdentity("airflow", "d", "t", "r", 0, 1)),
    "the longest texts": made(name="x" * MAX_TEXT, dependencies=[DATA._replace(uri="u" * (4 * MAX_TEXT))]),
}


@pytest.mark.parametrize("case", OWN)
def test_what_we_write_is_read_by_the_shorter_way(case: str) -> None:
    found = read_own_form(OWN[case])
    assert found is not None
    assert found == parsed(OWN[case])
    assert type(found[0]) is type(parsed(OWN[case])[0])


@pytest.mark.parametrize("case", OWN)
def test_texts_for_another_process_are_the_same_from_either_way(case: str) -> None:
    told = tell(*parsed(OWN[case]))
    assert told == find_own_form(OWN[case])
    assert understand(told, Digests()) == parsed(OWN[case])


def test_digests_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow.evidence.own_provenance._MAX_DIGESTS", 2)
    digests = Digests()
    for number in range(5):
        assert digests[f'sha256":"{number:064}'] == Digest("sha256", f"{number:064}")
        assert len(digests) <= 2


#: Changes to provenance, after which it has another form or says something that nobody may say.
LEFT: dict[str, tuple[bytes, bytes]] = {
    "another type of statement": (b"Statement/v1", b"Statement/v2"),
    "another type of predicate": (b"provenance/v1", b"provenance/v2"),
    "another build type": (b"build-type:task:v1", b"build-type:task:v2"),
    "a dot that is none": (b"in-toto.io", b"in-toto-io"),
    "the type twice": (b'{"_type":', b'{"_type":"x","_type":'),
    "one more member": (b'"predicateType":', b'"a":1,"predicateType":'),
    "a member that is unknown within": (b'"resolvedDependencies":', b'"q":1,"resolvedDependencies":'),
    "a second subject": (b'"subject":[', b'"subject":[{"digest":{"sha256":"00"},"name":"x"},'),
    "a second digest of the subject": (
        b'"subject":[{"digest":{',
        b'"subject":[{"digest":{"sha256":"%s",' % (b"0" * 64),
    ),
    "no digest": (b'"subject":[{"digest":{"dirHash":"%s"}' % (b"ab" * 32), b'"subject":[{"digest":{}'),
    "a short digest": (b"abab", b"ab"),
    "a digest in capitals": (b"abab", b"ABab"),
    "another algorithm": (b"dirHash", b"gitTree"),
    "a second digest of an input": (b'{"sha256":"cd', b'{"dirHash":"%s","sha256":"cd' % (b"0" * 64)),
    "the same digest twice": (b'{"sha256":"cd', b'{"sha256":"%s","sha256":"cd' % (b"0" * 64)),
    "a name twice": (b'"name":"data"', b'"name":"data","name":"other"'),
    "another role": (b'"sealflow_role":"source"', b'"sealflow_role":"data"'),
    "another annotation": (b'"sealflow_role"', b'"x":"y","sealflow_role"'),
    "a parameter twice": (b'"lr":', b'"day":'),
    "a parameter in clear": (b'{"hmac-sha256"', b'{"value":1,"hmac-sha256"'),
    "a quote within": (b'"name":"data"', b'"name":"da\\"ta"'),
    "an escaped letter": (b'"name":"data"', b'"name":"d\\u0061ta"'),
    "half of a surrogate pair": (b'"name":"data"', b'"name":"d\\ud800ta"'),
    "a line break": (b'"name":"data"', b'"name":"da\nta"'),
    "a DEL": (b'"name":"data"', b'"name":"da\x7fta"'),
    "a NUL": (b'"name":"data"', b'"name":"da\0ta"'),
    "a letter beyond ASCII": (b'"name":"data"', '"name":"dâta"'.encode()),
    "bytes that are no UTF-8": (b'"name":"data"', b'"name":"da\xffta"'),
    "a long text": (b'"name":"data"', b'"name":"%s"' % (b"x" * (4 * MAX_TEXT + 1))),
    "a number for a text": (b'"name":"data"', b'"name":7'),
    "no name": (b'"name":"data",', b""),
    "members in another order": (b'"name":"data","uri":"s3://b/data"', b'"uri":"s3://b/data","name":"data"'),
    "a space": (b'"name":"data"', b'"name": "data"'),
    "a comma too many": (b'"resolvedDependencies":[', b'"resolvedDependencies":[,'),
    "a comma at the end": (b'}]},"runDetails"', b'},]},"runDetails"'),
    "no comma": (b'},{"annotations"', b'}{"annotations"'),
    "a number that begins with zero": (b'"attempt":2', b'"attempt":02'),
    "a number of a million": (b'"attempt":2', b'"attempt":%s' % (b"9" * 5000)),
    "a fraction": (b'"attempt":2', b'"attempt":2.5'),
    "another kind of digit": (b'"finishedOn":"2026', '"finishedOn":"\u0662026'.encode()),
    "no time": (b'"finishedOn":"2026', b'"finishedOn":"now'),
    "something after it": (b'"name":"model"}]}', b'"name":"model"}]}\n'),
    "two of them": (b'"name":"model"}]}', b'"name":"model"}]}{}'),
}


@pytest.mark.parametrize("case", LEFT)
def test_everything_else_is_left_to_the_parsers(case: str) -> None:
    before, after = LEFT[case]
    assert before in FULL
    assert read_own_form(FULL.replace(before, after)) is None


@given(data=st.data())
def test_what_is_near_says_what_the_parsers_find(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    pieces = [b"", b'"', b"\\", b"{}", b",", b":", b"[]", b"0", b"a", b"sha256", b"\0", b"\xc3\xa9", FULL[at : at + 70]]
    piece = data.draw(st.sampled_from(pieces) | st.binary(max_size=3))
    changed = FULL[:at] + piece + FULL[at + data.draw(st.integers(0, 70)) :]
    found = read_own_form(changed)
    assert found is None or found == parsed(changed)


TEXTS = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF) | st.sampled_from('"\\{}[],:'), max_size=12)


@given(
    texts=st.lists(TEXTS, min_size=5, max_size=5),
    names=st.lists(TEXTS, max_size=3),
    sources=st.lists(st.booleans(), max_size=3),
)
def test_whatever_is_written_in_it_reads_the_same(texts: list[str], names: list[str], sources: list[bool]) -> None:
    printed = [text if text.isprintable() else "x" for text in texts]
    run = RunIdentity("airflow", printed[0], printed[1], printed[2], None, 1)
    inputs = [DATA._replace(uri=texts[3], name=texts[4], source=source) for source in sources]
    payload = made(run, printed[3] or "x", dependencies=inputs, parameters=dict.fromkeys(names, "1"))
    found = read_own_form(payload)
    plain = payload.isascii() and b"\\" not in payload and b"\x7f" not in payload
    assert (found is not None) == plain
    assert found is None or found == parsed(payload)
