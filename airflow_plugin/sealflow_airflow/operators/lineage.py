"""Check the lineage of data that DVC tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_lineage
from sealflow_airflow.outcome import airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context


class DvcLineageCheckOperator(Observed, BaseOperator):
    """Let the DAG go on only with a DVC repository whose data is what its lock, its commits and its signers say.

    A gate: what lies in the repository can change behind it, so the work behind the gate has to be the only one that
    may write there. The verdict is pushed as XCom ``verdict``, also when it is a refusal; the return value is
    ``repository`` as it was given, so that the tasks behind the gate can take it from there.

    Nothing is written into the repository and no code of it runs; DVC is needed only where data has to be fetched.

    What decides whom to trust and how much is demanded is no template, since a template may hold what another task or
    whoever starts the DAG says: ``level``, ``allowed_signers``, ``branch``, ``read_remote``, ``identities``, ``roots``,
    ``datasets`` and ``policy``.

    Args:
        repository: Folder that holds ``.dvc``, or a Git URL.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the folder, with everything upstream of
            them; by default all.
        level: What is demanded, ``L1`` to ``L6``; see docs/reference/lineage.md.
        allowed_signers: Path of an allowed-signers file of OpenSSH: who may sign commits. From ``L3``.
        branch: Full name of the branch that has to hold the commit, such as ``refs/remotes/origin/main``. From ``L3``.
        revision: The commit, by default ``HEAD``: a full id, or the name of a branch or tag. From ``L3``, and for Git
            URLs.
        remote: URL or name of the remote that has to hold the same objects, by default the repository's own. From
            ``L4``.
        read_remote: Whether those objects of the remote are read whose bytes its own checksums do not prove. From
            ``L4``.
        identities: Who may sign lineage statements and provenance, by default what the admin's policy says, without
            one the connection's. From ``L5``.
        evidence_store: Where that evidence lies, by default the connection's, then ``[sealflow] evidence_store``, then
            ``<repository>.evidence``.
        roots: Identities of data owners, with whose signed datasets the walk ends. From ``L6``.
        datasets: Digests of artifacts that end the walk too. From ``L6``.
        policy: One more policy, the path of a draft. It can only tighten what the admin's policy says.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "repository",
        "targets",
        "revision",
        "remote",
        "evidence_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#e9e2f3"

    def __init__(
        self,
        *,
        repository: str,
        targets: Sequence[str] = (),
        level: str = "L2",
        allowed_signers: str | None = None,
        branch: str | None = None,
        revision: str | None = None,
        remote: str | None = None,
        read_remote: bool = False,
        identities: Any = None,
        evidence_store: str | None = None,
        roots: Any = None,
        datasets: Sequence[str] = (),
        policy: str | None = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.targets = targets
        self.level = level
        self.allowed_signers = allowed_signers
        self.branch = branch
        self.revision = revision
        self.remote = remote
        self.read_remote = read_remote
        self.identities = identities
        self.evidence_store = evidence_store
        # `roots` is taken: so every operator calls the first tasks of itself.
        self.walk_roots = roots
        self.datasets = datasets
        self.policy = policy
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> str:
        """Check, and return ``repository``.

        Raises:
            AirflowFailException: Refused, or a parameter cannot work.
            AirflowException: Nobody can say: a folder, a remote, an evidence store, the admin's policy or the audit log
                is out of reach.
        """
        import sealflow
        from sealflow.actions.lineage import check_lineage
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            verdict = check_lineage(
                self.repository,
                self.targets,
                level=self.level,
                allowed_signers=self.allowed_signers,
                branch=self.branch,
                revision=self.revision,
                remote=self.remote,
                read_remote=self.read_remote,
                identities=self.identities,
                evidence_store=self.evidence_store,
                roots=self.walk_roots,
                datasets=self.datasets,
                policy=self.policy,
                storages=storages(self.aws_conn_id),
            )
            self._judged(context, verdict, of_lineage(verdict, level=self.level, targets=self.targets))
            if not verdict.passed:
                raise sealflow.VerificationError(verdict)
            self.log.info("%s Level %s.", verdict.summary(), self.level)
            return self.repository
