"""What Airflow's provider manager learns about this package."""

from __future__ import annotations

from typing import Any

try:
    from sealflow._version import __version__
except Exception:
    # Airflow asks for this in every process, and would not start; what is broken is said by the doctor and by tasks.
    __version__ = "unknown"

_FIELDS = {
    "signer": ("Signer", "Where the signing key lies, as a URI: file:/keys/signing.pem, awskms:alias/models"),
    "identities": ("Identities", "Who may sign: a public key (path, URI, PEM text) or identity rules as JSON"),
    "evidence_store": ("Evidence store", "Where evidence is kept, such as s3://bucket/evidence"),
    "verifier": ("Verifier", "Where the key lies that signs verification summaries, as a URI; never the signer's"),
    "recipients": (
        "Recipients",
        "Who can open what is encrypted: a URI such as rsa:/keys/team.pem, or a JSON list of them",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "sealflow",
        "name": "sealflow",
        "description": "Signed, verified and traceable artifacts at every task boundary.",
        "versions": [__version__],
        "integrations": [{"integration-name": "sealflow", "tags": ["service"]}],
        "operators": [
            {
                "integration-name": "sealflow",
                "python-modules": [
                    f"sealflow_airflow.operators.{name}"
                    for name in ("access_audit", "audit", "lineage", "posture", "promote", "sign", "transfer", "verify")
                ],
            }
        ],
        "hooks": [{"integration-name": "sealflow", "python-modules": ["sealflow_airflow.hooks.sealflow"]}],
        "connection-types": [
            {
                "connection-type": "sealflow",
                "hook-class-name": "sealflow_airflow.hooks.sealflow.SealflowHook",
                "hook-name": "sealflow",
                "conn-fields": {
                    name: {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
                    for name, (label, description) in _FIELDS.items()
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port"],
                    "relabeling": {},
                    "placeholders": {},
                },
            }
        ],
        "cli": ["sealflow_airflow.cli.get_commands"],
        "task-decorators": [
            {"name": "sealed", "class-name": "sealflow_airflow.decorators.sealed.sealed_task"},
        ],
        "config": {
            "sealflow": {
                "description": "Settings of sealflow.",
                "options": {
                    "evidence_store": {
                        "description": (
                            "Where evidence is kept when neither the operator nor the connection says so. "
                            "Empty: beside each artifact, in ``<artifact>.evidence``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://models/evidence",
                        "default": "",
                    },
                    "conn_id": {
                        "description": (
                            "The connection that task bodies use, and operators that keep the default "
                            "``sealflow_conn_id``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "sealflow_default",
                    },
                    "audit_spool": {
                        "description": (
                            "Folder of the audit spool. To name one declares that it outlives the worker. Empty, "
                            "without an ``audit_inbox``: ``sealflow/audit/spool`` in the folder ``AIRFLOW_HOME``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/sealflow/audit",
                        "default": "",
                    },
                    "audit_inbox": {
                        "description": (
                            "Inbox of the audit log: ``sqlite:/path.db``, ``postgresql://host/database`` or "
                            "``s3://bucket/prefix``, without a password. Without an ``audit_spool`` every event is put "
                            "there before a task goes on."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://audit/inbox",
                        "default": "",
                    },
                    "audit_log": {
                        "description": (
                            "Where the audit log lies into which the inbox is integrated: a folder or ``s3://bucket/prefix``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://audit/log",
                        "default": "",
                    },
                    "audit_log_key": {
                        "description": ("Verifier key of the audit log, or the path of a file that holds it."),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/sealflow/audit.vkey",
                        "default": "",
                    },
                    "audit_witness_keys": {
                        "description": (
                            "Verifier keys of the audit log's witnesses, or paths of files that hold one each, "
                            "separated by commas."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/sealflow/witness.vkey",
                        "default": "",
                    },
                    "audit_signer": {
                        "description": ("Where the key lies that vouches for audit writers of this deployment."),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "file:/keys/audit.pem",
                        "default": "",
                    },
                    "audit_details": {
                        "description": (
                            "Where payloads of audit events are kept that may be deleted. Empty: beside the spool or "
                            "inbox."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://audit/details",
                        "default": "",
                    },
                    "audit_personal": {
                        "description": (
                            "Members of audit events that are personal here and go into such a payload: any of "
                            "``artifact``, ``host`` and ``triggered_by``, separated by commas."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "triggered_by",
                        "default": "",
                    },
                    "audit_timeout": {
                        "description": (
                            "How many seconds a task waits for what the policy demands of its audit events. Empty: 60."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "60",
                        "default": "",
                    },
                    "policy": {
                        "description": (
                            "Where the signed trust policy lies. All ``policy`` options are read once, when a process "
                            "starts; what a DAG sets later changes nothing. Empty, with the others: no policy."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://security/policy.json",
                        "default": "",
                    },
                    "policy_keys": {
                        "description": (
                            "Files with the public keys of those who may sign the policy and its waivers, separated by "
                            "commas or lines."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/sealflow/admin.pem.pub",
                        "default": "",
                    },
                    "policy_minimum_version": {
                        "description": (
                            "Least version of the policy that is accepted, so that a fresh worker takes no older one. "
                            "Empty: 1."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "12",
                        "default": "",
                    },
                    "policy_managed": {
                        "description": (
                            "Patterns of the locations that are refused while the policy is not to be had, separated "
                            "by commas or lines. Empty: all."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://models/**, /data/models/**",
                        "default": "",
                    },
                    "policy_revocations": {
                        "description": (
                            "Location of the signed list of revocations, signed with one of ``policy_keys``. Where "
                            "it is set and the list cannot be had, neither is the policy. Empty: nothing is revoked."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://security/revocations.json",
                        "default": "",
                    },
                    "policy_revocations_minimum_version": {
                        "description": (
                            "Least version of the list that is accepted, so that a fresh worker takes no older one. "
                            "Empty: 1."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "3",
                        "default": "",
                    },
                    "policy_waivers": {
                        "description": ("Folder of the signed waivers. Empty: ``<policy>.waivers``."),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://security/waivers",
                        "default": "",
                    },
                    "policy_waiver_keys": {
                        "description": (
                            "Files with further public keys that may sign waivers and no policies, separated by commas "
                            "or lines."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/sealflow/on-call.pem.pub",
                        "default": "",
                    },
                    "policy_state": {
                        "description": (
                            "Folder in which each worker keeps the last good policy. "
                            "Empty: ``sealflow/policy`` in the folder ``AIRFLOW_HOME``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/sealflow/policy",
                        "default": "",
                    },
                    "gate": {
                        "description": (
                            "Whether the API server holds what tasks report against signed evidence: ``off``, "
                            "``audit`` (only recorded) or ``enforce``. All ``gate`` options are read once, when a "
                            "process starts."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "enforce",
                        "default": "off",
                    },
                    "gate_access_audit": {
                        "description": (
                            "Whether the API server records which task reads which connection, variable and XCom: "
                            "names, never values."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "True",
                        "default": "",
                    },
                    "gate_evidence_stores": {
                        "description": (
                            "Evidence stores that the gate reads where a reference names them, beside "
                            "``evidence_store`` and those beside artifacts, separated by commas or lines."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://team/evidence",
                        "default": "",
                    },
                    "notary_signer": {
                        "description": (
                            "Where the key lies with which the API server signs asset events, as a URI. Set it for the "
                            "API server alone, with a key that workers cannot reach. Empty: no notary."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "awskms:alias/notary",
                        "default": "",
                    },
                    "notary_mode": {
                        "description": (
                            "``event``: the notary says which task emitted an event, and what it claims. ``hash``: it "
                            "hashes the artifact first, and then speaks for its bytes, too. Empty: ``event``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "hash",
                        "default": "",
                    },
                    "notary_max_bytes": {
                        "description": (
                            "Most bytes of an artifact that the notary hashes; a larger one it does not sign. "
                            "Empty: 68719476736 (64 GiB)."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "1099511627776",
                        "default": "",
                    },
                    "notary_store": {
                        "description": (
                            "Evidence store of the notary's own statements. Empty: ``sealflow/notary`` in the folder "
                            "``AIRFLOW_HOME``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://security/notary",
                        "default": "",
                    },
                    "pages": {
                        "description": "Whether the pages Trust and Evidence are shown in Airflow's UI.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "pages_state": {
                        "description": (
                            "Folder of the API server in which the index of verdicts is kept. "
                            "Empty: ``sealflow/pages`` in the folder ``AIRFLOW_HOME``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/lib/sealflow/pages",
                        "default": "",
                    },
                    "xcom_keys": {
                        "description": (
                            "Keys of the sealed XCom backend, separated by commas or lines: files of 32 random bytes "
                            "for the workers' user alone. The first one seals, all of them open. All ``xcom`` options "
                            "are read once, when a process starts."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "aes:/etc/sealflow/xcom-2026-11.key",
                        "default": "",
                    },
                    "xcom_storage": {
                        "description": (
                            "XCom backend that stores the sealed values. Empty: Airflow's own, in the database."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
                        "default": "",
                    },
                    "xcom_max_bytes": {
                        "description": "Most bytes of an XCom value. Empty: 16777216 (16 MiB).",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "1048576",
                        "default": "",
                    },
                    "xcom_accept_clear": {
                        "description": (
                            "Whether values that are not sealed are let pass, counted and with a warning. Only while "
                            "runs that began before the backend was set come to their end."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "True",
                        "default": "",
                    },
                },
            }
        },
    }
