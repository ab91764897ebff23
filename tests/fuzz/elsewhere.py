"""Modules that decode something and have no target: which test holds them, or whose bytes they are."""

from __future__ import annotations

from typing import Final

_DOCTOR: Final = "tests/kubeflow/test_doctor_hostile.py"
_LOG: Final = "tests/fuzz/test_audit_log.py"

#: What is read needs more around it than bytes: a server, a chain of entries, a file with a history.
HELD: Final = {
    "sealflow.encryption.raw": "tests/core/encryption/test_recipient.py::test_damaged_wrapped_keys_all_look_the_same",
    "sealflow.keys.containers": "tests/core/keys/test_containers.py::test_any_bytes_are_read_or_refused",
    "sealflow.keys.securesystemslib": "tests/core/keys/test_services.py::test_vaults_answers_are_read_strictly",
    "sealflow.policy.source": "tests/fuzz/test_policy.py::test_any_value_as_a_channel",
    "sealflow.transfer.resume": "tests/fuzz/test_transfer.py::test_states",
    "sealflow.verification.audit_log": f"{_LOG}::test_the_fast_way_takes_only_what_the_strict_one_takes",
    "sealflow_airflow.xcom": "tests/fuzz/test_value.py::test_envelopes",
    "sealflow_kfp.admission.http": "tests/fuzz/test_admission_http.py::test_a_listener_bears_any_bytes",
    "sealflow_kfp.doctor.kubectl": f"{_DOCTOR}::test_a_kubectl_that_is_of_no_use_leaves_all_unknown",
}

#: Bytes of somebody who can do more than that with less: our own process, an admin, whoever gives the command.
OURS: Final = {
    "sealflow.actions.adopt": "the journal that whoever adopts names, in a folder of his",
    "sealflow.actions.ahead": "frames of our own child process",
    "sealflow.actions.audit_prove": "the event of an entry that `entry` has read, from a log whose checkpoint held",
    "sealflow.actions.audit_scan": "what our own child processes found",
    "sealflow.actions.context": "the settings file that an admin mounts",
    "sealflow.actions.opening": "frames between our own processes",
    "sealflow.actions.policy_files": "a payload that `policy` has read before",
    "sealflow.actions.policy_init": "events in an inbox of the admin's own, read as `entry` reads them",
    "sealflow.actions.respond_quarantine": "records that a responder's own command keeps beside what it moved",
    "sealflow.actions.respond_radius": "the public half of a key that the responder names",
    "sealflow.actions.respond_revoke": "what an admin's own command remembers of the list",
    "sealflow.keys.awskms": "a key as the service returns it that is asked to sign with it",
    "sealflow.keys.file": "the operator's own key file",
    "sealflow.keys.pkcs11": "a key as the token returns it that is asked to sign with it",
    "sealflow.policy.delivery": "a state folder of the verifier's; the document in it is verified once more",
    "sealflow.verification.vouching": "what the process wrote that started this one",
    "sealflow_airflow.doctor.installation": "metadata of an installed distribution, by whose code we run",
    "sealflow_airflow.doctor.report": "the report that an admin names",
    "sealflow_airflow.doctor.server": "the answer of the API server that is asked whether it is ours",
    "sealflow_airflow.hooks.sealflow": "a connection, which an admin writes",
    "sealflow_airflow.ui.index": "the index that we made ourselves, in a folder of ours",
    "sealflow_kfp.admission.certificates": "the server's own certificate, which an admin mounts",
}
