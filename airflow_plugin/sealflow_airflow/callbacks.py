"""What a task does once it was refused: pause its DAG, notify, and tell a SIEM. Opt-in, for ``on_failure_callback``.

    from sealflow_airflow.callbacks import OnRefusal

    with DAG(..., default_args={"on_failure_callback": OnRefusal(pause_conn_id="airflow_api", notifiers=[...])}):

Airflow runs a task's callbacks in the task's own process, so each attempt tells of its own refusal, and what fails
there fails no task. A callback of a whole DAG runs elsewhere and is told no error: there nothing is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

    from sealflow.actions.respond_refusal import Refusal

_log = logging.getLogger(__name__)
_TIMEOUT = 15.0


class OnRefusal:
    """Acts on refusals, and on no other failure: an outage heals, a bug is the author's, a refusal needs somebody.

    Args:
        pause_conn_id: Connection to Airflow's public API (type HTTP: schema, host, port; login and password of a user
            who may edit the DAG, or a token as the password), with which the DAG is paused. ``None``: it is not.
        notifiers: Notifiers of Airflow's, or other callables, that get the context. A refusal stands in it as
            ``sealflow_refusal``, for templates.
        ocsf: Folder or location that gets the OCSF finding; it always goes to the logger ``sealflow.ocsf``.
        sealflow_conn_id: The connection of type sealflow, for where audit events go.
    """

    def __init__(
        self,
        *,
        pause_conn_id: str | None = None,
        notifiers: Sequence[Callable[[Any], object]] = (),
        ocsf: str | None = None,
        sealflow_conn_id: str | None = None,
    ) -> None:
        if callable(notifiers):
            notifiers = (notifiers,)
        self.pause_conn_id = pause_conn_id
        self.notifiers = tuple(notifiers)
        self.ocsf = ocsf
        self.sealflow_conn_id = sealflow_conn_id

    def __call__(self, context: Context) -> None:
        """Act, if the task's error is a refusal. Never raises."""
        from sealflow.actions import context as core
        from sealflow.actions.respond_refusal import refusal_in, report_refusal, surely
        from sealflow_airflow.run_context import surroundings

        error = context.get("exception")
        refusal = refusal_in(error) if isinstance(error, BaseException) else None
        if refusal is None:
            return
        try:
            entered = surroundings(context, self.sealflow_conn_id)
        except Exception as problem:
            _log.error("The settings of sealflow cannot be read, so only the notifiers are called: %s", problem)
            self._notify(context, refusal)
            return
        with core.run(entered):
            if self.pause_conn_id is not None:
                surely("Pausing the DAG", lambda: self._pause(context, str(self.pause_conn_id)), _log)
            surely("Reporting the refusal", lambda: report_refusal(refusal, self.ocsf), _log)
        self._notify(context, refusal)

    def _notify(self, context: Context, refusal: Refusal) -> None:
        from sealflow.actions.respond_refusal import surely

        told: Any = dict(context) | {"sealflow_refusal": refusal}
        for notifier in self.notifiers:
            surely(f"The notifier {type(notifier).__name__}", lambda notifier=notifier: notifier(told), _log)

    def _pause(self, context: Context, conn_id: str) -> None:
        """Pause the DAG; one that is paused stays so.

        Raises:
            UnavailableError: The API does not answer, or does not do it.
        """
        from airflow.sdk import BaseHook

        from sealflow.actions import context as core
        from sealflow.actions.recording import Recording

        dag_id = context["ti"].dag_id
        surroundings = core.current()
        with Recording("pause", f"airflow:{dag_id}", surroundings, ruled=False) as recording:
            pause_dag(BaseHook.get_connection(conn_id), dag_id)
            recording.done("")


def pause_dag(connection: Connection, dag_id: str) -> None:
    """Pause a DAG through Airflow's public API.

    Args:
        connection: To the API; see :class:`OnRefusal`.
        dag_id: The DAG.

    Raises:
        UsageError: The connection names no host or no password.
        UnavailableError: The API does not answer, does not let us, or did not do it.
    """
    import httpx

    from sealflow.errors import UnavailableError, UsageError
    from sealflow.findings import printable

    if not connection.host or not connection.password:
        raise UsageError("The connection to Airflow's API needs a host and a password.")
    host = connection.host if "://" in connection.host else f"{connection.schema or 'https'}://{connection.host}"
    base = f"{host.rstrip('/')}:{connection.port}" if connection.port else host.rstrip("/")
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            token = connection.password
            if connection.login:
                body = {"username": connection.login, "password": connection.password}
                token = _answer(client.post(f"{base}/auth/token", json=body)).get("access_token")
            if not isinstance(token, str) or not token:
                raise UnavailableError("Airflow's API gave no token.")
            answer = client.patch(
                f"{base}/api/v2/dags/{quote(dag_id, safe='')}",
                params={"update_mask": "is_paused"},
                json={"is_paused": True},
                headers={"Authorization": f"Bearer {token}"},
            )
            if _answer(answer).get("is_paused") is not True:
                raise UnavailableError(f"Airflow's API did not pause {printable(dag_id)}.")
    except httpx.HTTPError as error:
        # Not its text: a URL in it may hold what it must not.
        raise UnavailableError(f"Airflow's API does not answer ({type(error).__name__}).") from None


def _answer(response: Any) -> dict[str, Any]:
    from sealflow.errors import UnavailableError

    if response.status_code not in (200, 201):
        raise UnavailableError(
            f"Airflow's API answered {response.status_code}.",
            code="PERMISSION_DENIED" if response.status_code in (401, 403) else None,
        )
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise UnavailableError("Airflow's API answered with something else than JSON.")
    return body
