"""Every error as an RFC 9457 problem document: `type`, `title`, `status`, `detail`, and our own `hint` and `errors`.

A problem never repeats the request, and never quotes a driver: both may hold row values.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from cdc_merge.errors import (
    CdcMergeError,
    ConfigError,
    NotFound,
    NotWritten,
    SourceRefused,
    SourceUnavailable,
    StoreUnavailable,
)
from cdc_merge.queries.documents import Fields, json_text

LOG: Final = logging.getLogger("cdc_merge.http")
MEDIA_TYPE: Final = "application/problem+json"

# In the OpenAPI document of every route.
PROBLEM_RESPONSES: Final[dict[int | str, dict[str, object]]] = {
    "default": {
        "description": "A problem document (RFC 9457)",
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "hint": {"type": "string"},
                        "errors": {"type": "array", "items": {"type": "object"}},
                    },
                }
            }
        },
    }
}

STATUS_OF: Final[Mapping[type[CdcMergeError], int]] = {
    NotFound: 404,
    NotWritten: 501,
    SourceRefused: 409,
    ConfigError: 422,
    SourceUnavailable: 503,
    StoreUnavailable: 503,
}


class ProblemRaised(Exception):
    """Ends a request with a problem document: HTTP status, one sentence, a hint, response headers."""

    def __init__(self, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.hint = hint
        self.headers = headers

    def response(self) -> Response:
        return problem(self.status, str(self), hint=self.hint, headers=self.headers)


def problem(
    status: int,
    detail: str,
    *,
    hint: str = "",
    errors: Sequence[Fields] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as a response. `errors` lists the places of several errors."""
    document: Fields = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if hint:
        document["hint"] = hint
    if errors:
        document["errors"] = [*errors]
    return Response(json_text(document), status, dict(headers or {}), MEDIA_TYPE)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    app.add_exception_handler(ProblemRaised, _raised)
    app.add_exception_handler(CdcMergeError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


# Each handler is registered for one type; Starlette's signature is wider, so the type is asserted.


async def _raised(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemRaised)
    return error.response()


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, CdcMergeError)
    status = next((status for kind, status in STATUS_OF.items() if isinstance(error, kind)), 500)
    problems = error.problems if isinstance(error, ConfigError) else ()
    return problem(status, str(error), hint=error.hint, errors=[{"detail": line} for line in problems])


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors: list[Fields] = [
        {"where": ".".join(str(part) for part in each["loc"]), "detail": str(each["msg"])} for each in error.errors()
    ]
    detail = "; ".join(f"{each['where']}: {each['detail']}" for each in errors)
    return problem(422, f"The request is invalid: {detail}.", hint="See /api/openapi.json.", errors=errors)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: "There is no such path.",
        405: f"This path does not support {request.method}.",
    }
    detail = details.get(error.status_code, f"{HTTPStatus(error.status_code).phrase}.")
    return problem(error.status_code, detail, hint="See /api/openapi.json.", headers=error.headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    detail = f"The request failed with an unexpected {type(error).__name__}; this is a bug of cdc-merge."
    return problem(500, detail, hint="Check the log for its place and report it.")


class LastResort:
    """Middleware that logs an unexpected exception by type and place, and ends it.

    Starlette raises it again after the response; the server would then close the connection before the client's next
    request, and log a message that may hold row values.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 the edge of a request; it is already answered with 500
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{last.filename}:{last.lineno}"
            event = {"event": "request_failed"}
            # Not `exception`: a traceback ends in the message.
            LOG.error("An unexpected %s in %s ended a request.", type(error).__name__, place, extra=event)  # noqa: TRY400
