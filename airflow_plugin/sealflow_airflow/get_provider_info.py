"""What Airflow's provider manager learns about this package."""

from __future__ import annotations

from typing import Any

from sealflow._version import __version__

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
                    for name in ("lineage", "promote", "sign", "transfer", "verify")
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
                    "audit_log": {
                        "description": (
                            "File that audit events are appended to. "
                            "Empty: ``sealflow/audit.jsonl`` in the folder ``AIRFLOW_HOME``."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/log/sealflow/audit.jsonl",
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
                },
            }
        },
    }
