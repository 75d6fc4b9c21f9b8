"""`POST …/restore`: the plan to restore a record to an earlier time. A plan only reads; carrying it out is refused.

This version has no write-back: a request without `dry_run: true` needs a token with a role, as every change does, and is
then answered with 501. Nothing is ever written.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cdc_merge.console.api.records_api import TIME_HINT, PathText, json_response, with_key
from cdc_merge.console.auth import Access
from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.errors import NotWritten
from cdc_merge.model import RecordKey
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import AsOf, as_of_from_text, restore_document

CLEAN: Final = "clean"
NOT_WRITTEN: Final = "Nothing was written: this version plans a restore but cannot carry it out."
WRITE_HINT: Final = "Request the plan with dry_run and write it in the sources yourself; the sidecar merges the result."


class RestoreRequest(BaseModel):
    """`to`: a stamp, an ISO 8601 time, or `clean` for the last conflict-free state. `fields`: only these, if any."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(min_length=1)
    fields: list[str] = []
    dry_run: bool = False


class RestoreRoute:
    """The restore route over a QueryPort."""

    def __init__(self, queries: QueryPort, access: Access) -> None:
        self._queries = queries
        self._access = access

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1")
        router.add_api_route("/records/{entity}/{key:path}/restore", self.restore, methods=["POST"])
        return router

    def restore(self, entity: PathText, key: str, body: RestoreRequest, request: Request) -> Response:
        """The plan of a restore (`dry_run: true`): the differences, the writes per source, and later edits."""
        if not body.dry_run:
            self._access.permit_change(request.headers.get("authorization"))
            raise NotWritten(NOT_WRITTEN, hint=WRITE_HINT)
        to = _restore_time(body.to)

        def document(key: str) -> Fields:
            return restore_document(self._queries, RecordKey(entity, key), to, body.fields)

        return json_response(with_key(key, document))


def _restore_time(text: str) -> AsOf | None:
    if text == CLEAN:
        return None
    try:
        return as_of_from_text(text)
    except ValueError as error:
        raise ProblemRaised(422, "`to` is neither a stamp, nor a time, nor clean.", hint=TIME_HINT) from error
