"""Questions to a cluster through ``kubectl``, which change nothing; whatever goes wrong is an answer, never a crash.

Three things are told apart: what the cluster said, that there is no such thing, and that nobody could be asked. The
content of secrets is never asked for. What comes back was written by whoever may write to the cluster: it is limited in
size and time and parsed strictly.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.findings import printable

#: Largest answer that is read: all cluster roles of a large cluster have some MiB.
MAX_ANSWER: Final = 32 << 20
_MAX_DIAGNOSTICS: Final = 16 << 10
_CHUNK: Final = 1 << 16

#: What kubectl writes before a refusal, with its reason where there is one.
_FROM_SERVER: Final = re.compile(r"Error from server(?: \(([A-Za-z]{1,60})\))?:")
_YES_OR_NO: Final = re.compile(rb"(yes|no)(?: - [^\n]*)?\n")
_PROGRAM: Final = "Check which program --kubectl names."
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_NO_KIND: Final = "the server doesn't have a resource type"


@dataclass(frozen=True)
class Answer:
    """What the cluster said.

    Attributes:
        body: The object, ``None`` where there is none or nobody could be asked.
        problem: Why nobody knows, one sentence; empty where the cluster answered.
        next_step: What can be done about the problem.
        refusal: What the cluster answered to a request that it did not carry out; empty otherwise.
    """

    # Not in the repr: objects of a cluster name people.
    body: Any = field(default=None, repr=False)
    problem: str = ""
    next_step: str = ""
    refusal: str = ""

    @property
    def known(self) -> bool:
        """Whether the cluster answered."""
        return not self.problem


class Kubectl:
    """A cluster, seen through kubectl. The same question is asked once.

    Args:
        program: Path or name of kubectl.
        context: Context of the kubeconfig; by default the current one.
        timeout: Seconds that one question may take.
        budget: Seconds that all questions together may take.
    """

    def __init__(
        self, program: str = "kubectl", context: str | None = None, *, timeout: float = 20, budget: float = 180
    ) -> None:
        self._program = program
        self._options = [f"--request-timeout={max(1, int(timeout))}s", *([f"--context={context}"] if context else [])]
        self._timeout = timeout
        self._end = time.monotonic() + budget
        self._asked: dict[tuple[str, ...], Answer] = {}
        #: What made every question useless: no kubectl, nobody there.
        self._broken: Answer | None = None

    def get(self, kind: str, name: str = "", namespace: str = "") -> Answer:
        """Return an object, or the list of all of its kind; a body of ``None`` says that it is not there.

        Args:
            kind: Resource, with its group where it is not of the core.
            name: Name of the object; all of the kind where it is empty.
            namespace: Namespace; ``*`` for all of them, empty for resources that have none.
        """
        where = ["--all-namespaces"] if namespace == "*" else [f"--namespace={namespace}"] if namespace else []
        return self._json("get", kind, *([name] if name else []), *where, "--output=json")

    def several(self, kind: str, names: Sequence[str], namespace: str) -> Answer:
        """Return objects by their names: one, or a list of kind ``List``; ``None`` where none is there any more."""
        question = ("get", kind, *names, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
        answer = self._ask(question)
        return Answer() if answer.known and not answer.body else self._json(*question)

    def rows(self, kind: str, namespace: str = "*", columns: Mapping[str, str] = _NONE) -> Answer:
        """Return all objects of a kind as a table, each row a list of words; ``None`` where there is no such kind.

        Args:
            kind: Resource, with its group.
            namespace: Namespace; ``*`` for all of them, whose names then stand first.
            columns: Paths in an object by the titles of the columns; by default the server chooses, and sends no more
                than that.
        """
        where = "--all-namespaces" if namespace == "*" else f"--namespace={namespace}"
        shape = ",".join(f"{title}:{path}" for title, path in columns.items())
        # Whole objects are sent for columns of our own, so no more than some at a time.
        chosen = ["--chunk-size=100", f"--output=custom-columns={shape}"] if shape else []
        answer = self._ask(("get", kind, where, "--no-headers", *chosen))
        if not answer.known or answer.body is None:
            return answer
        return Answer(body=[line.split() for line in answer.body.decode("utf-8", "replace").splitlines()])

    def raw(self, path: str) -> Answer:
        """Return what lies at a path of the API server; a body of ``None`` says that nothing does."""
        return self._json("get", f"--raw={path}")

    def text(self, path: str) -> Answer:
        """Return what lies at a path of the API server, as bytes."""
        return self._ask(("get", f"--raw={path}"))

    def exists(self, kind: str, name: str, namespace: str) -> Answer:
        """Return an object's name, ``None`` where there is none; not its content: the server sends a table of names."""
        answer = self._ask(("get", kind, name, f"--namespace={namespace}", "--no-headers"))
        if not answer.known or answer.body is None:
            return answer
        if answer.body.split()[:1] != [name.encode()]:
            return Answer(problem="What kubectl printed is not understood: no table.", next_step=_PROGRAM)
        return Answer(body=name)

    def can(self, who: str, verb: str, resource: str, namespace: str) -> Answer:
        """Tell by the body whether somebody may do something; asks in his name."""
        where = [f"--namespace={namespace}"] if namespace else []
        answer = self._ask(("auth", "can-i", verb, resource, f"--as={who}", *where), statuses=(0, 1))
        if not answer.known:
            return answer
        said = _YES_OR_NO.match(answer.body or b"")
        if said is None:
            return Answer(problem="kubectl auth can-i says neither yes nor no.", next_step="Ask it yourself.")
        return Answer(body=said[1] == b"yes")

    def try_out(self, document: bytes) -> Answer:
        """Have the cluster judge an object that is to be made, and not make it (``--dry-run=server``)."""
        return self._ask(
            ("create", "--dry-run=server", "--validate=false", "--output=name", "--filename=-"), given=document
        )

    def _json(self, *arguments: str) -> Answer:
        answer = self._ask(arguments)
        if not answer.known or answer.body is None:
            return answer
        if isinstance(answer.body, bytes):
            try:
                body = strictjson.loads(answer.body, limit=MAX_ANSWER, what="The answer of kubectl")
            except EvidenceError as error:
                problem = printable(f"What kubectl printed is not understood: {error.message}", 300)
                answer = Answer(problem=problem, next_step=_PROGRAM)
            else:
                odd = Answer(problem="What kubectl printed is not understood: no object.", next_step=_PROGRAM)
                answer = Answer(body=body) if isinstance(body, dict) else odd
            self._asked[arguments] = answer
        return answer

    def _ask(self, arguments: tuple[str, ...], *, statuses: tuple[int, ...] = (0,), given: bytes = b"") -> Answer:
        key = (*arguments, given.decode("utf-8", "replace")) if given else arguments
        if self._broken is not None:
            return self._broken
        if key not in self._asked:
            left = self._end - time.monotonic()
            if left <= 0:
                self._broken = Answer(problem="The time for all questions is over.", next_step="Raise --time-limit.")
                return self._broken
            self._asked[key] = self._run(arguments, min(self._timeout, left), statuses, given)
        return self._asked[key]

    def _run(self, arguments: tuple[str, ...], seconds: float, statuses: tuple[int, ...], given: bytes) -> Answer:
        try:
            status, output, said, problem = self._call([*self._options, *arguments], given, seconds)
        except OSError as error:
            problem = f"{printable(self._program, 200)} cannot be started: {error.strerror}."
            self._broken = Answer(problem=problem, next_step="Install kubectl, or name it by --kubectl.")
            return self._broken
        if problem:
            return Answer(problem=problem, next_step="Raise --timeout, or look whether the cluster is well.")
        if status in statuses and not (status and not output):
            return Answer(body=output)
        return self._failure(said.decode("utf-8", "replace"))

    def _call(self, arguments: list[str], given: bytes, seconds: float) -> tuple[int, bytes, bytes, str]:
        """Run kubectl once; the last member says which limit it broke.

        Raises:
            OSError: It cannot be started.
        """
        process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            [self._program, *arguments],
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own, so that its helpers for credentials end with it.
            start_new_session=True,
        )
        try:
            output, said, problem = _communicate(process, given, seconds + 1)
        finally:
            _end(process)
        return process.returncode, output, said, problem

    def _failure(self, said: str) -> Answer:
        line = printable(next((text for text in said.splitlines() if text.strip()), "kubectl said nothing"), 300)
        reason = ""
        for text in said.splitlines():
            match = _FROM_SERVER.match(text)
            if match is not None:
                line, reason = printable(text, 1000), match[1] or "refused"
                break
        if reason == "NotFound" or _NO_KIND in said:
            return Answer()
        if reason == "Forbidden" and "User " in line and " cannot " in line:
            return Answer(problem=line, next_step="Run it with the rights that the reference names.", refusal=line)
        if reason:
            return Answer(problem=line, next_step="Look at the cluster yourself.", refusal=line)
        answer = Answer(problem=line, next_step="Check --context and the kubeconfig, and that the cluster is up.")
        if "connect" in said or "context" in said or "logged in" in said or "kubeconfig" in said:
            # Every other question would wait as long, and say the same.
            self._broken = answer
        return answer


