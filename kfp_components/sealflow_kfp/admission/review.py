"""AdmissionReview v1: read strictly, answered plainly (``admission.k8s.io/v1``)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow_kfp.admission import quickjson

API_VERSION: Final = "admission.k8s.io/v1"
#: Largest request in bytes. A stored object has at most 1.5 MiB, and an update brings two.
MAX_BODY: Final = 4 << 20
#: Most commas and brackets of one: parsed, an empty list takes twenty times its three bytes.
MAX_VALUES: Final = 600_000

#: Longest message and warning, and most warnings, in characters: the API server cuts what is longer, or drops it.
MAX_MESSAGE: Final = 3000
MAX_WARNING: Final = 240
MAX_WARNINGS: Final = 15

_UID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: One operation of RFC 6902.
Operation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Review:
    """What an API server asks.

    Attributes:
        uid: Its question's id, which the answer repeats.
        group: API group of the object; empty for Pods.
        version: Its version.
        kind: Its kind.
        subresource: The part that is written, empty for the object itself.
        operation: ``CREATE``, ``UPDATE``, ``DELETE`` or ``CONNECT``.
        namespace: Its namespace.
        name: Its name; empty while the server has yet to make one.
        user: Who asks, as the API server knows him.
        body: The object, ``None`` for deletions.
        old: The object before an update.
    """

    uid: str
    group: str
    version: str
    kind: str
    subresource: str
    operation: str
    namespace: str
    name: str
    user: str
    body: Any
    old: Any

    @property
    def subject(self) -> str:
        """The object's name for messages."""
        meta = self.body.get("metadata") if isinstance(self.body, dict) else None
        meta = meta if isinstance(meta, dict) else {}
        name = self.name or meta.get("name") or meta.get("generateName") or "without a name"
        return f"{self.kind} {printable(self.namespace, 64)}/{printable(name, 253)}"


def read_review(body: bytes) -> Review:
    """Read a request.

    Raises:
        EvidenceError: Too large, not strict JSON, or no AdmissionReview of version 1 with a request.
    """
    what = "The request"
    review = quickjson.loads(body, limit=MAX_BODY, what=what, most_values=MAX_VALUES)
    version = strictjson.member(review, "apiVersion", str, what)
    kind = strictjson.member(review, "kind", str, what)
    if (version, kind) != (API_VERSION, "AdmissionReview"):
        raise EvidenceError(
            f"The request is a {printable(kind, 60)} of {printable(version, 60)}, not an AdmissionReview."
        )
    request = strictjson.member(review, "request", dict, what)
    uid = strictjson.member(request, "uid", str, what)
    if _UID.fullmatch(uid) is None:
        raise EvidenceError("The request's uid is none.")
    kinds = strictjson.member(request, "kind", dict, what)
    user = strictjson.member(request, "userInfo", dict, what, required=False) or {}

    def text(obj: dict[str, Any], name: str, required: bool = False) -> str:
        return strictjson.member(obj, name, str, what, required=required) or ""

    return Review(
        uid=uid,
        group=text(kinds, "group"),
        version=text(kinds, "version", True),
        kind=text(kinds, "kind", True),
        subresource=text(request, "subResource"),
        operation=text(request, "operation", True),
        namespace=text(request, "namespace"),
        name=text(request, "name"),
        user=text(user, "username"),
        body=request.get("object"),
        old=request.get("oldObject"),
    )


def answer(
    uid: str,
    *,
    allowed: bool,
    message: str = "",
    warnings: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    operations: Sequence[Operation] = (),
) -> bytes:
    """Return the answer to a request.

    Args:
        uid: The request's.
        allowed: Whether the object is taken.
        message: Why not; for refusals.
        warnings: What the API server tells whoever asked.
        annotations: What it writes to its audit log.
        operations: What is changed, for allowed objects.
    """
    response: dict[str, Any] = {"uid": uid, "allowed": allowed}
    if not allowed:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": printable_lines(message, MAX_MESSAGE)}
    if warnings:
        told = [printable(warning, MAX_WARNING) for warning in warnings[:MAX_WARNINGS]]
        if len(warnings) > MAX_WARNINGS:
            told[-1] = f"sealflow: {len(warnings) - MAX_WARNINGS + 1} more warnings."
        response["warnings"] = told
    if annotations:
        response["auditAnnotations"] = {name: printable(text, MAX_MESSAGE) for name, text in annotations.items()}
    if allowed and operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(quickjson.dumps(list(operations))).decode("ascii")
    return quickjson.dumps({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})


def printable_lines(text: str, limit: int) -> str:
    """Return text of several lines, safe to show and cut at the limit."""
    shown = "\n".join(printable(line, 1200) for line in text.split("\n"))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
