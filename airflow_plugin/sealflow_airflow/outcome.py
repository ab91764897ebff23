"""From sealflow's outcomes to Airflow's exceptions: a refusal ends the task at once, an outage may be tried again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from sealflow.errors import SealflowError, VerificationError
from sealflow_airflow.metrics import count_error


class TaskRefusedError(VerificationError, AirflowFailException):
    """A refused artifact inside a task body. Airflow does not try the task again: the same bytes stay refused."""


@contextlib.contextmanager
def airflow_errors(of: str = "sealflow") -> Iterator[None]:
    """Translate errors of sealflow, and count them.

    Args:
        of: First part of the counter's name; see :mod:`sealflow_airflow.metrics`.

    Raises:
        AirflowFailException: Refused, or a usage error: no other attempt can heal it.
        AirflowException: A backend is out of reach: Airflow tries again as the task's ``retries`` say.
    """
    try:
        yield
    except TaskRefusedError as error:
        count_error(of, error)
        raise
    except SealflowError as error:
        count_error(of, error)
        # The message is the whole account; the trace through the core would bury it in the task's log.
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from None