def _communicate(process: subprocess.Popen[bytes], given: bytes, seconds: float) -> tuple[bytes, bytes, str]:
    """Read what a program writes under limits; the last member says which of them it broke."""
    assert process.stdout is not None  # noqa: S101 - a pipe
    assert process.stderr is not None  # noqa: S101 - a pipe
    if process.stdin is not None:
        # A page of text: it fits into the pipe, whatever the program does.
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
    end = time.monotonic() + seconds
    output, said = bytearray(), bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ, (output, MAX_ANSWER))
        waiting.register(process.stderr, selectors.EVENT_READ, (said, None))
        while waiting.get_map():
            left = end - time.monotonic()
            if left <= 0:
                return b"", b"", "kubectl did not answer in time."
            for key, _ in waiting.select(left):
                data = os.read(key.fd, _CHUNK)
                if not data:
                    waiting.unregister(key.fileobj)
                    continue
                kept, limit = key.data
                if limit is None:
                    kept += data[: max(0, _MAX_DIAGNOSTICS - len(kept))]
                    continue
                kept += data
                if len(kept) > limit:
                    return b"", b"", f"kubectl answers with more than {MAX_ANSWER >> 20} MiB."
    try:
        process.wait(max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return b"", b"", "kubectl did not end in time."
    return bytes(output), bytes(said), ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        # Not waited for, so its number is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
