"""The pure decision: who is heard, who is counted, what is missing."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.policy.decide import CLOCK_SKEW, Fact, Shortfall, distinct, heard, missing, spoken
from sealflow.policy.identities import Identity, KeyIdentity
from sealflow.policy.requirement import (
    EVIDENCE_KINDS,
    AgeDemand,
    Clause,
    FreshnessDemand,
    LoaderDemand,
    ProducerDemand,
    Requirement,
)
from sealflow.run_identity import ADOPTED_BUILDER

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)


def who(name: str, *producers: str, company: tuple[str, ...] | None = None) -> Identity:
    return KeyIdentity(name, producers, (), f"/keys/{name}", company=producers if company is None else company)


def made(*identities: Identity, **change: Any) -> Fact:
    fact = Fact("provenance", "k", identities, "airflow:train/fit", "urn:b", "model", "2026-06-01T11:00:00Z")
    return fact._replace(**change)


A, B, C = who("a"), who("b"), who("c")


# --- Counting ---


@given(st.lists(st.tuples(st.sampled_from("123"), st.lists(st.sampled_from([A, B, C]), unique=True)), max_size=6))
def test_counting_is_the_largest_matching(pieces: list[tuple[str, list[Identity]]]) -> None:
    """Against all ways to give each signer a key of its own."""
    facts = [(Fact("signature", key, tuple(people)), tuple(people)) for key, people in pieces]
    known = {(person.name, key) for key, people in pieces for person in people}
    best = 0
    for keys in itertools.product([None, "1", "2", "3"], repeat=3):
        given_keys = [(name, key) for name, key in zip("abc", keys, strict=True) if key is not None]
        if len({key for _, key in given_keys}) == len(given_keys) and set(given_keys) <= known:
            best = max(best, len(given_keys))
    assert distinct(Clause("r", (A, B, C), 2), facts) == best


def test_only_those_of_the_clause_are_counted() -> None:
    facts = [(Fact("signature", key, (item,)), (item,)) for key, item in (("1", A), ("2", B), ("3", C))]
    assert distinct(Clause("r", (A, B)), facts) == 2
    assert distinct(Clause("r", ()), facts) == 0


def test_a_limited_one_is_not_counted_where_no_provenance_is_asked_for() -> None:
    limited = who("l", "airflow:train/*")
    facts = [(Fact("signature", "1", (limited,)), (limited,)), (Fact("signature", "2", (A,)), (A,))]
    assert distinct(Clause("r", (limited, A), 2, frozenset({"signature"})), facts) == 1
    assert distinct(Clause("r", (limited, A), 2, EVIDENCE_KINDS), facts) == 2


# --- Who is heard ---


def requirement(*clauses: Clause, **change: Any) -> Requirement:
    return Requirement(clauses or (Clause("r", (A,)),), **change)


@pytest.mark.parametrize(
    ("demand", "fact", "code"),
    [
        ({}, {}, ""),
        ({"name": "model"}, {}, ""),
        ({"name": "other"}, {}, "NAME_MISMATCH"),
        ({"producer": "airflow:train/*"}, {}, ""),
        ({"producer": "kfp:**"}, {}, "PRODUCER_MISMATCH"),
        ({"producers": (ProducerDemand("r", ("kfp:**",)),)}, {}, "PRODUCER_MISMATCH"),
        ({"producers": (ProducerDemand("r", ("airflow:train/*",)),)}, {}, "KEY_SHARED"),
        ({}, {"builder": ADOPTED_BUILDER}, "PROVENANCE_ADOPTED"),
        ({"ages": (AgeDemand("r", 3600),)}, {}, ""),
        ({"ages": (AgeDemand("r", 3599),)}, {}, "EVIDENCE_TOO_OLD"),
        ({"ages": (AgeDemand("r", 9999), AgeDemand("s", 3599))}, {}, "EVIDENCE_TOO_OLD"),
        ({"ages": (AgeDemand("r", 3600),)}, {"finished_on": "2026-06-01T12:05:00Z"}, ""),
        ({"ages": (AgeDemand("r", 3600),)}, {"finished_on": "2026-06-01T12:05:01Z"}, "EVIDENCE_TOO_OLD"),
        ({"ages": (AgeDemand("r", 3600),)}, {"finished_on": "9999-12-31T23:59:59Z"}, "EVIDENCE_TOO_OLD"),
        ({"ages": (AgeDemand("r", 3600),)}, {"finished_on": "2026-13-01T00:00:00Z"}, "EVIDENCE_TOO_OLD"),
        ({"ages": (AgeDemand("r", 3600),)}, {"finished_on": ""}, "EVIDENCE_TOO_OLD"),
        ({}, {"identities": (B,)}, "SIGNER_NOT_ALLOWED"),
        ({}, {"identities": (who("a", "kfp:**"),)}, "PRODUCER_NOT_ALLOWED"),
    ],
    ids=str,
)  # fmt: skip
def test_heard(demand: dict[str, Any], fact: dict[str, Any], code: str) -> None:
    found = heard(requirement(**demand), made(A, **{k: v for k, v in fact.items() if k != "identities"})._replace(
        identities=fact.get("identities", (A,))
    ), NOW)  # fmt: skip
    assert (found.code if isinstance(found, Shortfall) else "") == code


class TestAlone:
    DEMAND = (ProducerDemand("r", ("airflow:train/*",)),)

    def ask(self, *identities: Identity) -> str:
        found = heard(requirement(Clause("r", identities), producers=self.DEMAND), made(*identities), NOW)
        return found.code if isinstance(found, Shortfall) else ""

    def test_a_key_of_its_own(self) -> None:
        assert self.ask(who("a", "airflow:train/*")) == ""
        assert self.ask(who("a", "airflow:train/fit")) == ""
        assert self.ask(who("a", "airflow:train/f*", "airflow:train/x")) == ""

    def test_a_shared_key(self) -> None:
        assert self.ask(who("a", "airflow:train/*", company=("airflow:train/*", "airflow:clean/*"))) == "KEY_SHARED"
        assert self.ask(who("a", "airflow:train/*", company=())) == "KEY_SHARED"
        assert self.ask(who("a", "airflow:**")) == "KEY_SHARED"

    def test_a_call_says_nothing_of_others(self) -> None:
        """An identity that a call names knows of no other holder of its key."""
        from dataclasses import replace

        mine = replace(who("mine", "airflow:train/*"), company=None)
        assert self.ask(mine) == "KEY_SHARED"
        assert self.ask(mine, who("a", "airflow:train/*")) == ""

    def test_every_policy_that_knows_the_key_must_agree(self) -> None:
        shared = who("a", "airflow:train/*", company=("airflow:train/*", "airflow:clean/*"))
        assert self.ask(shared, who("b", "airflow:train/*")) == "KEY_SHARED"
        assert self.ask(who("b", "airflow:train/*"), who("c", "airflow:clean/*")) == "KEY_SHARED"


def test_every_clause_must_be_met_by_one_piece() -> None:
    two = requirement(Clause("r", (A,)), Clause("s", (B,)))
    assert isinstance(heard(two, made(A), NOW), Shortfall)
    assert heard(two, made(A, B), NOW) == (A, B)


def test_a_bare_signature_of_a_limited_key() -> None:
    limited = who("l", "airflow:train/*")
    fact = Fact("signature", "k", (limited,))
    alone = heard(requirement(Clause("r", (limited,)), kinds=frozenset({"signature"})), fact, NOW)
    assert isinstance(alone, Shortfall)
    # That others ask for provenance does not change what this rule hears.
    bare = Clause("r", (limited,), kinds=frozenset({"signature"}))
    assert isinstance(heard(requirement(bare), fact, NOW), Shortfall)
    assert heard(requirement(Clause("r", (limited,))), fact, NOW) == (limited,)


# --- What is missing ---


def codes(demand: Requirement, facts: list[Fact], *, pinned: bool = False, consumer: str = "airflow:s/l") -> set[str]:
    heard_ones = [(fact, fact.identities) for fact in facts]
    return {item.code for item in missing(demand, heard_ones, NOW, pinned=pinned, consumer=consumer)}


def test_freshness() -> None:
    pinned = requirement(freshness=(FreshnessDemand("r", None),))
    aged = requirement(freshness=(FreshnessDemand("r", 3600),))
    assert codes(pinned, [made(A)]) == {"FRESHNESS_UNPROVED"}
    assert codes(pinned, [made(A)], pinned=True) == set()
    assert codes(aged, [made(A)]) == set()
    assert codes(aged, [made(A, finished_on="2026-06-01T10:59:59Z")]) == {"FRESHNESS_UNPROVED"}
    assert codes(aged, [made(A, finished_on="2026-06-02T11:00:00Z")]) == {"FRESHNESS_UNPROVED"}
    assert codes(aged, []) == {"FRESHNESS_UNPROVED"}
    assert codes(aged, [Fact("signature", "k", (A,), finished_on="2026-06-01T11:59:00Z")]) == {"FRESHNESS_UNPROVED"}
    assert CLOCK_SKEW == 300


def test_loaders() -> None:
    demand = requirement(loaders=(LoaderDemand("r", ("airflow:serve/*", "kfp:**")), LoaderDemand("s", ("airflow:**",))))
    assert codes(demand, [], consumer="airflow:serve/x") == set()
    assert codes(demand, [], consumer="kfp:serve/x") == {"LOADER_NOT_ALLOWED"}
    assert codes(demand, [], consumer="python") == {"LOADER_NOT_ALLOWED"}


def test_each_rule_counts_by_its_own_kind() -> None:
    provenance = Clause("r", (A, B), 2, frozenset({"provenance"}))
    both = [made(A, key="1"), Fact("signature", "1", (A,)), Fact("signature", "2", (B,))]
    assert codes(requirement(provenance), both) == {"SIGNERS_TOO_FEW"}
    assert codes(requirement(Clause("r", (A, B), 2)), both) == set()
    assert codes(requirement(provenance), [*both, made(B, key="2")]) == set()


@pytest.mark.parametrize(
    ("number", "text"),
    [(60, "1 minutes"), (3600, "1 hours"), (86400, "1 days"), (90 * 60, "90 minutes"), (61, "61 seconds")],
)
def test_spoken(number: int, text: str) -> None:
    assert spoken(number) == text
