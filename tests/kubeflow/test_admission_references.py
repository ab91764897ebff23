"""What Argo would fill in after admission is found in JSON, however it is spelled there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow_kfp.admission.shapes import ARGO_TAG, argo_reference

FILLED_IN = {
    "plain": '{"a":"{{workflow.name}}"}',
    "an expression": '{"a":"{{=sprig.env()}}"}',
    "a name of a member": '{"{{inputs.parameters.x}}":1}',
    "behind KFP's own": '{"a":"{{$}} {{tasks.x.outputs.result}}"}',
    "right behind KFP's own": '{"a":"{{${{workflow.name}}"}',
    "behind a third brace": '{"a":"{{{workflow.name}}"}',
    "behind a fourth brace": '{"a":"{{{{workflow.name}}"}',
    "behind braces of KFP's own": '{"a":"{{{{${{item}}"}',
    "space between": '{"a":"{{ \\t workflow.name}}"}',
    "a line between": '{"a":"{{\\nworkflow.name}}"}',
    "a spelled space between": '{"a":"{{\\u0020workflow.name}}"}',
    "a wide space between": '{"a":"{{\\u3000workflow.name}}"}',
    "both braces spelled": '{"a":"\\u007b\\u007bworkflow.name}}"}',
    "one brace spelled": '{"a":"{\\u007bitem}}"}',
    "the other brace spelled": '{"a":"\\u007b{item}}"}',
    "spelled in capitals": '{"a":"\\u007B\\u007Bitem}}"}',
    "its word spelled": '{"a":"{{\\u0077orkflow.name}}"}',
    "deep": '{"a":[{"b":["{{$}}",{"c":"{{pod.name}}"}]}]}',
}
LEFT = {
    "KFP's own": '{"a":"{{$}} {{$.inputs.parameters[\'x\']}}"}',
    "KFP's own behind a third brace": '{"a":"{{{$}}}"}',
    "braces of somebody else's": '{"a":"{{user.name}}"}',
    "one brace": '{"a":"{workflow.name}"}',
    "braces apart": '{"a":"{\\n{workflow.name}"}',
    "of two texts": '{"a":"{","b":"{workflow.name}}"}',
    "two texts in a list": '["{{","workflow.name}}"]',
    "braces of JSON": '{"a":{"workflow.":{}}}',
    "a backslash before": '{"a":"\\\\u007b\\\\u007bworkflow.name}}"}',
}


@pytest.mark.parametrize("text", FILLED_IN.values(), ids=FILLED_IN.keys())
def test_references_are_found(text: str) -> None:
    assert argo_reference(text, json.loads(text))


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT.keys())
def test_other_braces_are_left(text: str) -> None:
    assert not argo_reference(text, json.loads(text))


def texts_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in texts_of(item))]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    return [value] if isinstance(value, str) else []


_PIECES = st.lists(
    st.sampled_from(
        ["{", "{{", "{{$", "$", "}", "workflow.", "item", "=", " ", "\n", "\\", '"', "u007b", "a", "\u3000"]
    ),
    max_size=8,
).map("".join)


@given(
    st.recursive(
        _PIECES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_PIECES, inner, max_size=3), max_leaves=6
    ),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_it_is_as_if_every_text_were_looked_at(value: Any, spelled: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    for place in spelled:
        # A brace within a text may stand there as an escape as well.
        changed = text[:place] + text[place : place + 1].replace("{", "\\u007b") + text[place + 1 :]
        try:
            text = changed if json.loads(changed) == value else text
        except ValueError:
            continue
    found = any(ARGO_TAG.search(each) for each in texts_of(value))
    assert bool(argo_reference(text, value)) >= found
    if "\\" in text:
        # Of a text without escapes the whole is looked at, and there brackets of JSON may look like a tag's.
        assert bool(argo_reference(text, value)) == (found or ARGO_TAG.search(text) is not None)
