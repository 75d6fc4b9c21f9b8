"""`/api/v1`: what programs read (contract §4, §7). Every route is a question to `Reading` and a document of its answer.

A record's key stands in the path as one percent-encoded segment. A composite key is percent-encoded text already, so a
client that quotes it encodes twice; one that puts it there as it is, is understood too: the strict reading is asked for
first, and the text as it stands second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import unquote

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, Field, model_validator

from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.errors import NotFound
from cdc_merge.model import RecordKey
from cdc_merge.queries.documents import Document, Fields, json_text
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import (
    AsOf,
    as_of_from_text,
    conflict_document,
    conflicts_document,
    explain_document,
    history_document,
    missing_document,
    record_document,
    records_document,
    rules_document,
    sources_document,
)

# A page is one answer in memory, and one record brings two questions to the store.
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
BAD_MOMENT: Final = "Write a stamp, <wall_us>.<counter>@<source>, or a time in ISO 8601, 2026-05-01T08:00:00Z."

Spelled = Annotated[str, AfterValidator(unquote)]
Answer = TypeVar("Answer")


class ApiModel(BaseModel):
    """A query string. `?status=&entity=` asks for nothing in particular."""

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: object) -> object:
        return {name: text for name, text in given.items() if text != ""} if isinstance(given, dict) else given


class Paging(ApiModel):
    cursor: str | None = None
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class HistoryPaging(ApiModel):
    cursor: str | None = None
    limit: int = Field(MAX_LIMIT, ge=1, le=MAX_LIMIT)


class MissingQuery(Paging):
    source: str | None = None


class ConflictQuery(Paging):
    status: Literal["settling", "open", "closed"] | None = None
    entity: str | None = None
    key: str | None = None
    field: str | None = None
    kind: str | None = None
    severity: Literal["critical", "high", "medium", "low"] | None = None
    source: str | None = None


class Api:
    """The routes over one `Reading`. Handlers are synchronous: each runs on a thread of its own."""

    def __init__(self, reading: QueryPort, now_us: Callable[[], int]) -> None:
        self._reading = reading
        self._now_us = now_us

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1")
        # The longer paths stand first: `{key:path}` would take them for keys.
        for path, endpoint in (
            ("/conflicts", self.conflicts),
            ("/conflicts/{conflict_id}", self.conflict),
            ("/records/{entity}/{key:path}/history", self.history),
            ("/records/{entity}/{key:path}/explain", self.explain),
            ("/records/{entity}/{key:path}", self.record),
            ("/records/{entity}", self.records),
            ("/missing/{entity}", self.missing),
            ("/sources", self.sources),
            ("/rules", self.rules),
        ):
            router.add_api_route(path, endpoint, methods=["GET"])
        return router

    def conflicts(self, query: Annotated[ConflictQuery, Query()]) -> Response:
        """The queue, newest last."""
        where = query.model_dump(exclude={"cursor", "limit"}, exclude_none=True)
        return answered(conflicts_document(self._reading, where, query.cursor, query.limit))

    def conflict(self, conflict_id: Spelled) -> Response:
        """One conflict with its candidates."""
        return answered(conflict_document(self._reading, conflict_id))

    def records(self, entity: Spelled, query: Annotated[Paging, Query()]) -> Response:
        """The records of an entity, ended ones too, in no promised order."""
        return answered(records_document(self._reading, entity, query.cursor, query.limit))

    def missing(self, entity: Spelled, query: Annotated[MissingQuery, Query()]) -> Response:
        """Which sources lack which records of an entity whose `on_missing` is report, in the order of keys."""
        return answered(missing_document(self._reading, entity, query.source, query.cursor, query.limit))

    def record(self, entity: Spelled, key: str, as_of: str = "") -> Response:
        """The merged value and every source's view, at `as_of` (a stamp, or a time in ISO 8601) or now."""
        moment = _moment(as_of)
        return answered(of_spelling(key, lambda key: record_document(self._reading, RecordKey(entity, key), moment)))

    def history(self, entity: Spelled, key: str, query: Annotated[HistoryPaging, Query()]) -> Response:
        """The changes of a record, in stamp order."""

        def document(key: str) -> Fields:
            return history_document(self._reading, RecordKey(entity, key), query.cursor, query.limit)

        return answered(of_spelling(key, document))

    def explain(self, entity: Spelled, key: str, field: Annotated[str, Query(min_length=1)]) -> Response:
        """Why a field has its value: every write of it, what its writer had seen, and what became of it."""
        return answered(of_spelling(key, lambda key: explain_document(self._reading, RecordKey(entity, key), field)))

    def sources(self) -> Response:
        """The sources and how far each of them is merged."""
        return answered(sources_document(self._reading, self._now_us()))

    def rules(self) -> Response:
        """The rules in the order in which they are asked."""
        return answered(rules_document(self._reading))


def answered(document: Document) -> Response:
    return Response(json_text(document), media_type="application/json")


def of_spelling(raw_key: str, document: Callable[[str], Answer]) -> Answer:
    """The answer under the key that the path means; NotFound if it is none under either reading."""
    try:
        return document(unquote(raw_key))
    except NotFound:
        if unquote(raw_key) == raw_key:
            raise
        return document(raw_key)


def _moment(text: str) -> AsOf | None:
    try:
        return as_of_from_text(text)
    except ValueError as error:
        raise ProblemRaised(422, "as_of is neither a stamp nor a time.", hint=BAD_MOMENT) from error
