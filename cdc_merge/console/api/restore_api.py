"""`POST …/restore`: how a record would be brought back to an earlier time. A plan is a reading; writing it is refused.

This version has no write-back: a request that asks for more than the plan (`dry_run` is not true) needs a token with a
role, as every change does, and is then answered with 501. Nothing is ever written.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cdc_merge.console.api.records_api import BAD_MOMENT, Spelled, answered, of_spelling
from cdc_merge.console.auth import Access
from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.errors import NotWritten
from cdc_merge.model import RecordKey
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import AsOf, as_of_from_text, restore_document

CLEAN: Final = "clean"
NOT_WRITTEN: Final = "Nothing was written: this version plans a restore and does not carry it out."
WRITE_IT: Final = "Ask for the plan with dry_run, and write it in the sources themselves; the sidecar will see that."


class RestoreRequest(BaseModel):
    """`to`: a stamp, a time in ISO 8601, or `clean` for the last state without a question. `fields`: only these."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(min_length=1)
    fields: list[str] = []
    dry_run: bool = False


class RestoreRoute:
    """The one route over a `Reading`."""

    def __init__(self, reading: QueryPort, access: Access) -> None:
        self._reading = reading
        self._access = access

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1")
        router.add_api_route("/records/{entity}/{key:path}/restore", self.restore, methods=["POST"])
        return router

    def restore(self, entity: Spelled, key: str, asked: RestoreRequest, request: Request) -> Response:
        """The plan of a restore (`dry_run: true`): the differences, what would be written where, and later edits."""
        if not asked.dry_run:
            self._access.permit_change(request.headers.get("authorization"))
            raise NotWritten(NOT_WRITTEN, hint=WRITE_IT)
        self._access.permit_read(request.client.host if request.client else None, request.headers)
        moment = _moment(asked.to)

        def document(key: str) -> Fields:
            return restore_document(self._reading, RecordKey(entity, key), moment, asked.fields)

        return answered(of_spelling(key, document))


def _moment(text: str) -> AsOf | None:
    if text == CLEAN:
        return None
    try:
        return as_of_from_text(text)
    except ValueError as error:
        raise ProblemRaised(422, "`to` is neither a stamp, nor a time, nor clean.", hint=BAD_MOMENT) from error
