"""Questions to AWS that change nothing: one request each, and an answer where others raise.

Who asks how something is set up must tell three things apart: what a service said, that nothing is set, and that nobody
could be asked. The last is an answer here, and never looks like one of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from sealflow.aws_client import make_client
from sealflow.findings import printable
from sealflow.storage.s3_call import DENIED, EXPIRED, code_of, failures

# The domains of AWS's partitions, as botocore lists them.
_AWS: Final = re.compile(
    r"(^|\.)(amazonaws\.(com|com\.cn|eu)|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$"
)

#: Makes a boto3 client: name of the service, region or ``None``.
Clients = Callable[[str, str | None], Any]

# What stores that are not AWS say of what they never heard of.
_UNKNOWN_CALL: Final = frozenset(
    {
        "NotImplemented",
        "XNotImplemented",
        "MethodNotAllowed",
        "405",
        "501",
        "InvalidAction",
        "UnknownOperationException",
    }
)
_REFUSED: Final = frozenset(
    {"AccessDeniedException", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException",
     "AuthorizationError", "UnauthorizedOperation", "IncompleteSignature"}
)  # fmt: skip
_BUSY: Final = frozenset(
    {"SlowDown", "503", "ServiceUnavailable", "Throttling", "ThrottlingException", "ThrottledException",
     "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "LimitExceededException"}
)  # fmt: skip
_GONE: Final = frozenset({"NoSuchBucket"})


@dataclass(frozen=True)
class Answer:
    """What a service said.

    Attributes:
        body: Its words, ``None`` where nothing is set or nobody could be asked.
        problem: Why nobody knows, one sentence; empty when the service answered.
        next_step: What can be done about the problem.
        code: The service's own word for a refusal.
    """

    # Not in the repr: policies name people.
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    problem: str = ""
    next_step: str = ""
    code: str = ""

    @property
    def known(self) -> bool:
        """Whether the service answered."""
        return not self.problem


def default_clients(service: str, region: str | None) -> Any:
    """Make a client from the process's own configuration.

    Raises:
        MissingExtraError: The extra ``boto3`` is not installed.
        UsageError: The configuration cannot work.
    """
    return make_client(
        f"AWS ({service})",
        service,
        region=region,
        config={"retries": {"mode": "standard", "max_attempts": 5}, "connect_timeout": 10, "read_timeout": 30},
    )


def is_aws(client: Any) -> bool:
    """Tell whether a client talks to AWS itself, and not to a store or a service that speaks its language."""
    return is_aws_url(str(client.meta.endpoint_url))


def is_aws_url(url: str) -> bool:
    """Tell whether a URL is one of AWS itself."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return _AWS.search(host) is not None


def ask(
    client: Any, operation: str, permission: str, *, absent: frozenset[str] = frozenset(), **arguments: Any
) -> Answer:
    """Send one request that reads a setting.

    Args:
        client: A boto3 client; it repeats what was throttled or broke.
        operation: Name of the client's method.
        permission: The IAM action that allows it, for the message.
        absent: Refusals that say that nothing is set.
        **arguments: Of the method.
    """
    from botocore.exceptions import ClientError
    from botocore.parsers import ResponseParserError

    try:
        body = getattr(client, operation)(**arguments)
    except ClientError as error:
        code = code_of(error)
        return Answer(code=code) if code in absent else _refused(code, operation, permission)
    except failures() as error:
        code = code_of(error)
        return _refused(code, operation, permission)
    except (ResponseParserError, ValueError, SyntaxError, LookupError, TypeError, AttributeError) as error:
        # botocore's own handlers fall over bodies that they do not expect, each in its way (XML: a SyntaxError).
        return unread(operation, type(error).__name__)
    if not isinstance(body, Mapping):
        return unread(operation, type(body).__name__)
    if body.get("IsTruncated") or body.get("Truncated") or body.get("NextToken") or body.get("NextMarker"):
        # None of what is asked for here comes in pages; what does is not all there is.
        return unread(operation, "a part of the answer")
    return Answer({name: value for name, value in body.items() if name != "ResponseMetadata"})


def unread(operation: str, what: str) -> Answer:
    """Return the answer to a question whose answer has a form that nobody here knows."""
    return Answer(
        problem=f"The answer to {operation} has an unknown form ({printable(what, 80)}).",
        next_step="Look at the setting yourself; what answers here may not be AWS.",
        code="UnknownForm",
    )


def _refused(code: str, operation: str, permission: str) -> Answer:
    said = printable(code, 80)
    if code in EXPIRED:
        problem, step = "The credentials have expired", "Renew them, then try again."
    elif code in DENIED or code in _REFUSED:
        problem = f"{operation} was refused"
        step = f"Allow this process {permission}, or ask as the account that owns it." if permission else ""
    elif code in _BUSY:
        problem, step = f"{operation} was throttled, at every attempt", "Try again later."
    elif code in _UNKNOWN_CALL:
        problem = f"The store does not know {operation}"
        step = "Skip the check with the reason why this does not matter here, or use a store that can say."
    elif code in _GONE:
        problem, step = "There is no such bucket", "Check the bucket's name, region and endpoint."
    else:
        problem, step = f"{operation} failed", "Try again; check region and endpoint if it persists."
    return Answer(problem=f"{problem} ({said}).", next_step=step or "Check the credentials.", code=code)
