"""The guard around a task's command: inputs are verified before it runs, outputs are signed after it.

What is managed, believed and signed is decided by :mod:`sealflow.actions`. Here stands what only KFP knows: what the
launcher handed over, which task should have made it, and where an output's evidence travels.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow.actions import context, guarding
from sealflow.actions.recipients import recipient_uris
from sealflow.actions.recording import Recording
from sealflow.actions.sign import Signed, chosen_signer, open_signer, read_parameter_key, sign_artifact
from sealflow.actions.verify import check_into, settle, verify_artifact
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.evidence.provenance import MAX_PROVENANCE_BUNDLE, make_provenance_statement
from sealflow.findings import printable
from sealflow.hashing import Digest
from sealflow.manifest import build_manifest
from sealflow.policy.compose import Arguments
from sealflow.storage import Storages
from sealflow.storage.local import replace_file
from sealflow_kfp import signed_metadata
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from sealflow_kfp.executor_io import ExecutorInput, ExecutorOutput, Handed, path_of, refuse_nested
from sealflow_kfp.expected import Expected, claimed, wrong_source
from sealflow_kfp.plan import PLAN_PARAMETER, Plan
from sealflow_kfp.run_context import (
    NO_ARTIFACTS,
    RUN_ID_PARAMETER,
    location_of,
    names_in,
    place_beside,
    shown_as,
)
from sealflow_kfp.task_body import case_of, is_remote

if TYPE_CHECKING:
    from sealflow.actions.context import Surroundings
    from sealflow.actions.guarding import Managed
    from sealflow.findings import Verdict

#: Types of artifacts that are metadata and nothing else as a rule.
METADATA_KINDS: Final = frozenset(
    {"system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics"}
)
#: Types that KFP's pages show. They are encrypted only where a policy demands it.
SHOWN_KINDS: Final = METADATA_KINDS | {"system.HTML", "system.Markdown"}
#: Findings that say that a policy lets something pass which its rules would refuse.
RELAXED: Final = frozenset({"POLICY_AUDIT", "WAIVER_USED"})
#: Least bytes of a bundle beside its statement.
_SIGNATURE: Final = 400
#: Most warnings about one input that the log shows.
MAX_SAID: Final = 20


class Problems(Exception):  # noqa: N818  (what is wrong with a task, each an error of its own)
    """Why a task may not go on.

    Attributes:
        errors: What is wrong, in the order in which it was found.
    """

    def __init__(self, errors: list[SealflowError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class Concern(NamedTuple):
    """An artifact that is checked or signed.

    Attributes:
        managed: What the policy says of it; ``None`` where there is no policy, and the settings alone say whom to
            believe and who signs.
        enforced: Whether a refusal ends the task.
    """

    managed: Managed | None
    enforced: bool


class Admitted(NamedTuple):
    """An input that was verified.

    Attributes:
        artifact: What was handed over.
        path: Where the task's command finds the verified bytes.
        uri: How provenance names it.
        digest: Its digest.
        verdict: The verdict.
    """

    artifact: Handed
    path: str
    uri: str
    digest: str
    verdict: Verdict


# Nobody compares or shows guards, and every task would compile what does.
@dataclass(eq=False, repr=False)
class Guard:
    """One run of one task.

    Attributes:
        given: What the task is given.
        moved: For inputs, by name and number, where the command finds the verified copy.
        metadata: For inputs, verified metadata.
        admitted: Inputs that were verified.
        sealed: Outputs that were signed, with what was signed.
        let_pass: Artifacts that nobody vouches for, and why they may be used: rules that are only audited, a waiver.
        changed: Inputs that the command changed.
        untouched: How many artifacts nobody manages.
    """

    given: ExecutorInput
    moved: dict[tuple[str, int], str] = field(default_factory=dict)
    metadata: dict[tuple[str, int], Any] = field(default_factory=dict)
    admitted: list[Admitted] = field(default_factory=list)
    sealed: list[tuple[str, Signed]] = field(default_factory=list)
    let_pass: list[tuple[str, str]] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    untouched: int = 0
    _storages: Storages = field(default_factory=Storages)
    _folders: list[str] = field(default_factory=list)
    #: Guarded outputs, and where the folder of each really lay before the command ran.
    _guarded: dict[str, str] = field(default_factory=dict)
    #: Outputs that have no file but that of their metadata.
    _metadata_files: set[str] = field(default_factory=set)
    _plan: Plan | None = None

    def before(self) -> None:
        """Verify the inputs, and see whether the outputs can be signed.

        Raises:
            Problems: The command may not run.
        """
        surroundings = context.current()
        problems: list[SealflowError] = []
        try:
            self._agree(surroundings)
            if self._plan is None and self.given.inputs:
                say("No plan says where the inputs come from; `sealflow kfp harden` makes one.")
            for artifact in self.given.outputs.values():
                self._ready(artifact, surroundings)
        except SealflowError as error:
            # Nothing that follows can be right.
            raise Problems([error]) from None
        for artifact in self.given.inputs:
            try:
                self._admit(artifact, surroundings)
            except SealflowError as error:
                problems.append(error)
        if not problems:
            try:
                self._fits(surroundings)
            except SealflowError as error:
                problems.append(error)
        if problems:
            raise Problems(problems)

    def after(self) -> None:
        """Check the inputs again, sign the outputs, and tell KFP about it.

        Raises:
            Problems: What the command made must not be used.
        """
        surroundings = context.current()
        problems: list[SealflowError] = []
        try:
            for admitted in self.admitted:
                self._still(admitted, surroundings)
            output = ExecutorOutput.read(self.given.output_file) if self.given.output_file else ExecutorOutput({})
            before = output.to_bytes()
            output.drop(NO_ARTIFACTS)
            chosen = self._chosen(output)
        except SealflowError as error:
            raise Problems([error]) from None
        for artifact, custom in chosen:
            try:
                self._seal(artifact, custom, output, surroundings)
            except SealflowError as error:
                problems.append(error)
        if not problems:
            try:
                if (data := output.to_bytes()) != before:
                    self._hand_back(data)
                self._write_page(surroundings)
            except SealflowError as error:
                problems.append(error)
        if problems:
            raise Problems(problems)

    def summary(self) -> str:
        """Return in one line what was done."""
        counts = [f"{len(self.admitted)} inputs verified", f"{len(self.sealed)} outputs signed"]
        counts.append(f"{self.untouched} artifacts not managed")
        return ", ".join([*counts, *([f"{len(self.let_pass)} let pass"] if self.let_pass else [])]) + "."

    def record(self, problems: Problems) -> None:
        """Leave an audit event of what is no verdict; a verdict has its own.

        Whoever looks for the reason of a stopped task finds it where refusals are. The task is stopped in any case, so
        an audit log that is out of reach changes nothing.
        """
        for error in problems.errors:
            if not isinstance(error, VerificationError):
                with contextlib.suppress(SealflowError), Recording("guard", "", context.current(), ruled=False):
                    raise error

    def close(self) -> None:
        """Remove the private copies."""
        if self._folders:
            import shutil

            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)

    def discard(self) -> None:
        """Remove what the command made of outputs that are guarded: nobody vouches for it, and nobody shall find it."""
        for name, folder in self._guarded.items():
            path = self.given.outputs[name].path
            # Where the command put a link in place of the folder, something else lies there.
            if os.path.realpath(os.path.dirname(path)) == folder:
                _remove(path)
        if self._guarded:
            _remove(self.given.output_file)

    def _agree(self, surroundings: Surroundings) -> None:
        """Compare the plan with the task that runs.

        Raises:
            UsageError: They do not belong together.
        """
        run, reserved = surroundings.run, self.given.reserved
        claimed = reserved.get(RUN_ID_PARAMETER)
        place = next(filter(None, (names_in(item.uri) for item in self.given.outputs.values())), None)
        if place is None and self.given.output_file:
            place = names_in(self.given.output_file)
        on_cluster = place is not None and not place.local
        if on_cluster and isinstance(claimed, str) and "{{" not in claimed and claimed != run.run:
            raise _odd(f"the parameter {RUN_ID_PARAMETER} names the run {printable(claimed)!r}", run.run)
        if PLAN_PARAMETER not in reserved:
            return
        try:
            plan = Plan.parse(reserved[PLAN_PARAMETER])
        except EvidenceError as error:
            raise UsageError(error.message, next_step="Harden the pipeline again.") from None
        if on_cluster and (plan.pipeline, plan.task.rpartition("/")[2]) != (run.workflow, run.task):
            raise _odd(f"the plan is that of {printable(plan.pipeline)}/{printable(plan.task)}", run.producer)
        inputs, outputs = {item.name for item in self.given.inputs}, set(self.given.outputs)
        if unknown := sorted(inputs - plan.inputs.keys()) + sorted(outputs ^ set(plan.outputs)):
            raise _odd(f"the plan and the task differ in {printable(unknown[0])!r}", "the same inputs and outputs")
        self._complete(plan)
        if not run.run and any(plan.inputs[name] for name in inputs):
            raise UsageError(
                "Nothing says which run this task is part of, so no input can be told from that of another run.",
                next_step=f"Hand over the run's id as {RUN_ID_PARAMETER}; `sealflow kfp harden` does.",
            )
        self._plan = plan

    def _complete(self, plan: Plan) -> None:
        """Refuse inputs that are missing, or given twice, where the plan leaves no room for that.

        Raises:
            ArtifactError: Names the input.
        """
        uris: dict[str, list[str]] = {}
        for item in self.given.inputs:
            uris.setdefault(item.name, []).append(item.uri)
        around = plan.task.rpartition("/")[0]
        for name, producers in plan.inputs.items():
            given = uris.get(name, [])
            # What comes out of a loop or a branch may be nothing; a task of this DAG, or of one around it, has run.
            near = any(f"{around}/".startswith(f"{item.task.rpartition('/')[0]}/".lstrip("/")) for item in producers)
            if not given and near:
                raise ArtifactError(f"The input {printable(name)!r} comes from another task, and is not given.")
            if producers and len(set(given)) != len(given):
                raise ArtifactError(f"The input {printable(name)!r} holds one artifact twice.")

    def _fits(self, surroundings: Surroundings) -> None:
        """Refuse inputs and parameters that no provenance has room for, before the command spends hours on them.

        Raises:
            UsageError: Says how much there is.
        """
        if not self._guarded:
            return
        inputs = context.verified_inputs(surroundings.run)
        statement = make_provenance_statement(
            max(self._guarded, key=len),
            Digest("dirHash", "0" * 64),
            surroundings.run,
            dependencies=inputs,
            parameters=surroundings.parameters,
            parameter_key=read_parameter_key(surroundings.settings.parameter_key),
            now=utc_now(),
        )
        # In Base64; what a signature and its key or certificates take comes on top.
        size = len(statement) * 4 // 3 + _SIGNATURE
        if size > MAX_PROVENANCE_BUNDLE:
            raise UsageError(
                f"The provenance of an output would have {size} bytes, more than {MAX_PROVENANCE_BUNDLE}: it names "
                f"{len(inputs)} inputs and {len(surroundings.parameters)} parameters.",
                code="PROVENANCE_TOO_LONG",
                next_step="Collect in steps of fewer inputs, or hand many parameters over as one of JSON.",
            )

    def _expected(self, artifact: Handed, surroundings: Surroundings) -> list[Expected]:
        """Return who may have made an input; empty where nothing but the policy says so."""
        run = surroundings.run
        if self._plan is None:
            found = names_in(artifact.uri)
            if found is None:
                return []
            # The location comes from the metadata store. It may say which task of this run made it, and no more.
            producer = f"kfp:{found.workflow}/{found.task}"
            return [Expected(found.output, producer, f"{producer}/{run.run or found.run}", found.task)]
        return [
            Expected(item.output, producer, f"{producer}/{run.run}", leaf)
            for item in self._plan.inputs[artifact.name]
            for leaf in [item.task.rpartition("/")[2]]
            for producer in [f"kfp:{run.workflow or self._plan.pipeline}/{leaf}"]
        ]

    def _planned_place(self, one: Expected | None) -> str:
        """Return the location at which KFP would have put an input that the plan speaks of; empty where it does not.

        Whoever can write to the metadata store, or made the input, can say that it lies elsewhere. The rules about
        the place where it belongs hold all the same.
        """
        if one is None or self._plan is None:
            return ""
        own = [item.path for item in self.given.outputs.values()] + [self.given.output_file]
        places = (place_beside(path, one.task, one.name) for path in own if path)
        place = next(filter(None, places), None)
        return "" if place is None else location_of(place)

    @contextlib.contextmanager
    def _judged(
        self, artifact: Handed, names: Iterable[str], location: str, surroundings: Surroundings
    ) -> Iterator[Concern | None]:
        """Ask the policy about an artifact, and inside of this let the rules about both of its places hold for it.

        Args:
            artifact: The artifact.
            names: Names under which it is expected or will be signed.
            location: Where it belongs, if that may be another place than where it lies.
            surroundings: Who asks.
        """
        if surroundings.admin is None:
            yield Concern(None, True)
            return
        where = os.path.abspath(artifact.path) if artifact.path else location or artifact.uri
        with shown_as(where, location) if location and artifact.path else contextlib.nullcontext():
            found = guarding.managed(where, self._storages, tuple(names))
            yield None if found is None else Concern(found, found.enforced)

    def _ready(self, artifact: Handed, surroundings: Surroundings) -> None:
        """Open the key that will sign an output: a wrong one should not cost hours of work."""
        with self._judged(artifact, [artifact.name], "", surroundings) as concern:
            pass
        if concern is not None and concern.enforced:
            self._guarded[artifact.name] = os.path.realpath(os.path.dirname(artifact.path))
            if not self.given.output_file:
                raise UsageError("The executor input names no outputFile, so no evidence can be handed on.")
            canonical = self._storages.for_uri(artifact.path).canonical(artifact.path)
            open_signer(chosen_signer(canonical, surroundings))
            if self._sealed_for(artifact, concern, surroundings):
                _refuse_no_store(artifact, surroundings)

    def _admit(self, artifact: Handed, surroundings: Surroundings) -> None:
        expected = self._expected(artifact, surroundings)
        one = claimed(artifact, expected)
        place = self._planned_place(one or (expected[0] if expected else None))
        with self._judged(artifact, [item.name for item in expected], place, surroundings) as concern:
            if concern is None:
                self.untouched += 1
                return
            try:
                if concern.managed is None and surroundings.settings.identities is None:
                    raise UsageError(
                        "Neither a policy nor the mounted settings say who may have signed an input.",
                        code="IDENTITY_RULE_MISSING",
                        next_step="Mount settings with `identities`, or an admin's policy.",
                    )
                admitted = self._verify(artifact, one, expected, surroundings)
            except SealflowError as error:
                if concern.enforced:
                    raise
                say(f"Input {artifact} is not believed, which is only audited here: {error}")
                self.let_pass.append((f"input {artifact}", str(error)))
                if isinstance(error, VerificationError):
                    _say_findings(artifact, error.verdict)
                return
        _say_findings(artifact, admitted.verdict)
        relaxed = [item.line() for item in admitted.verdict.findings if item.code in RELAXED]
        if relaxed:
            # The policy let it pass; that is no proof, and the provenance does not name it.
            self.let_pass.append((f"input {artifact}", relaxed[0]))
            return
        self.admitted.append(admitted)
        say(f"Input {artifact}: {admitted.verdict.summary()} Digest {admitted.digest}.")

    def _verify(
        self, artifact: Handed, one: Expected | None, expected: list[Expected], surroundings: Surroundings
    ) -> Admitted:
        if not artifact.path:
            raise ArtifactError(f"{printable(artifact.uri)} lies where KFP shows no task its bytes.")
        # A pattern; what no pattern can spell the signed runs say below.
        producer = one.producer if one is not None and not any(sign in one.producer for sign in "*?[]\\") else None
        subject, options = case_of(artifact)
        stated: dict[str, Any] = {
            "name": one.name if one is not None else None,
            "producer": producer,
            "storages": self._storages,
        }
        path = artifact.path
        exclusive = options.pop("only_given_evidence", False)
        check = settle(subject, exclusive=exclusive, **stated, **options)
        if artifact.shared or check.surely_encrypted():
            folder = self._private(None if artifact.shared else artifact.path)
            path, checked = check_into(
                check, os.path.join(folder, os.path.basename(path.rstrip("/"))), "verify", None, None
            )
        else:
            checked = verify_artifact(subject, only_given_evidence=exclusive, **stated, **options)
            if not checked.verdict.passed:
                raise VerificationError(checked.verdict)
        refused = wrong_source(checked, expected)
        if refused is not None:
            context.forget_verified(surroundings.run, check.canonical)
            with Recording("verify", check.canonical, surroundings) as recording:
                recording.judged(refused.verdict)
            raise refused
        path = self._place(artifact, path)
        uri = self._name(check.canonical, artifact, surroundings)
        if (said := signed_metadata.in_file(path)) is not None:
            # Whatever type the metadata store gives it. The file is ours: KFP would have handed over none.
            self.metadata[artifact.key] = said
            _remove(path)
            path = ""
        else:
            self._judge_metadata(artifact, one, checked.verdict.digest)
        return Admitted(artifact, path, uri, checked.verdict.digest, checked.verdict)

    def _judge_metadata(self, artifact: Handed, one: Expected | None, digest: str) -> None:
        """Let the command see what metadata the producer signed.

        Where it is known who made an input, metadata that nobody signed is not handed on: whoever can take the
        signature away could have written it.
        """
        said: dict[str, Any] | None = None
        if signed_metadata.TEXT in artifact.metadata and one is not None:
            try:
                said = signed_metadata.verified_metadata(artifact, one, digest, self._private(), self._storages)
            except SealflowError as error:
                say(f"Input {artifact}: its metadata is not believed: {error}")
        if said is not None:
            self.metadata[artifact.key] = said
            return
        unsigned = sorted(signed_metadata.said_in(artifact.metadata))
        if unsigned:
            names = ", ".join(printable(key, 80) for key in unsigned[:8])
            left = "" if one is None else "; the command does not see it"
            say(f"Input {artifact}: nobody signed its metadata {names}{left}.")
            if one is not None:
                self.metadata[artifact.key] = {
                    key: value for key, value in artifact.metadata.items() if key not in unsigned
                }

    def _place(self, artifact: Handed, path: str) -> str:
        """Bring a verified copy to where the command finds it."""
        if path == artifact.path:
            return path
        if artifact.shared:
            self.moved[artifact.key] = path
            return path
        # Decrypted: nobody else sees this folder of the pod, so the place stays, and with it every argument.
        try:
            _remove(artifact.path)
            os.rename(path, artifact.path)
        except OSError as error:
            raise UnavailableError(f"{printable(artifact.path)} cannot be written: {error.strerror}.") from None
        return artifact.path

    def _private(self, beside: str | None = None) -> str:
        """Make a folder that only this user reaches; beside what is to be put in place, where a rename is enough."""
        import tempfile

        where = os.environ.get("SEALFLOW_TMPDIR") if beside is None else os.path.dirname(os.path.abspath(beside))
        try:
            folder = tempfile.mkdtemp(prefix="sealflow-" if beside is None else ".sealflow-", dir=where or None)
        except OSError as error:
            raise UnavailableError(
                f"The private copy cannot be written: {error.strerror}.",
                next_step="Point SEALFLOW_TMPDIR to a place with enough room, or mount one at /tmp.",
            ) from None
        self._folders.append(folder)
        return folder

    @staticmethod
    def _name(canonical: str, artifact: Handed, surroundings: Surroundings) -> str:
        """Let provenance name an input by its location in the store, which others can open, not by this pod's."""
        if not is_remote(artifact):
            return canonical
        for item in context.verified_inputs(surroundings.run):
            if item.uri == canonical:
                context.forget_verified(surroundings.run, canonical)
                context.remember_verified(surroundings.run, item._replace(uri=artifact.uri))
        return artifact.uri

    def _still(self, admitted: Admitted, surroundings: Surroundings) -> None:
        """Forget an input that the command changed: nobody can say what the outputs were made from."""
        if not admitted.path:
            return
        found = ""
        storage = self._storages.for_uri(admitted.path)
        with contextlib.suppress(ArtifactError):
            location = storage.locate(admitted.path)
            found = "" if location is None else str(build_manifest(storage, location).digest)
        if found != admitted.digest:
            context.forget_verified(surroundings.run, admitted.uri)
            self.changed.append(str(admitted.artifact))
            say(f"Input {admitted.artifact} was changed by the command; the provenance does not name it.")

    def _chosen(self, output: ExecutorOutput) -> list[tuple[Handed, str]]:
        """Return each output as it lies in the end, and the place apart that the command chose for its bytes, if any.

        Raises:
            EvidenceError: A place that cannot be.
            ArtifactError: Places overlap: to sign one output would change the other.
        """
        found, places = [], [self.given.output_file] if self.given.output_file else []
        for artifact in self.given.outputs.values():
            uri, custom = output.place(artifact)
            if uri != artifact.uri:
                artifact = replace(artifact, uri=uri, path=path_of(uri, artifact.name))
            found.append((artifact, custom))
            places += [path for path in (artifact.path, custom) if path]
            if artifact.path and custom and os.path.abspath(custom) == os.path.abspath(artifact.path):
                places.pop()
        try:
            refuse_nested(places)
            refuse_nested([custom for _, custom in found if custom], [item.path for item in self.given.inputs])
        except UsageError as error:
            raise ArtifactError(error.message) from None
        return found

    def _seal(self, artifact: Handed, custom: str, output: ExecutorOutput, surroundings: Surroundings) -> None:
        declared = self.given.outputs[artifact.name]
        belongs = location_of(declared.path) if artifact.uri != declared.uri else ""
        with self._judged(artifact, [artifact.name], belongs, surroundings) as concern:
            if concern is None:
                self.untouched += 1
                return
            try:
                signed = self._sign(artifact, custom, output, concern, surroundings)
                added = {} if signed is None else self._added(artifact, output, signed)
            except SealflowError as error:
                if concern.enforced:
                    raise
                output.settle(artifact, {}, signed_metadata.OURS)
                say(f"Output {artifact} is not signed, which is only audited here: {error}")
                self.let_pass.append((f"output {artifact}", str(error)))
                return
        if signed is None:
            if output.entry(artifact.name) is not None:
                output.settle(artifact, {}, signed_metadata.OURS)
            say(f"Output {artifact} was not made; there is nothing to sign.")
            return
        output.settle(artifact, added, signed_metadata.OURS)
        self.sealed.append((artifact.name, signed))
        say(f"Output {artifact} is signed: {signed.ref.digest}")

    def _added(self, artifact: Handed, output: ExecutorOutput, signed: Signed) -> dict[str, str]:
        """Return what is added to an output's metadata: its provenance, and its other metadata signed."""
        found = {KEY: EvidenceMetadata(signed.ref.digest, signed.provenance).to_text()}
        said = signed_metadata.said_in(output.metadata(artifact))
        if not said or artifact.name in self._metadata_files:
            return found
        digest = str(signed.ref.digest)
        return found | signed_metadata.sign_metadata(artifact, said, digest, self._private(), self._storages)

    def _sign(
        self, artifact: Handed, custom: str, output: ExecutorOutput, concern: Concern, surroundings: Surroundings
    ) -> Signed | None:
        if not artifact.path:
            raise ArtifactError(f"{printable(artifact.uri)} lies where nobody here reads its bytes.")
        if any(f"{artifact.path}/".startswith(f"{folder}/") for folder in self._folders):
            raise ArtifactError(f"The output {artifact} is the private copy of an input, which ends with the task.")
        if custom:
            _bring(custom, artifact.path)
        if not _is_made(artifact.path):
            said = signed_metadata.said_in(output.metadata(artifact))
            if not said:
                return None
            data = signed_metadata.as_file(artifact, said)
            _remove(artifact.path)
            _make_folder(artifact.path)
            replace_file(artifact.path, data)
            self._metadata_files.add(artifact.name)
        if not self._sealed_for(artifact, concern, surroundings):
            return sign_artifact(artifact.path, name=artifact.name, storages=self._storages)
        _refuse_no_store(artifact, surroundings)
        from sealflow.actions.upload import upload_artifact

        path = artifact.path.rstrip("/")
        folder = self._private(path)
        clear = os.path.join(folder, os.path.basename(path))
        try:
            os.rename(path, clear)
        except OSError as error:
            raise UnavailableError(f"{printable(path)} cannot be moved: {error.strerror}.") from None
        return upload_artifact(clear, path, name=artifact.name, storages=self._storages, overwrite=True)

    def _sealed_for(self, artifact: Handed, concern: Concern, surroundings: Surroundings) -> bool:
        """Tell whether an output is encrypted."""
        if concern.managed is not None:
            demands = concern.managed.policies.ruling(Arguments(), [artifact.name]).requirement.recipients
            if any(item.encrypted or item.required for item in demands):
                return True
        return bool(recipient_uris(surroundings.settings.recipients)) and artifact.kind not in SHOWN_KINDS

    def _write_page(self, surroundings: Surroundings) -> None:
        if self.given.page is None or not self.given.page.path:
            return
        from sealflow_kfp.page import make_page

        run = surroundings.run
        text = make_page(run.producer, run.run, self)
        _make_folder(self.given.page.path)
        replace_file(self.given.page.path, text.encode("utf-8"))

    def _hand_back(self, data: bytes) -> None:
        _make_folder(self.given.output_file)
        replace_file(self.given.output_file, data)


