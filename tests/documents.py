"""Every fenced block of the documents, and what holds it: a test that runs or checks it, or a reason why none can."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / f"{name}.md" for name in ("README", "SECURITY", "CONTRIBUTING"))]
)

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, without its indentation."""

    page: str
    line: int
    section: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language})"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order; directives of the site (``{toctree}``) are none."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)
    found = []
    for match in _FENCE.finditer(text):
        indent, language, body = match.groups()
        if language.startswith("{"):
            continue
        # A line that begins with a hash inside of a block before is no title.
        before = _FENCE.sub("", text[: match.start()])
        titles = re.findall(r"^## (.+)$", before, re.MULTILINE)
        found.append(
            Block(
                name,
                text[: match.start()].count("\n") + 1,
                titles[-1] if titles else "",
                language,
                "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)),
            )
        )
    return found


@dataclass(frozen=True)
class Runs:
    """A test that runs the ``bash`` blocks of a page, or of some sections, and compares the ``text`` blocks."""

    test: str
    sections: tuple[str, ...] = ()

    def holds(self, block: Block) -> bool:
        """Whether the block is one of these."""
        return block.language in ("bash", "text") and (not self.sections or block.section in self.sections)


@dataclass(frozen=True)
class Checks:
    """A test that takes blocks of a page and runs them, or compares them with what the code does."""

    test: str
    language: str
    containing: str = ""

    def holds(self, block: Block) -> bool:
        """Whether the block is one of these."""
        return block.language == self.language and self.containing in block.text


@dataclass(frozen=True)
class Nobody:
    """Blocks that no test runs, and why. The commands of ours that are in them exist, as those of every block."""

    language: str
    containing: str
    reason: str

    def holds(self, block: Block) -> bool:
        """Whether the block is one of these."""
        return block.language == self.language and self.containing in block.text


_COMMANDS = "tests/core/test_cli_docs.py::"
_VALUES = "tests/test_values_docs.py::"
_AIRFLOW = "tests/airflow/test_docs.py::"
_KUBEFLOW = "tests/kubeflow/test_docs.py::"
_MAKE = "tests/test_site.py::test_targets_of_make_exist"
_CLUSTER = "it needs a cluster; what it names is compared with the manifests by tests/kubeflow/test_docs.py"

