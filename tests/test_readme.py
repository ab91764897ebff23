"""The README says what the examples say, and names only files that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("path", "snippet"), _EXAMPLE.findall(README), ids=lambda value: value.partition("\n")[0][-40:]
)
def test_a_snippet_stands_in_its_example(path: str, snippet: str) -> None:
    assert _bare(snippet) in _bare((ROOT / path).read_text(encoding="utf-8"))


def test_both_orchestrators_have_a_snippet() -> None:
    assert len(_EXAMPLE.findall(README)) == 2


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_two_commands_are_there() -> None:
    assert "make demo" in README
    assert "make test" in README


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 110


# --- What is guaranteed is held by tests that are named here, in the files that the row links ---

#: For what a row begins with: tests without which nothing would hold it, by file.
GUARANTEES = {
    "`passed` means": {
        "tests/attacks/test_bytes.py": ["test_changed_bytes", "test_changed_tree"],
        "tests/attacks/test_evidence.py": ["test_evidence", "test_signature_and_provenance_by_different_identities"],
    },
    "`with sealflow.verified": {
        "tests/attacks/test_use.py": [
            "test_source_exchanged_after_the_check",
            "test_copy_that_is_cut_short_is_never_handed_out",
        ]
    },
    "Signatures are OMS": {
        "tests/conformance/test_stock_reads_ours.py": ["test_tree_under_a_key", "test_tree_under_a_certificate"],
        "tests/conformance/test_ours_reads_stock.py": ["test_serializations", "test_changes_are_refused"],
    },
    "An unreachable store": {
        "tests/attacks/test_backends.py": ["test_nobody_named", "test_store_out_of_reach", "test_key_service_down"],
        "tests/airflow/test_runs.py": ["test_refused_on_the_first_try_with_retries_left"],
    },
    "Parameter values": {
        "tests/attacks/test_secrets.py": ["test_nothing_secret_is_written"],
        "tests/attacks/test_no_secrets.py": ["test_a_dag", "test_a_pipeline", "test_all_kinds_of_secret_are_marked"],
    },
    "What a revoked": {
        "tests/attacks/test_trusted_time.py": ["test_signed_before", "test_a_thiefs_artifact"],
        "tests/attacks/test_witnessed_time.py": ["test_in_the_log_before", "test_a_thiefs_artifact"],
    },
    "A policy in force": {
        "tests/attacks/test_policy_composition.py": ["test_none_loosens", "test_a_changed_byte"],
        "tests/attacks/test_policy_sources.py": ["test_broken", "test_no_parameter_says_whose_policy_holds"],
    },
    "No content, and no name": {"tests/attacks/test_encrypted_artifacts.py": ["test_nothing_secret_in_clear"]},
    "Every use of a key": {
        "tests/core/audit/test_delivery.py": ["test_the_intent_is_on_disk_before_the_key_is_used"],
        "tests/core/test_cli_transfer.py": ["test_every_use_of_a_key_was_announced"],
    },
    "An entry of a log": {
        "tests/attacks/test_audit_log.py": ["test_entries", "test_the_store", "test_rolled_back_after_it_was_seen"],
        "tests/conformance/test_tlog.py": ["test_go_checks_our_proofs", "test_go_refuses_what_was_altered"],
    },
}
_ROWS = re.findall(r"^\| (.+) \| (.+) \|$", README.partition("| guaranteed | held by |")[2], re.MULTILINE)[1:]


def test_every_guarantee_has_tests() -> None:
    assert len(_ROWS) == len(GUARANTEES)
    for text, start in zip((text for text, _ in _ROWS), GUARANTEES, strict=True):
        assert text.startswith(start)


@pytest.mark.parametrize(("text", "links"), _ROWS, ids=lambda value: value[:25])
def test_a_guarantee_links_the_files_that_hold_it(text: str, links: str) -> None:
    (held,) = (files for start, files in GUARANTEES.items() if text.startswith(start))
    assert re.findall(r"\]\(([^)]+)\)", links) == list(held)
    for file, names in held.items():
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert set(names) <= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _bare(text: str) -> str:
    # Imports are grouped by the linter of the example's own folder; blank lines and markers say nothing.
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("# ["))
