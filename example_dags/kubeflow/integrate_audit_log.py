"""Bring what every task recorded into the audit log: let a recurring run do it every few minutes.

Several runs at once, a run that is killed, and a run too many do no harm. The log's key must be out of reach for the
tasks that are recorded, so here it would come from a secret that only this pipeline's service account may mount.
"""

from kfp import dsl

from sealflow_kfp import integrate_audit_log as integrate
from sealflow_kfp import mount


@dsl.pipeline
def integrate_audit_log(
    signer: str = "file:/var/run/sealflow/log.pem",
    origin: str = "example.com/audit",
    inbox: str = "s3://audit/inbox",
    audit_log: str = "s3://audit/log",
) -> dict:
    done = mount(integrate(signer=signer, origin=origin, inbox=inbox, audit_log=audit_log), secret="sealflow")
    return done.outputs["integration"]
