"""``@task.sealed``: a Python task whose inputs are verified and held, and whose outputs are signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from sealflow.actions.sealed import sealed
from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.outcome import airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class SealedDecoratedOperator(DecoratedOperator, PythonOperator):
    """What ``@task.sealed`` makes of a function; its parameters are those of :func:`sealed_task`."""

    template_fields: Sequence[str] = (
        *PythonOperator.template_fields,
        "signer",
        "evidence_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    custom_operator_name: str = "@task.sealed"
    ui_color = "#e7e0f5"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Any,
        op_kwargs: Any,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        identities: Any = None,
        recipients: Any = None,
        signer: str | None = None,
        evidence_store: str | None = None,
        policy: str | None = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kwargs_to_upstream={"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs},
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            **kwargs,
        )
        # A wrong name becomes an import error of the DAG file, not a failure in the night.
        sealed(inputs=inputs, outputs=outputs)(python_callable)
        self.inputs = inputs
        self.outputs = outputs
        self.identities = identities
        self.recipients = recipients
        self.signer = signer
        self.evidence_store = evidence_store
        self.policy = policy
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> Any:
        """Verify the inputs, call the function, sign the outputs.

        Raises:
            AirflowFailException: An input is refused, or a parameter cannot work.
            AirflowException: A store, the key service, the admin's policy or the audit log is out of reach.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        function = self.python_callable
        with airflow_errors(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            seal = sealed(
                inputs=self.inputs,
                outputs=self.outputs,
                identities=self.identities,
                recipients=self.recipients,
                signer=self.signer,
                evidence_store=self.evidence_store,
                policy=self.policy,
                storages=storages(self.aws_conn_id),
            )
            self.python_callable = seal(function)
            try:
                return super().execute(context)
            finally:
                self.python_callable = function


def sealed_task(
    python_callable: Callable[..., Any] | None = None,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    identities: Any = None,
    recipients: Any = None,
    signer: str | None = None,
    evidence_store: str | None = None,
    policy: str | None = None,
    sealflow_conn_id: str = DEFAULT_CONN_ID,
    aws_conn_id: str | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function: verified private copies go in, signed references come out.

    The same as ``@task.sealed``, for those who want their editor to know its parameters.

    Args:
        python_callable: The function.
        inputs: Names of its parameters that take references or locations, or lists of them. The function receives the
            path of the held copy, or a list of paths.
        outputs: Names of its parameters that say where it writes. Each is signed after the function returned. The
            task returns the reference of one output, a mapping from parameter name to reference for several, and the
            function's own result for none.
        identities: Who may have signed the inputs, by default what the admin's policy says, without one the
            connection's.
        recipients: URIs of the keys that open encrypted inputs, by default the connection's.
        signer: Signer URI, by default the one that the admin's policy chooses, then the connection's.
        evidence_store: Where the outputs' evidence goes.
        policy: One more policy for the inputs, the path of a draft. It can only tighten.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
        multiple_outputs: As in ``@task``.
        kwargs: What every operator takes.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=SealedDecoratedOperator,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        identities=identities,
        recipients=recipients,
        signer=signer,
        evidence_store=evidence_store,
        policy=policy,
        sealflow_conn_id=sealflow_conn_id,
        aws_conn_id=aws_conn_id,
        **kwargs,
    )
