"""The connection type ``sealflow``: references to keys, rules and stores, never a secret."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, conf
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

from sealflow.errors import SealflowError, UnavailableError, UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from sealflow.actions.context import Settings

DEFAULT_CONN_ID = "sealflow_default"

_EXTRA = ("signer", "identities", "evidence_store", "verifier", "recipients")
_AUDIT = (
    "audit_spool", "audit_inbox", "audit_log", "audit_log_key", "audit_witness_keys", "audit_signer", "audit_details",
    "audit_personal", "audit_timeout",
)  # fmt: skip
_UNUSED = ("host", "schema", "login", "password", "port")
_USER_AND_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")


class SealflowHook(BaseHook):
    """Reads a connection of type ``sealflow`` and the configuration section ``[sealflow]``.

    The connection's extra is a JSON object with any of ``signer``, ``identities``, ``evidence_store``, ``verifier`` and
    ``recipients``. A connection with anything else in it is refused: a secret that nobody reads is still a secret that
    leaks.

    Args:
        sealflow_conn_id: The connection. ``sealflow_default`` means the deployment's default, which
            ``[sealflow] conn_id`` can set; it need not exist.
    """

    conn_name_attr = "sealflow_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = "sealflow"
    hook_name = "sealflow"

    def __init__(self, sealflow_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sealflow_conn_id = sealflow_conn_id

    def get_conn(self) -> Settings:
        """Return the settings that hold for a task: the connection's, then the configuration's.

        Raises:
            UsageError: The connection holds something else than references, or a named one does not exist.
            UnavailableError: Airflow does not give the connection out.
        """
        configured = configured_settings()
        connection = self._find()
        return configured if connection is None else self._read(connection).over(configured)

    def test_connection(self) -> tuple[bool, str]:
        """Open the keys of the connection and parse its identities, for the button in the UI."""
        from sealflow.actions.recipients import open_recipients, recipient_uris
        from sealflow.keys import load_signer
        from sealflow.policy import CALL, Clause, Requirement, parse_identities

        try:
            connection = self._find()
            if connection is None:
                return False, f"The connection {printable(self.sealflow_conn_id)!r} does not exist."
            settings = self._read(connection)
            rules = parse_identities(settings.identities)
            # The digest of what is trusted needs every key and root, so it shows whether they can be read.
            Requirement((Clause(CALL, rules),)).policy_digest()
            signer = f"signer {load_signer(settings.signer).public_key.hint[:12]}" if settings.signer else "no signer"
            uris = recipient_uris(settings.recipients)
            recipients = len(open_recipients(uris)) if uris else 0
        except SealflowError as error:
            return False, str(error)
        return True, f"{signer}, {_count(len(rules), 'identity rule')}, {_count(recipients, 'recipient')}"

    def _find(self) -> Connection | None:
        conn_id = self.sealflow_conn_id
        if conn_id == DEFAULT_CONN_ID:
            conn_id = _option("conn_id") or DEFAULT_CONN_ID
        try:
            return self.get_connection(conn_id)
        except AirflowNotFoundException:
            if conn_id == DEFAULT_CONN_ID:
                return None
            raise UsageError(
                f"The connection {printable(conn_id)!r} does not exist.",
                code="CONNECTION_MISSING",
                next_step="Create it with the type sealflow, or name another one in `sealflow_conn_id`.",
            ) from None
        except (AirflowRuntimeError, PermissionError) as error:
            raise UnavailableError(
                f"Airflow does not give out the connection {printable(conn_id)!r}: {type(error).__name__}."
            ) from None

    def _read(self, connection: Connection) -> Settings:
        from sealflow.actions.context import Settings

        what = f"The connection {printable(connection.conn_id)!r}"
        refused = [name for name in _UNUSED if getattr(connection, name, None)]
        if refused:
            raise UsageError(
                f"{what} sets {', '.join(refused)}; it may hold references in its extra and no secret.",
                code="CONNECTION_REFUSED",
                next_step="Clear them. The passphrase of a key file comes from SEALFLOW_KEY_PASSPHRASE on the worker.",
            )
        try:
            extra = json.loads(connection.extra) if connection.extra else {}
        except ValueError:
            extra = None
        if not isinstance(extra, dict):
            raise UsageError(f"{what} has an extra that is not a JSON object.", code="CONNECTION_REFUSED")
        unknown = sorted(extra.keys() - set(_EXTRA))
        if unknown:
            raise UsageError(
                f"{what} has the unknown member {printable(unknown[0], 60)!r} in its extra; "
                f"known: {', '.join(_EXTRA)}.",
                code="CONNECTION_REFUSED",
            )
        # Written out once, so that a key hides in no nested rule.
        if "PRIVATE KEY-----" in json.dumps(extra):
            raise UsageError(
                f"{what} holds a private key.",
                code="CONNECTION_REFUSED",
                next_step="Treat this key as leaked. Name a signer by URI: file:/keys/signing.pem, awskms:alias/name.",
            )
        for name in ("signer", "evidence_store", "verifier", "recipients"):
            values = extra.get(name)
            for value in values if isinstance(values, list) else (values,):
                if isinstance(value, str) and _USER_AND_PASSWORD.search(value):
                    raise UsageError(f"{what} has credentials in {name}.", code="CONNECTION_REFUSED")
        return Settings.parse({name: value or None for name, value in extra.items()}, what)


def configured_settings() -> Settings:
    """Return what ``[sealflow]`` says by itself: all that processes have which run no tasks."""
    from sealflow.actions.context import Settings

    audit = {name: _option(name) for name in _AUDIT}
    if not audit["audit_inbox"]:
        # A spool named beside an inbox declares that it outlives the worker, and only the admin knows that.
        audit["audit_spool"] = audit["audit_spool"] or _default_spool()
    return Settings(evidence_store=_option("evidence_store"), **audit)


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what if number == 1 else what + 's'}"


def _option(name: str) -> str | None:
    return conf.get("sealflow", name, fallback="") or None


def _default_spool() -> str:
    # As Airflow itself finds its home.
    home = os.path.expandvars(os.path.expanduser(os.environ.get("AIRFLOW_HOME") or "~/airflow"))
    return os.path.join(home, "sealflow", "audit", "spool")
