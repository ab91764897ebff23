"""``sealflow audit``: the log of who touched what, and what can be learned from it."""

from __future__ import annotations

import typer

from sealflow.cli import audit_integrate, audit_log, audit_posture, audit_review, audit_spool

audit_app = typer.Typer(help="Integrate, verify and review the audit log.", no_args_is_help=True)
audit_app.callback()(lambda: None)

audit_integrate.register(audit_app)
audit_posture.register(audit_app)
audit_spool.register(audit_app)
audit_review.register(audit_app)
audit_log.register(audit_app)