#: What holds the blocks of each page.
HELD: dict[str, list[Runs | Checks | Nobody]] = {
    "README.md": [
        Checks(_MAKE, "console", "make"),
        Checks("tests/test_readme.py::test_a_snippet_stands_in_its_example", "python"),
    ],
    "docs/explanation/interoperability.md": [
        Checks("tests/conformance/test_interoperability_page.py::test_the_commands", "console")
    ],
    "docs/how-to/adopt.md": [
        Checks(_COMMANDS + "test_adopt", "console"),
        Checks("tests/core/actions/test_adopt.py::test_the_rule_in_the_guide", "yaml"),
    ],
    "docs/how-to/airflow-gate.md": [
        Checks(_AIRFLOW + "test_options_exist", "ini"),
        Checks(_AIRFLOW + "test_the_gates_application", "sh", "uvicorn"),
        Checks(_AIRFLOW + "test_variables_are_options", "sh", "AIRFLOW__"),
        Checks(_VALUES + "test_a_part_of_a_policy", "yaml"),
    ],
    "docs/how-to/airflow-guard.md": [
        Checks(_AIRFLOW + "test_options_exist", "ini"),
        Checks(_AIRFLOW + "test_guarded_tasks", "python"),
    ],
    "docs/how-to/airflow-pages.md": [
        Checks(_AIRFLOW + "test_options_exist", "ini"),
        Checks(_COMMANDS + "test_a_proof_from_the_pages", "sh"),
    ],
    "docs/how-to/audit.md": [Runs("tests/test_audit_docs.py::test_the_guide_to_the_audit_log")],
    "docs/how-to/encrypted-transfer.md": [Runs("tests/test_transfer_docs.py::test_the_guide_does_what_it_says")],
    "docs/how-to/gate-on-lineage.md": [
        Runs("tests/test_lineage_docs.py::test_the_guide_does_what_it_says"),
        Checks("tests/test_lineage_docs.py::test_a_snippet_stands_in_its_example", "python"),
    ],
    "docs/how-to/kubeflow-cluster.md": [
        Runs("tests/kubeflow/test_guard_docs.py::test_the_guide_does_what_it_says", ("Guard directory", "Spec patch")),
        Runs(
            "tests/test_kubeflow_cluster_docs.py::test_the_guide_does_what_it_says",
            ("Kyverno", "Look whether it holds"),
        ),
        Checks("tests/kubeflow/test_deploy_overlays.py::documented_certificates", "bash", "openssl req"),
        Checks(_MAKE, "console", "make"),
        Nobody("console", "kubectl", _CLUSTER),
    ],
    "docs/how-to/kubeflow-harden.md": [
        Runs("tests/test_kubeflow_docs.py::test_the_guide_does_what_it_says"),
        Nobody("console", "uv pip compile", "it asks a package index; the guide's test writes the file that it makes"),
    ],
    "docs/how-to/kubeflow-wrapper.md": [
        Checks("tests/kubeflow/test_exec_docs.py::test_the_component_of_the_guide_compiles", "python"),
        Checks(_KUBEFLOW + "test_a_verdict_from_the_inbox", "bash"),
    ],
    "docs/how-to/respond-to-a-stolen-key.md": [
        Runs("tests/test_respond_docs.py::test_the_drill"),
        Checks(_AIRFLOW + "test_on_refusal", "python"),
    ],
    "docs/how-to/rotate-keys.md": [
        Runs("tests/test_keys_docs.py::test_the_guide_to_rotation"),
        Checks(_VALUES + "test_a_part_of_a_policy", "yaml"),
    ],
    "docs/how-to/sealed-xcom.md": [
        Checks(_AIRFLOW + "test_options_exist", "ini"),
        Checks(_AIRFLOW + "test_a_key_for_xcoms", "sh"),
        Checks("tests/airflow/test_xcom.py::test_the_envelope_of_the_documents", "json"),
    ],
    "docs/how-to/trusted-time.md": [
        Checks(_VALUES + "test_a_part_of_a_policy", "yaml"),
        Checks(_COMMANDS + "test_a_stamp", "bash", "--timestamp"),
        Checks("tests/attacks/test_witnessed_time.py::test_the_whole_way_by_commands", "bash", "prove-time"),
        Checks(_COMMANDS + "test_what_prove_time_tells", "text"),
    ],
    "docs/how-to/verify-a-release.md": [
        Checks(_COMMANDS + "test_a_release", "console", "sealflow verify"),
        Checks(_MAKE, "console", "make release"),
    ],
    "docs/reference/access-review.md": [Checks(_COMMANDS + "test_a_review", "console")],
    "docs/reference/airflow.md": [
        Checks(_AIRFLOW + "test_the_connection", "sh", "connections add"),
        Checks("tests/airflow/test_policy.py::test_status_says_what_airflows_processes_see", "sh", "python -c"),
        Checks(_AIRFLOW + "test_the_doctors_commands", "sh", "doctor"),
        Checks(_AIRFLOW + "test_options_exist", "ini"),
        Checks(_COMMANDS + "test_a_task_body", "python"),
        Checks(_VALUES + "test_a_line_of_progress", "text", "Sending"),
    ],
    "docs/reference/audit-events.md": [Checks(_VALUES + "test_the_form_of_an_entry", "text")],
    "docs/reference/audit-log.md": [
        Runs("tests/test_audit_log_docs.py::test_the_commands"),
        Checks("tests/conformance/test_tlog.py::test_the_lines_of_the_reference", "go"),
        Checks(_VALUES + "test_the_form_of_an_entry", "none"),
        Checks(_COMMANDS + "test_a_witness", "console"),
    ],
    "docs/reference/encryption.md": [
        Checks("tests/conformance/test_encryption_sdk.py::test_the_documented_way_to_open_it_without_us", "python"),
        Checks("tests/conformance/test_encrypted_recovery.py::documented", "sh"),
    ],
    "docs/reference/kubeflow-cluster.md": [
        Checks("tests/test_site.py::test_a_synopsis_names_all_options", "text", "sealflow kfp"),
        Checks("tests/kubeflow/test_admission_settings.py::test_the_settings_of_the_page_are_taken", "yaml"),
    ],
    "docs/reference/kubeflow.md": [
        Checks(_KUBEFLOW + "test_an_exit_task", "python", "respond_to_refusal"),
        Checks(_KUBEFLOW + "test_a_component_with_checks_in_its_body", "python", "verified_input"),
        Checks(_KUBEFLOW + "test_the_end_of_a_log", "text", "FAILED"),
        Checks("tests/test_site.py::test_a_synopsis_names_all_options", "text", "sealflow kfp"),
        Checks(_KUBEFLOW + "test_the_wrapper", "text", "sealflow_kfp.exec"),
        Checks(_KUBEFLOW + "test_the_secret", "yaml"),
        Checks(_VALUES + "test_an_admins_file", "json", "minimum_version"),
        Checks(_KUBEFLOW + "test_the_metadata", "json", "sealflow_evidence"),
    ],
    "docs/reference/lineage.md": [
        Checks("tests/core/lineage/test_reference.py::test_the_examples", "console"),
        Checks("tests/core/lineage/test_reference.py::test_the_example_in_python", "python"),
        Checks(_COMMANDS + "test_a_check_behind_an_address", "sh"),
    ],
    "docs/reference/policy.md": [
        Checks("tests/test_policy_docs.py::test_an_example_policy_is_sound", "yaml", "identities:"),
        Checks("tests/test_policy_docs.py::test_the_example_waiver_is_sound", "yaml", "kind: Waiver"),
        Checks("tests/test_policy_docs.py::test_the_example_table_comes_out_as_it_says", "yaml", "kind: PolicyTests"),
        Checks(_VALUES + "test_an_admins_file", "json"),
        Checks(_COMMANDS + "test_a_waiver", "bash"),
    ],
    "docs/reference/posture.md": [
        Checks(_COMMANDS + "test_posture", "console"),
        Checks("tests/core/actions/test_audit_posture.py::iam_policy", "json"),
    ],
    "docs/reference/revocations.md": [
        Checks("tests/test_policy_docs.py::test_the_example_list_of_revocations_is_sound", "yaml"),
        Checks(_COMMANDS + "test_a_list_of_revocations", "bash"),
    ],
    "docs/reference/signers.md": [Runs("tests/test_keys_docs.py::test_the_example_with_a_token")],
    "docs/reference/trace.md": [
        Checks(_COMMANDS + "test_a_graph", "console"),
        Checks(_COMMANDS + "test_a_graph", "json"),
    ],
    "docs/reference/transfer.md": [Checks(_COMMANDS + "test_there_and_back_through_s3", "console")],
    "docs/reference/verdict-reuse.md": [
        Checks("tests/core/actions/test_reuse.py::test_the_policy_in_the_reference", "yaml"),
        Checks(_VALUES + "test_a_verification_summary", "json"),
    ],
    "docs/reference/verdicts.md": [
        Checks(_VALUES + "test_a_verdict", "json", "sealflow_verdict"),
        Checks(_VALUES + "test_a_reference", "json", "sealflow_ref"),
        Checks(_VALUES + "test_identities", "json", "trainer.pub"),
    ],
    "docs/tutorials/first-guarded-dag.md": [Runs("tests/test_site.py::test_the_first_guarded_dag")],
    "docs/tutorials/first-guarded-pipeline.md": [Runs("tests/test_site.py::test_the_first_guarded_pipeline")],
    "docs/tutorials/first-policy.md": [Runs("tests/test_policy_docs.py::test_the_guide_does_what_it_says")],
    "docs/tutorials/first-review.md": [Runs("tests/test_site.py::test_the_first_review")],
}


def runs(page: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return which tests run a page, and which sections of it."""
    return {(item.test, item.sections) for item in HELD.get(page, ()) if isinstance(item, Runs)}


def block(page: str, language: str, containing: str = "") -> str:
    """Return the text of the one block of a page (``how-to/adopt``) that is meant."""
    (text,) = (
        item.text for item in blocks_of(ROOT / "docs" / f"{page}.md") if Checks("", language, containing).holds(item)
    )
    return text
