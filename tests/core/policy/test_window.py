"""The window of a rotation, written into drafts of every layout."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import PolicyError, UsageError
from sealflow.keys import PublicKey, load_public_key
from sealflow.policy.draft import inline_keys, parse_draft
from sealflow.policy.window import Window, open_window
from tests.pki import write_key

START = datetime.datetime(2027, 1, 1, tzinfo=datetime.timezone.utc)
END = datetime.datetime(2027, 1, 31, tzinfo=datetime.timezone.utc)

BLOCK = """\
# The admin's own words stay.
apiVersion: sealflow/v1
version: 3  # rises
expires: 2999-01-01T00:00:00Z
identities:
  reviewer:
    key: other.pub.pem
  # Trains everything.
  trainer:
    key: old.pub.pem  # pinned
    producers: ["airflow:train/*"]
rules:
  - name: models
    scope: {artifact: [s3://models/**]}
    require:
      identities:
        any_of:
          - trainer  # for now
          - reviewer
  - name: flow
    scope: {artifact: [s3://flow/**]}
    require: {identities: {any_of: [reviewer, trainer]}}
  - name: data
    scope: {artifact: [s3://data/**]}
    require:
      identities:
        any_of:
        - trainer
      lineage:
        roots: [trainer]
"""


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, PublicKey]:
    return {name: load_public_key(str(write_key(tmp_path, name).public)) for name in ("old", "new", "other")}


def opened(text: str, tmp_path: Path, keys: dict[str, PublicKey], **changes: Any) -> Window:
    draft = parse_draft(text.encode(), "the draft")
    inline_keys(draft, str(tmp_path))
    options = {"old": keys["old"], "new": keys["new"], "start": START, "end": END, **changes}
    return open_window(text, draft, **options)


def body(text: str) -> Any:
    return parse_draft(text.encode(), "the draft").body


def test_a_draft_in_block_style(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    window = opened(BLOCK, tmp_path, keys)
    assert window.identities == {"trainer": "trainer-2027-01-01"}
    made = body(window.text)
    assert made["version"] == 4
    assert made["identities"]["trainer"] == {
        "expires": "2027-01-31T00:00:00Z",
        "key": "old.pub.pem",
        "producers": ["airflow:train/*"],
    }
    assert made["identities"]["trainer-2027-01-01"] == {
        "key": keys["new"].pem.decode(),
        "producers": ["airflow:train/*"],
        "valid_from": "2027-01-01T00:00:00Z",
    }
    rules = [rule["require"] for rule in made["rules"]]
    assert rules[0]["identities"]["any_of"] == ["trainer", "trainer-2027-01-01", "reviewer"]
    assert rules[1]["identities"]["any_of"] == ["reviewer", "trainer", "trainer-2027-01-01"]
    assert rules[2]["identities"]["any_of"] == ["trainer", "trainer-2027-01-01"]
    assert rules[2]["lineage"]["roots"] == ["trainer", "trainer-2027-01-01"]
    for comment in ("# The admin's own words stay.", "# rises", "# Trains everything.", "# pinned", "# for now"):
        assert comment in window.text
    # What signing reads is a policy.
    draft = parse_draft(window.text.encode(), "the draft")
    inline_keys(draft, str(tmp_path))
    assert set(draft.policy().identities) == {"reviewer", "trainer", "trainer-2027-01-01"}


def test_a_second_run_changes_nothing(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    once = opened(BLOCK, tmp_path, keys)
    later = {"start": START + datetime.timedelta(days=3), "end": END + datetime.timedelta(days=3)}
    again = opened(once.text, tmp_path, keys, **later)
    assert (again.changed, again.text, again.identities) == (False, once.text, once.identities)


def test_a_json_draft(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    for indent in (None, 2):
        window = opened(json.dumps(body(BLOCK), indent=indent), tmp_path, keys)
        assert body(window.text) == body(opened(BLOCK, tmp_path, keys).text)
        json.loads(window.text)


def test_identities_in_flow_style(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    text = BLOCK.partition("identities:")[0] + "identities: {trainer: {key: old.pub.pem, verifier: false}}\nrules: []\n"
    made = body(opened(text, tmp_path, keys).text)
    assert list(made["identities"]) == ["trainer-2027-01-01", "trainer"]
    assert made["identities"]["trainer"]["expires"] == "2027-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ("2027-01-10T00:00:00Z", "2027-01-10T00:00:00Z"),  # earlier ends stay
        ("2028-01-01T00:00:00Z", "2027-01-31T00:00:00Z"),
        ('"2028-01-01T00:00:00Z"', "2027-01-31T00:00:00Z"),
        ("2027-01-31T01:00:00+02:00", "2027-01-31T01:00:00+02:00"),
        ("2027-01-10T00:00:00.25Z", "2027-01-10T00:00:00.25Z"),
        ("2027-01-10 00:00Z", "2027-01-10 00:00Z"),
    ],
)
def test_an_end_that_is_there(tmp_path: Path, keys: dict[str, PublicKey], there: str, expected: str) -> None:
    text = BLOCK.replace("    key: old.pub.pem  # pinned\n", f"    key: old.pub.pem\n    expires: {there}\n")
    assert body(opened(text, tmp_path, keys).text)["identities"]["trainer"]["expires"] == expected


@pytest.mark.parametrize(
    "demand",
    ["{all_of: [trainer, reviewer]}", "{all_of: [trainer]}", "{at_least: 2, of: [trainer, reviewer]}"],
)
def test_two_keys_of_one_holder_never_count_as_two(tmp_path: Path, keys: dict[str, PublicKey], demand: str) -> None:
    """Beside the old name the new one would satisfy a rule on several signers alone, or make it one more."""
    text = BLOCK.replace("{identities: {any_of: [reviewer, trainer]}}", f"{{identities: {demand}}}")
    window = opened(text, tmp_path, keys)
    assert body(window.text)["rules"][1] == body(text)["rules"][1]
    assert len(window.notes) == 1
    assert "rules[1].require.identities" in window.notes[0]
    one = text.replace("at_least: 2, of: [trainer, reviewer]", "at_least: 1, of: [trainer, reviewer]")
    if one != text:
        assert opened(one, tmp_path, keys).notes == ()


def test_what_would_be_no_policy_is_not_written(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    with pytest.raises(PolicyError, match="any_of"):
        opened(BLOCK.replace("any_of: [reviewer, trainer]", "any_of: 7"), tmp_path, keys)
    late = "    key: old.pub.pem\n    valid_from: 2028-01-01T00:00:00Z\n"
    with pytest.raises(PolicyError, match="valid_from lies before expires"):
        opened(BLOCK.replace("    key: old.pub.pem  # pinned\n", late), tmp_path, keys)


def test_two_identities_of_one_key(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    text = BLOCK.replace(
        "  reviewer:\n    key: other.pub.pem\n",
        "  reviewer:\n    key: other.pub.pem\n  second:\n    key: old.pub.pem\n",
    ).replace("any_of: [reviewer, trainer]", "any_of: [second, reviewer, trainer]")
    made = body(opened(text, tmp_path, keys).text)
    assert made["rules"][1]["require"]["identities"]["any_of"] == [
        *("second", "second-2027-01-01", "reviewer", "trainer", "trainer-2027-01-01")
    ]
    with pytest.raises(UsageError, match="2 identities"):
        opened(text, tmp_path, keys, name="next")


@pytest.mark.parametrize("name", ["next", "n-1", "off", "123", "1e3"])
def test_names_that_yaml_would_misread(tmp_path: Path, keys: dict[str, PublicKey], name: str) -> None:
    assert name in body(opened(BLOCK, tmp_path, keys, name=name).text)["identities"]


def test_what_is_not_there_or_taken(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    with pytest.raises(UsageError) as caught:
        opened(BLOCK, tmp_path, {**keys, "old": keys["new"], "new": keys["old"]})
    assert caught.value.code == "KEY_MISSING"
    with pytest.raises(UsageError, match="another identity"):
        opened(BLOCK, tmp_path, keys, name="reviewer")
    with pytest.raises(UsageError, match="another identity"):
        opened(BLOCK, tmp_path, keys, name="trainer")


@pytest.mark.parametrize(
    "old",
    [
        '    key: old.pub.pem  # pinned\n    producers: ["airflow:train/*"]\n',
    ],
)
def test_a_layout_that_cannot_be_changed_is_left_alone(tmp_path: Path, keys: dict[str, PublicKey], old: str) -> None:
    """A complex key (`? name`) takes other punctuation; what comes out is compared with what was meant."""
    text = BLOCK.replace("  trainer:\n" + old, "  ? trainer\n  :\n" + old)
    assert text != BLOCK
    assert body(text) == body(BLOCK)
    with pytest.raises(PolicyError, match="cannot be changed safely"):
        opened(text, tmp_path, keys)


@pytest.mark.slow
def test_random_layouts_are_changed_rightly_or_not_at_all(tmp_path: Path, keys: dict[str, PublicKey]) -> None:
    import yaml
    from hypothesis import given
    from hypothesis import strategies as st

    wanted = body(opened(BLOCK, tmp_path, keys).text)

    @given(st.sampled_from([True, False, None]), st.integers(2, 8), st.integers(20, 200), st.booleans())
    def check(flow: bool | None, indent: int, width: int, sort: bool) -> None:
        text = yaml.safe_dump(body(BLOCK), default_flow_style=flow, indent=indent, width=width, sort_keys=sort)
        try:
            made = opened(text, tmp_path, keys)
        except PolicyError:
            return
        assert body(made.text) == wanted

    check()
    made = opened(yaml.safe_dump(body(BLOCK)), tmp_path, keys)
    assert body(made.text) == wanted
