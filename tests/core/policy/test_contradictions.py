"""Rules that contradict each other are found whatever their patterns, and without comparing all with all."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import PolicyError
from sealflow.policy import compose
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import parse_policy
from sealflow.policy.globs import overlaps
from tests.core.policy.worlds import document, pem

PATTERNS = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), min_size=1, max_size=4).map(
    lambda parts: "s3://m" + "".join(parts)
)
SOUND = PATTERNS.filter(lambda text: "***" not in text and "//" not in text[5:] and not text.endswith("/"))
RULES = st.lists(st.tuples(st.lists(SOUND, min_size=1, max_size=2), st.sampled_from("abc")), min_size=2, max_size=5)


def policy(rules: list[tuple[list[str], str]]) -> CompiledPolicy:
    body: dict[str, Any] = {
        **document([], identities={name: {"key": pem(index)} for index, name in enumerate("abc")}),
        "rules": [
            {"name": f"r{index}", "scope": {"artifact": list(places)}, "require": {"identities": {"any_of": [who]}}}
            for index, (places, who) in enumerate(rules)
        ],
    }
    return CompiledPolicy(parse_policy(json.dumps(body).encode()))


@given(RULES)
def test_no_pair_is_passed_over(rules: list[tuple[list[str], str]]) -> None:
    wrong = {
        (one, two)
        for (one, (mine, who)), (two, (theirs, whom)) in combinations(enumerate(rules), 2)
        if who != whom and any(overlaps(left, right) for left in mine for right in theirs)
    }
    if not wrong:
        policy(rules)
        return
    with pytest.raises(PolicyError) as caught:
        policy(rules)
    assert caught.value.code == "POLICY_CONTRADICTION"
    assert any(f"r{one} and r{two}" in caught.value.message or f"r{two} and r{one}" in caught.value.message
               for one, two in wrong)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["s3://m/model{}", "s3://m/model{}-*", "s3://m/model{}/**", "/data/m{}"])
def test_a_thousand_models_in_one_folder(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading such a policy took a quarter of a minute, which every task paid."""
    calls = []
    monkeypatch.setattr(compose, "overlaps", lambda one, two: calls.append(one) or overlaps(one, two))
    policy([([pattern.format(index)], "abc"[index % 3]) for index in range(1000)])
    assert len(calls) < 5000
