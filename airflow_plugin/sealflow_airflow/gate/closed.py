"""Stands where the gate should, when a broken installation cannot load it: Airflow would run on without one.

As on a worker with such an installation, tasks that tell of assets fail with one sentence that says so; others run.
Nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

_STATE: Final = re.compile(r"/execution/+task-instances/+[^/]+/+state/*\n?\Z")
# No honest message without assets is larger, and anybody's time is spent on reading it.
_MAX_BODY: Final = 64 << 10


class ClosedGate:
    """The middleware.

    Args:
        app: What stands behind it.
        why: Why the gate is not there.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], why: str) -> None:
        self.app = app
        self._why = why

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a request on, unless it tells of an asset."""
        if scope["type"] != "http" or scope["method"].upper() != "PATCH" or not _STATE.search(scope["path"]):
            await self.app(scope, receive, send)
            return
        kept: list[Message] = []
        size, more = 0, True
        while more and size <= _MAX_BODY:
            message = await receive()
            kept.append(message)
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)
        if size > _MAX_BODY or _tells(b"".join(message.get("body", b"") for message in kept)):
            text = f"[sealflow] gate is set, and sealflow cannot be loaded in the API server: {self._why} Repair it."
            body = json.dumps({"detail": {"reason": "sealflow", "code": "GATE_BROKEN", "message": text}}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return

        async def again() -> Message:
            return kept.pop(0) if kept else await receive()

        await self.app(scope, again, send)


def _tells(data: bytes) -> bool:
    """Tell whether a body may set success and names an outlet or an event; of doubtful ones it may."""
    try:
        # Members of one name are all looked at, as only the last one is by Airflow.
        pairs: Any = json.loads(data, object_pairs_hook=list)
    except RecursionError:
        return True
    except ValueError:
        return False
    if not isinstance(pairs, list) or not all(isinstance(item, tuple) for item in pairs):
        return False
    success = any(name == "state" and value == "success" for name, value in pairs)
    known = {"state", "end_date", "rendered_map_index"}
    return success and any(value for name, value in pairs if name not in known)
