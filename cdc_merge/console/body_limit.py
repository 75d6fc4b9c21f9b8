"""The limit of a request's body: read once, whole, before the application parses it.

The limits count what arrives, so they hold for a body in chunks too. `Guard` stands before this middleware: without
permission no body is read.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cdc_merge.console.auth import SAFE_METHODS
from cdc_merge.console.problem_documents import ProblemRaised

# Far above any request of the API; parsing this much takes some 20 ms.
MAX_BODY_BYTES: Final = 1 << 20
# Far above the time in which a slow link sends MAX_BODY_BYTES.
BODY_LIMIT_S: Final = 30.0


class BodyLimit:
    """Middleware that answers a body over `max_bytes` with 413, and one that takes longer than `limit_s` with 408."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, limit_s: float = BODY_LIMIT_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limit_s):
                body = await self._body(Headers(scope=scope), receive)
        except TimeoutError:
            problem = ProblemRaised(
                408, f"The body did not arrive within {self._limit_s:g} s.", hint="Send it at once."
            )
            await problem.response()(scope, receive, send)
        except ProblemRaised as problem:
            await problem.response()(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client left. ProblemRaised (413) as soon as it is too large."""
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> ProblemRaised:
        return ProblemRaised(413, f"The body is larger than {self._max_bytes} bytes.", hint="Send a smaller request.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body first, then what follows on the connection: its end."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
