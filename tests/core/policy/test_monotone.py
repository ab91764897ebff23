"""Composition goes one way: nothing that asks for more turns a refusal into a pass.

The property begins where a rule holds. The very first one changes who is asked: without one the call alone says what
must be proved. Likewise a policy that names an artifact and has no rule for the task refuses until its owner writes
one, and so does one that names nobody who may sign.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import PolicyError, UsageError
from sealflow.policy.compose import AcceptedWaiver
from tests.core.policy.worlds import World, draw_world, tighten

# Many examples, each of them a policy that is judged over and over.
pytestmark = pytest.mark.slow

#: Worlds a seed; each takes a few milliseconds.
WORLDS = 6


def check(seed: int, seen: Counter[str]) -> None:
    rnd = random.Random(seed)
    world = draw_world(rnd)
    try:
        waivers = world.accepted_waivers()
        before = world.passes(waivers)
        made = tighten(rnd, world)
    except PolicyError:
        return  # a policy that is not to be had
    if made is None:
        return
    done, after = made
    if len(after.rules) > len(world.rules) and _names_nobody(world, waivers):
        return
    seen[f"{done.partition(':')[0]}, {'passed' if before else 'refused'}"] += 1
    try:
        left = waivers if after.waivers else []
        passed = not before and after.chain and after.passes(left)
    except PolicyError:
        return
    assert not passed, (seed, done, world, after)


def _names_nobody(world: World, waivers: list[AcceptedWaiver]) -> bool:
    try:
        return world.names_nobody(waivers)
    except UsageError:
        return False


@settings(max_examples=settings().max_examples)
@given(st.integers(0, 2**48))
def test_tightening_never_loosens(seed: int) -> None:
    for number in range(WORLDS):
        check(seed * WORLDS + number, Counter())


def test_the_worlds_are_worth_looking_at() -> None:
    """Each way to tighten is tried on worlds that pass and on worlds that do not."""
    seen: Counter[str] = Counter()
    for seed in range(400):
        check(seed, seen)
    for what in ("admin", "team", "call"):
        assert any(key.startswith(what) and key.endswith("refused") for key in seen), seen
    for what in ("revocation", "a token less", "nobody believed"):
        assert any(key.startswith(what) for key in seen), seen
    assert sum(count for key, count in seen.items() if key.endswith("passed")) > 15, seen
    assert sum(count for key, count in seen.items() if key.endswith("refused")) > 60, seen


def test_some_worlds_pass_by_a_stamp_alone() -> None:
    """So that a stamp which counts where it should not would be found."""
    found = 0
    for seed in range(600):
        world = draw_world(random.Random(seed))
        try:
            found += world.passes([]) and not replace(world, stamps=()).passes([])
        except PolicyError:
            continue
    assert found > 2
