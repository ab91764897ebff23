"""One request to S3, and what its refusals mean: shared by what reads whole objects and what moves large ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sealflow.errors import UnavailableError
from sealflow.findings import printable

#: How often one read is taken up again after its connection broke.
RESUMES: Final = 4

GONE: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})
CONFLICT: Final = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
BEYOND: Final = frozenset({"416", "InvalidRange", "RequestedRangeNotSatisfiable"})
#: A HEAD has no body, so its refusals are numbers.
DENIED: Final = frozenset(
    {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoCredentialsError"}
)
EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "CredentialRetrievalError",
     "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"}
)  # fmt: skip
_ELSEWHERE = frozenset(
    {"301", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
     "IllegalLocationConstraintException", "NoSuchBucket"}
)  # fmt: skip
_FULL = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"})
_BUSY = frozenset({"SlowDown", "503", "ServiceUnavailable", "Throttling", "RequestLimitExceeded", "TooManyRequests"})


class Refused(Exception):  # noqa: N818 - an answer, caught where it is asked for; nobody else ever sees it
    """A refusal that the caller named as one that it understands.

    Attributes:
        code: The store's own word.
        retried: The request was sent more than once, so the refusal may speak of what an earlier one did.
    """

    def __init__(self, code: str, *, retried: bool) -> None:
        super().__init__(code)
        self.code = code
        self.retried = retried


@dataclass(frozen=True)
class Place:
    """One object's place, and the client that reaches it.

    Attributes:
        client: A boto3 S3 client.
        uri: Canonical location.
        bucket: The bucket's name.
        key: Literal, as S3 knows it.
        owner: Number of the account that must own the bucket, ``None`` where nobody said.
    """

    client: Any
    uri: str
    bucket: str
    key: str
    owner: str | None = None

    @property
    def in_bucket(self) -> dict[str, str]:
        """The arguments of a request to the bucket."""
        return {"Bucket": self.bucket} | ({"ExpectedBucketOwner": self.owner} if self.owner else {})

    @property
    def where(self) -> dict[str, str]:
        """The arguments of a request to the object."""
        return self.in_bucket | {"Key": self.key}

    def call(self, operation: str, *known: frozenset[str], **arguments: Any) -> Any:
        """Send a request, and return the answer.

        Args:
            operation: Name of the client's method.
            known: Refusals that the caller understands.
            **arguments: Of the method.

        Raises:
            Refused: One of the known refusals.
            UnavailableError: Any other.
        """
        from botocore.exceptions import ClientError

        try:
            return getattr(self.client, operation)(**arguments)
        except ClientError as error:
            code = code_of(error)
            if any(code in codes for codes in known):
                raise Refused(code, retried=retried(error)) from None
            raise translate(error, self.uri) from None
        except failures() as error:
            raise translate(error, self.uri) from None


_RAISE: Any = object()


def call(uri: str, request: Callable[[], Any], *, gone: Any = _RAISE, conflict: Any = _RAISE) -> Any:
    """Send a request, and return its answer, or what the caller puts for an object that is not or is there.

    Raises:
        UnavailableError: Any other refusal.
    """
    from botocore.exceptions import ClientError

    try:
        return request()
    except ClientError as error:
        code = code_of(error)
        if code in GONE and gone is not _RAISE:
            return gone
        if code in CONFLICT and conflict is not _RAISE:
            return conflict
        raise translate(error, uri) from None
    except failures() as error:
        raise translate(error, uri) from None


def code_of(error: Exception) -> str:
    """Return the store's own word for a refusal, or the name of what happened to the request."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or "") or type(error).__name__


def retried(error: Exception) -> bool:
    """Tell whether a request was sent more than once."""
    response = getattr(error, "response", None) or {}
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def failures() -> tuple[type[Exception], ...]:
    """Return what a request raises that got no answer."""
    from botocore.exceptions import BotoCoreError, HTTPClientError

    return BotoCoreError, HTTPClientError


def broken() -> tuple[type[Exception], ...]:
    """Return what a connection that breaks raises while an answer is read."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError, OSError


def translate(error: Exception, uri: str) -> UnavailableError:
    """Return what the store said as an error of ours."""
    shown = printable(uri)
    code = code_of(error)
    said = printable(code, 80)
    if code in EXPIRED:
        return UnavailableError(
            f"The credentials for {shown} have expired ({said}).",
            code="CREDENTIALS_EXPIRED",
            next_step="Renew them (sign in again, or let the role be assumed anew), then go on.",
        )
    if code in DENIED:
        return UnavailableError(
            f"S3 refused access to {shown} ({said}).",
            code="PERMISSION_DENIED",
            next_step="Check credentials, bucket policy and KMS permissions of this process.",
        )
    if code in _ELSEWHERE:
        region = _region(getattr(error, "response", None) or {})
        return UnavailableError(
            f"S3 does not serve {shown} here ({said})." + (f" The bucket lies in {region}." if region else ""),
            next_step=f"Set AWS_REGION={region}." if region else "Check the bucket's name, region and endpoint.",
        )
    if code in _FULL:
        return UnavailableError(
            f"The store has no room for {shown} ({said}).",
            code="NO_SPACE",
            next_step="Remove objects and unfinished uploads, or raise the quota, then try again.",
        )
    if code in _BUSY:
        return UnavailableError(
            f"S3 is too busy for {shown} ({said}), and was so at every attempt.",
            next_step="Try again later, with fewer transfers at the same time.",
        )
    if code == "MissingContentLength":
        return UnavailableError(
            f"The store of {shown} knows no trailing checksums ({said}), and the client that was handed in adds them.",
            next_step="Set `request_checksum_calculation` to `when_required` where the client is configured.",
        )
    if code == "RequestTimeTooSkewed":
        return UnavailableError(f"S3 refused {shown}: the clock of this machine is wrong.", next_step="Set the clock.")
    return UnavailableError(
        f"S3 failed for {shown} ({said}).", next_step="Try again; check the endpoint if it persists."
    )


def _region(response: Mapping[str, Any]) -> str:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return printable(headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region") or "", 40)
