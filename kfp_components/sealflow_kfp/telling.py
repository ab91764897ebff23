"""Says why a task was stopped, where people look: at the end of its log, and in what Kubernetes keeps of a pod.

KFP drops the outputs of a failed task; its log and the pod's termination message are all that is left of it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sealflow import strictjson
from sealflow.errors import SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.findings import printable

if TYPE_CHECKING:
    from sealflow.findings import Verdict

RULE: Final = "─" * 100
#: Kubernetes keeps so many bytes of a termination message.
MAX_TERMINATION: Final = 4096
#: Where Kubernetes reads it, unless the pod names another place, which it then says in the variable.
TERMINATION_LOG: Final = "/dev/termination-log"
TERMINATION_VARIABLE: Final = "SEALFLOW_TERMINATION_LOG"


def status_of(errors: Sequence[SealflowError], *, refused: int, misconfigured: int, unavailable: int) -> int:
    """Return the exit status for what is wrong: what is known to be wrong outweighs what nobody can say."""
    kinds = [_kind(error) for error in errors]
    if "refused" in kinds:
        return refused
    return misconfigured if "misconfigured" in kinds else unavailable


def tell(errors: Sequence[SealflowError], status: int) -> None:
    """Write the block at the end of standard error, and a shorter one for Kubernetes."""
    print("\n".join(block(error) for error in errors), file=sys.stderr)
    print(
        f"sealflow: the task ends with status {status}; KFP keeps its log and no output.", file=sys.stderr, flush=True
    )
    terminate("\n".join(in_few_lines(error) for error in errors))


def terminate(text: str) -> None:
    """Leave a message for whoever looks at the pod, in the size that Kubernetes keeps."""
    path = os.environ.get(TERMINATION_VARIABLE) or TERMINATION_LOG
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # outside of a pod there is none
    with open(fd, "wb") as file:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            file.write(shortened(text))


def block(error: SealflowError) -> str:
    """Return an error as a block for people."""
    if isinstance(error, VerificationError):
        return readable(error.verdict)
    lines = ["", RULE, f"sealflow: {_kind(error).upper()}", f"  {error.code}  {printable(error.message, 2048)}"]
    if error.next_step:
        lines.append(f"  next_step {printable(error.next_step, 2048)}")
    return "\n".join([*lines, RULE])


def in_few_lines(error: SealflowError) -> str:
    """Return an error as a few lines."""
    if not isinstance(error, VerificationError):
        return f"sealflow {_kind(error)}: {printable(error, 1024)}"
    lines = [f"sealflow {error.verdict.status}: {error.verdict.artifact}"]
    lines += [item.line() for item in error.verdict.findings if item.severity in ("refusal", "unverifiable")]
    return "\n".join([*lines, f"Next: {error.next_step}"] if error.next_step else lines)


def shortened(text: str, limit: int = MAX_TERMINATION) -> bytes:
    """Return the text in at most so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data
    end = "\n…".encode()
    return data[: limit - len(end)].decode("utf-8", "ignore").encode("utf-8") + end


def readable(verdict: Verdict) -> str:
    """Return a verdict as a block for people that ends with its JSON form on one line, for programs."""
    rows = [("artifact", verdict.artifact), ("digest", verdict.digest), ("name", verdict.name)]
    rows += [("producer", verdict.producer), ("run", verdict.run)]
    rows += [("signed by", f"{item.identity} ({item.kind}, key {item.key})") for item in verdict.signers]
    lines = ["", RULE, f"sealflow: {verdict.status.upper()}"]
    lines += [f"  {label:<10}{value}" for label, value in rows if value]
    for finding in verdict.as_dict()["findings"]:
        lines.append(f"  {finding['severity']:<10}{finding['code']}  {finding['subject']}")
        lines.append(f"  {'':<10}{finding['message']}")
        lines += [f"  {'':<10}{key}: {finding[key]}" for key in ("expected", "found", "next_step") if key in finding]
    lines += [f"  verdict   {strictjson.dumps(verdict.as_dict()).decode('utf-8')}", RULE]
    return "\n".join(lines)


def _kind(error: SealflowError) -> str:
    if isinstance(error, VerificationError):
        return "refused" if error.verdict.status == "failed" else "unverifiable"
    if isinstance(error, UnavailableError):
        return "unverifiable"
    return "misconfigured" if isinstance(error, UsageError) else "refused"
