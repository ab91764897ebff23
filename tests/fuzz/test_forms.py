"""Whatever arrives, the reader of forms and pydantic take the same documents, to the same values, or ours refuses more.

It may refuse more only where a text is no JSON to :mod:`sealflow.strictjson`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.policy.test_forms import agree
from tests.core.policy.whole import DOCUMENTS, HOSTILE, Path, paths, put
from tests.fuzz.test_untrusted_bytes import mutated

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 2 * settings().max_examples

SEEDS = {kind: [json.dumps(body).encode()] for kind, (_, body) in DOCUMENTS.items()}
PLACES = {kind: list(paths(body)) for kind, (_, body) in DOCUMENTS.items()}

kinds = st.sampled_from(sorted(DOCUMENTS))


def at(body: Any, path: Path) -> Any:
    for part in path:
        body = body[part]
    return body


#: Every value of every document: in the place of another it is of a kind that forms know.
VALUES = sorted({json.dumps(at(body, path)) for kind, (_, body) in DOCUMENTS.items() for path in PLACES[kind][1:]})


@settings(max_examples=EXAMPLES)
@given(data=st.data(), kind=kinds)
def test_bytes(data: st.DataObject, kind: str) -> None:
    agree(DOCUMENTS[kind][0], data.draw(mutated(SEEDS[kind])))


@settings(max_examples=EXAMPLES)
@given(data=st.data(), kind=kinds)
def test_values_in_the_places_of_others(data: st.DataObject, kind: str) -> None:
    form, body = DOCUMENTS[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(paths(body))[1:] or [()]))
        # Nothing that other readers of JSON take otherwise: the next round reads it again.
        text = data.draw(st.sampled_from([*VALUES, *HOSTILE.values()]) | st.none())
        made = put(body, path, text)
        agree(form, made)
        body = json.loads(made)
        if not isinstance(body, dict):
            break


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(["apiVersion", "version", "expires", "name", "scope", "artifact", "key", "rules"])
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=EXAMPLES)
@given(data=st.data(), kind=kinds, value=anything)
def test_any_value_in_any_place(data: st.DataObject, kind: str, value: Any) -> None:
    form, body = DOCUMENTS[kind]
    agree(form, put(body, data.draw(st.sampled_from(PLACES[kind])), json.dumps(value)))


moments = st.from_regex(
    r"(1999|2000|2027|2999|3000|0000)-(00|02|06|12|13)-(00|01|29|30|31|32)[Tt _](00|12|23|24):(00|59|60)"
    r"(:(00|59|60)(\.[0-9]{1,7})?)?(Z|z|[+-](00|05|14|23|24):?(00|30|59|60)|)",
    fullmatch=True,
)


@settings(max_examples=EXAMPLES)
@given(text=moments)
def test_times(text: str) -> None:
    form, body = DOCUMENTS["table"]
    agree(form, put(body, ("now",), json.dumps(text)))
