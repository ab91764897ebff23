"""The policy's documents: examples are linted and tested, the guide's commands run, tables are the code's."""

from __future__ import annotations

import datetime
import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sealflow.actions.keys_generate import generate_key
from sealflow.actions.policy_files import read_either
from sealflow.actions.policy_tables import read_table, run_table
from sealflow.policy.draft import parse_draft
from sealflow.policy.lint import CHECKS, lint
from sealflow.policy.revocations import RevocationList
from tests.core.encryption.messages import RSA_PUBLIC_PEM
from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference" / "policy.md"
GUIDES = [ROOT / "docs" / "tutorials" / "first-policy.md"]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_policy_docs.py"))
NOW = datetime.datetime(2998, 6, 1, tzinfo=datetime.timezone.utc)

_EXAMPLE = re.compile(r"(?:<!-- example: ([\w ]+) -->\n)?```yaml\n(.*?)```", re.DOTALL)


def examples(kind: str) -> list[str]:
    """Return the fenced examples of a kind in all documents about policies."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in [REFERENCE, *GUIDES])
    found = _EXAMPLE.findall(text)
    assert all(label for label, _ in found), "an example says no kind, so nobody tests it"
    return [body for label, body in found if label.startswith(kind)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all the keys that examples name."""
    made = tmp_path_factory.mktemp("docs")
    for name in sorted({name for body in examples("policy") for name in re.findall(r"key: ([\w-]+)\.pub", body)}):
        generate_key(str(made / name), algorithm="ed25519")
    for name in sorted({name for body in examples("policy") for name in re.findall(r"rsa: ([\w-]+)\.pub", body)}):
        (made / f"{name}.pub").write_bytes(RSA_PUBLIC_PEM)
    return made


def schema(name: str) -> Any:
    return json.loads((ROOT / "docs" / "reference" / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(3))
def test_an_example_policy_is_sound(folder: Path, number: int) -> None:
    text = examples("policy")[number]
    found = lint(text.encode(), "the example", str(folder), NOW)
    assert found.problems == ()
    jsonschema.validate(parse_draft(text.encode(), "the example").body, schema("policy.schema.json"))


def test_there_are_as_many_examples_as_are_tested() -> None:
    assert [len(examples(kind)) for kind in ("policy", "waiver", "tests")] == [3, 1, 1]


def test_the_example_waiver_is_sound() -> None:
    (text,) = examples("waiver")
    found = lint(text.encode(), "the example", ".", NOW)
    assert found.problems == ()
    jsonschema.validate(parse_draft(text.encode(), "the example").body, schema("waiver.schema.json"))


def test_the_example_list_of_revocations_is_sound() -> None:
    reference = (REFERENCE.parent / "revocations.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"<!-- example: revocations -->\n```yaml\n(.*?)```", reference, re.DOTALL)
    found = lint(text.encode(), "the example", ".", NOW)
    assert found.problems == ()
    assert isinstance(found.document, RevocationList)
    jsonschema.validate(parse_draft(text.encode(), "the example").body, schema("revocations.schema.json"))


def test_the_example_table_comes_out_as_it_says(folder: Path) -> None:
    (text,) = examples("tests")
    (folder / "policy.yaml").write_text(examples("policy")[0], encoding="utf-8")
    policy, _ = read_either(str(folder / "policy.yaml"))
    table, draft = read_table(text.encode(), "the example")
    results = run_table(policy, table, draft)
    assert [(item.case.name, item.differences) for item in results if not item.ok] == []
    jsonschema.validate(draft.body, schema("policy-tests.schema.json"))


@pytest.mark.parametrize(
    "name", ["policy.schema.json", "waiver.schema.json", "revocations.schema.json", "policy-tests.schema.json"]
)
def test_a_published_schema_is_that_of_the_code(name: str) -> None:
    text = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert text == SCRIPT["schema"](name), "run scripts/make_policy_docs.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_the_table_of_checks_is_the_one_in_the_code() -> None:
    assert SCRIPT["table"]() in REFERENCE.read_text(encoding="utf-8"), "paste the output of scripts/make_policy_docs.py"
    assert all(re.fullmatch(r"[A-Z_]+", code) for code in CHECKS)


def test_the_composition_is_the_one_in_the_code() -> None:
    from sealflow.policy import compose

    rows = re.findall(r"^(\w+) {2,}(\S.*)$", (compose.__doc__ or "").partition("=\nfield")[2], re.MULTILINE)
    assert len(rows) == 11, rows
    text = REFERENCE.read_text(encoding="utf-8")
    for name, meaning in rows:
        assert f"| `{name}` | {meaning.replace('``', '`')} |" in text


def test_every_field_of_the_document_is_in_the_reference() -> None:
    for name in ("policy.schema.json", "waiver.schema.json", "revocations.schema.json", "policy-tests.schema.json"):
        page = REFERENCE.parent / ("revocations.md" if name.startswith("revocations") else "policy.md")
        text = page.read_text(encoding="utf-8")
        body = schema(name)
        for part in (body, *body["$defs"].values()):
            for field in part.get("properties", ()):
                assert re.search(rf"\b{field}\b", text), f"{field} of {name} is not explained"


@pytest.mark.parametrize("path", [REFERENCE, *GUIDES], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    check_links(path)


# --- The guide ---


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a machine of its own: `sealflow`, and a `sudo` that writes below the test's folder."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    sealflow = f"""#!{sys.executable}
import sys
sys.prefix = {str(prefix)!r}
sys.argv[0] = "sealflow"
from sealflow.cli import main
main()
"""
    # Installs what the guide installs as root's into the environment's own place for the same files.
    sudo = f"""#!{sys.executable}
import os, pathlib, sys
there = {str(prefix / "etc" / "sealflow")!r}
admin = pathlib.Path("admin.json")
admin.write_text(admin.read_text().replace('"/etc/sealflow', '"' + there))
command = [item.replace("/etc/sealflow", there) for item in sys.argv[1:]]
os.execvp(command[0], command)
"""
    for name, text in (("sealflow", sealflow), ("sudo", sudo)):
        (prefix / "bin" / name).write_text(text)
        (prefix / "bin" / name).chmod(0o755)
    return {**os.environ, "PATH": f"{prefix}/bin:{os.environ['PATH']}", "NO_COLOR": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_the_guide_does_what_it_says(guide: Path, machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run_guide(guide, tmp_path / "empty", machine, blocks=11)
