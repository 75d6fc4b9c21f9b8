"""The one HTTP listener, on a thread of its own.

The socket is bound before the thread starts, so a bind error is raised by `start`. Signals stay with the main thread.
Stopping waits up to a second for responses in progress, then cuts them off.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from cdc_merge import __version__
from cdc_merge.console.api.records_api import ReadRoutes
from cdc_merge.console.api.restore_api import RestoreRoute
from cdc_merge.console.api.source_control_api import SourceControlPort, SourceRoutes
from cdc_merge.console.auth import Access, Guard
from cdc_merge.console.body_limit import BodyLimit
from cdc_merge.console.operator_endpoints import OperatorEndpoints
from cdc_merge.console.problem_documents import PROBLEM_RESPONSES, LastResort, install_problem_handlers
from cdc_merge.errors import AddressUnavailable, error_location
from cdc_merge.queries.port import QueryPort

LOG: Final = logging.getLogger("cdc_merge.http")

# Only loading the application takes time here, the socket is bound; far above the need of a busy machine.
START_LIMIT_S: Final = 30.0
# Below the second within which a stop must end; longer responses are cut off.
STOP_LIMIT_S: Final = 0.9
CUT_OFF_S: Final = 1
# Requests wait here while all handler threads are busy; more than that is refused with 503.
MAX_CONNECTIONS: Final = 256
# Of every answer: no browser or proxy guesses its type or keeps it, for it may hold row values.
ALWAYS: Final = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")]


class HttpServer:
    """Console, API, metrics and health over a QueryPort. `listen` is host and port; port 0 takes a free port."""

    def __init__(
        self,
        queries: QueryPort,
        listen: tuple[str, int],
        registry: CollectorRegistry,
        access: Access | None = None,
        source_control: SourceControlPort | None = None,
    ) -> None:
        self._listen = listen
        self._application = application(queries, registry, access or Access(), source_control=source_control)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.address = address_text(listen)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def start(self) -> None:
        """Listen. `address` is then the bound `host:port`. AddressUnavailable if it cannot be bound."""
        bound = bind(*self._listen)
        self.address = address_text(bound.getsockname())
        # Set explicitly: the defaults depend on which packages are installed.
        configuration = uvicorn.Config(
            self._application,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=CUT_OFF_S,
            # A forwarded request is never local, so nothing needs the address that a proxy reports.
            proxy_headers=False,
            headers=ALWAYS,
        )
        self._server = _Server(configuration)
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="http", daemon=True)
        self._thread.start()
        if not self._server.listening.wait(START_LIMIT_S):
            raise AddressUnavailable(
                f"The HTTP listener on {self.address} did not start.", hint="Check the log for the reason."
            )

    @property
    def has_failed(self) -> bool:
        """Whether the listener ended without a stop."""
        return (
            self._server is not None
            and self._thread is not None
            and not self._server.should_exit
            and not self._thread.is_alive()
        )

    def stop(self) -> None:
        """Close the listener within a second, also during a response. Idempotent."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(STOP_LIMIT_S)


class _Server(uvicorn.Server):
    """A server that signals when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(task_failed)
        # Uvicorn sets them on its first tick, which may come after the first request.
        self.server_state.default_headers = list(self.config.encoded_headers)
        await super().startup(sockets)
        self.listening.set()


def task_failed(_: asyncio.AbstractEventLoop, failed: Mapping[str, Any]) -> None:
    """Log without the message: the event loop's own line shows it, and it may hold row values."""
    error = failed.get("exception")
    cause = error_location(error) if isinstance(error, BaseException) else "an unknown cause"
    LOG.error("A task of the HTTP listener ended by %s.", cause, extra={"event": "request_failed"})


def application(
    queries: QueryPort,
    registry: CollectorRegistry,
    access: Access,
    now_us: Callable[[], int] | None = None,
    source_control: SourceControlPort | None = None,
) -> ASGIApp:
    """The whole HTTP side as an ASGI application."""
    app = FastAPI(
        title="cdc_merge",
        version=__version__,
        openapi_url="/api/openapi.json",
        # The documentation pages of FastAPI load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=PROBLEM_RESPONSES,
    )
    app.include_router(OperatorEndpoints(queries, registry).router())
    app.include_router(ReadRoutes(queries, now_us or _now_us).router())
    app.include_router(RestoreRoute(queries, access).router())
    if source_control is not None:
        app.include_router(SourceRoutes(source_control).router())
    install_problem_handlers(app)
    return PathAsSent(Guard(BodyLimit(LastResort(app)), access))


class PathAsSent:
    """Middleware that routes by the path as sent, still percent-encoded: a key may hold `/`, `,` and `%`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. AddressUnavailable gives the address and the reason."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = addresses[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unavailable(host, port, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _unavailable(host, port, error) from error
    return bound


def _unavailable(host: str, port: int, error: OSError) -> AddressUnavailable:
    hint = "Set http.listen to a free address of this machine, such as 127.0.0.1:8787; port 0 takes any free one."
    where = address_text((host, port))
    return AddressUnavailable(f"The HTTP listener cannot bind {where}: {error.strerror}.", hint=hint)


def address_text(address: tuple[str, int]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _now_us() -> int:
    return time.time_ns() // 1000
