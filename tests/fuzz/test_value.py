"""Whatever stands where a sealed value should, only our errors come out, and nobody's value but ours."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.encryption.value import SealedValue, load_value_keys, open_value, seal_value
from sealflow.errors import SealflowError

pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples
LIMIT = 4096
SLOT = {"dag": "d", "key": "k"}


def _key() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(bytes(range(32)))
        path.chmod(0o600)
        return load_value_keys([f"aes:{path}?name=k"])[0]


KEY = _key()
ENVELOPE = seal_value(b"value", SLOT, KEY, limit=LIMIT).as_dict()
MESSAGE = base64.b64decode(ENVELOPE["sealed"])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
anything = st.recursive(
    scalars | st.just("sealflow"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def envelopes(draw: st.DrawFn) -> Any:
    made = dict(ENVELOPE)
    for name in draw(st.lists(st.sampled_from([*ENVELOPE, "more"]), max_size=3)):
        made[name] = draw(anything)
    if draw(st.booleans()):
        made.pop(draw(st.sampled_from(list(ENVELOPE))), None)
    return made


@st.composite
def messages(draw: st.DrawFn) -> Any:
    data = bytearray(MESSAGE)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        data[start:end] = draw(st.binary(max_size=6))
    return ENVELOPE | {"sealed": base64.b64encode(bytes(data)).decode()}


@settings(max_examples=EXAMPLES)
@given(envelopes() | messages() | anything)
def test_envelopes(found: Any) -> None:
    try:
        opened = open_value(SealedValue.parse(found, limit=LIMIT), [KEY], frozenset(SLOT), SLOT)
    except SealflowError as error:
        if not error.code.startswith("VALUE_") or error.retryable:
            raise AssertionError(str(error)) from error
        return
    assert found == ENVELOPE
    assert (opened.value, opened.slot) == (b"value", SLOT)
