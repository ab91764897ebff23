"""Whatever arrives as a compiled pipeline: our own errors, or a pipeline in which everything is guarded."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import EvidenceError, UsageError
from sealflow_kfp.guard_command import IN_IMAGE as WRAPPER
from sealflow_kfp.hardening import Hardened, harden, harden_text
from sealflow_kfp.hardening.installs import Lock
from sealflow_kfp.plan import PLAN_PARAMETER, Plan
from tests.fuzz.test_untrusted_bytes import mutated
from tests.kubeflow.test_harden_text import dag_in_dag, pipeline, text

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

PLATFORM = {
    "platforms": {
        "kubernetes": {
            "deploymentSpec": {
                "executors": {
                    "exec-make": {
                        "secretAsVolume": [{"secretName": "keys", "mountPath": "/data", "optional": False}],
                        "pvcMount": [{"mountPath": "/pvc", "taskOutputParameter": {"producerTask": "use"}}],
                    }
                }
            }
        }
    }
}
DOCUMENTS = [pipeline(), dag_in_dag(3, 2)]
TEXTS = [text(document) for document in DOCUMENTS]
NAMES = [
    "make",
    "use",
    "comp-make",
    "comp-0",
    "exec-make",
    "model",
    "sealflow_plan",
    "/var/run/sealflow",
    "{{$}}",
    "a/b",
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(NAMES), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.sampled_from(NAMES), max_size=3), st.dictionaries(st.sampled_from(NAMES), st.none(), max_size=2),
)  # fmt: skip


def checked(done: Hardened, documents: Any) -> None:
    """Nothing of what is guarded escaped."""
    body = done.documents[0]
    for executor in ((body.get("deploymentSpec") or {}).get("executors") or {}).values():
        if "container" in executor:
            assert tuple(executor["container"]["command"][: len(WRAPPER)]) == WRAPPER
    for part in [body["root"], *(body.get("components") or {}).values()]:
        for task in part.get("dag", {}).get("tasks", {}).values():
            assert task["cachingOptions"] == {}
            given_here = (task.get("inputs") or {}).get("parameters") or {}
            if PLAN_PARAMETER in given_here and part is body["root"]:
                Plan.parse(given_here[PLAN_PARAMETER]["runtimeValue"]["constant"])
    assert harden(done.documents, secret="keys").documents == done.documents


@settings(max_examples=EXAMPLES)
@given(mutated(TEXTS))
def test_texts(data: bytes) -> None:
    try:
        done = harden_text(data, secret="keys")
    except UsageError:
        return
    assert list(yaml.safe_load_all(done.text)) == done.documents
    checked(done, data)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*at, key))
    return found


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_documents(data: st.DataObject) -> None:
    documents = json.loads(json.dumps([data.draw(st.sampled_from(DOCUMENTS)), PLATFORM]))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(documents)))
        here = documents
        for key in way:
            here = here[key]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace" or isinstance(here, list):
            here[last] = data.draw(VALUES)
        elif action == "remove":
            del here[last]
        else:
            here[data.draw(st.sampled_from(NAMES))] = data.draw(VALUES)
    try:
        done = harden(documents, secret="keys")
    except UsageError:
        return
    checked(done, documents)


@settings(max_examples=EXAMPLES)
@given(mutated([Plan("p", "a/b", {"m": ()}, ("x", "y")).to_text().encode()]))
def test_plans(data: bytes) -> None:
    try:
        plan = Plan.parse(data.decode("utf-8", "replace"))
    except EvidenceError:
        return
    assert plan.to_text() == data.decode("utf-8", "replace")


@settings(max_examples=EXAMPLES)
@given(mutated([f"numpy==2.0.0 ; python_version > '3' --hash=sha256:{'0' * 64}\n".encode()]))
def test_locks(data: bytes) -> None:
    try:
        lock = Lock.parse(data, "x")
    except UsageError:
        return
    assert Lock.parse(lock.text.encode(), "x") == lock