def say(text: str) -> None:
    """Write a line into the task's log."""
    print(f"sealflow: {text}", file=sys.stderr, flush=True)


def _say_findings(artifact: Handed, verdict: Verdict) -> None:
    for finding in [item for item in verdict.findings if item.severity != "note"][:MAX_SAID]:
        say(f"Input {artifact}: {finding.line()}")


def _is_made(path: str) -> bool:
    """Tell whether an output is there: a folder without files is none to KFP, which uploads files."""
    if os.path.isdir(path) and not os.path.islink(path):
        return any(
            files or any(os.path.islink(os.path.join(root, name)) for name in folders)
            for root, folders, files in os.walk(path)
        )
    return os.path.lexists(path)


def _bring(custom: str, path: str) -> None:
    """Bring what the command made at a place of its own to the place that belongs to the output."""
    if os.path.abspath(custom) == os.path.abspath(path) or not os.path.lexists(custom):
        return
    import shutil

    try:
        _remove(path)
        _make_folder(path)
        # Links are brought as links, which nobody signs.
        shutil.move(
            custom, path, copy_function=lambda source, target: shutil.copy2(source, target, follow_symlinks=False)
        )
    except OSError as error:
        raise UnavailableError(
            f"{printable(custom)} cannot be brought to {printable(path)}: {error.strerror}."
        ) from None


def _refuse_no_store(artifact: Handed, surroundings: Surroundings) -> None:
    if is_remote(artifact) and not surroundings.settings.evidence_store:
        raise UsageError(
            f"The output {artifact} has to be encrypted, and no evidence store is set: KFP carries no evidence that "
            "is larger than metadata.",
            next_step="Set `evidence_store` in the mounted settings.",
        )


def _odd(what: str, expected: str) -> UsageError:
    return UsageError(
        f"This task is not the one that was planned: {what}; expected {printable(expected)}.",
        next_step="Harden the pipeline again, as it is run.",
    )


def _make_folder(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{printable(path)} cannot be written: {error.strerror}.") from None


def _remove(path: str) -> None:
    path = path.rstrip("/")
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
