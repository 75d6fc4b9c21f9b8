"""The read routes of `/api/v1` (contract §4, §7): each is one query and its response document.

A record's key is one percent-encoded segment of the path. A composite key is percent-encoded text already, so a strict
client encodes it twice; a key that is encoded once is accepted too: the decoded text is tried first, the raw text second.
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

# A page is one response in memory, and each record costs two more store queries.
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
TIME_HINT: Final = "Write a stamp, <wall_us>.<counter>@<source>, or an ISO 8601 time, 2026-05-01T08:00:00Z."

PathText = Annotated[str, AfterValidator(unquote)]
Result = TypeVar("Result")


class ApiModel(BaseModel):
    """A query string. Empty parameters (`?status=&entity=`) count as absent."""

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


class ReadRoutes:
    """Conflicts, records, sources and rules over a QueryPort. Handlers are synchronous: each runs on a worker thread."""

    def __init__(self, queries: QueryPort, now_us: Callable[[], int]) -> None:
        self._queries = queries
        self._now_us = now_us

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1")
        # Longer paths first: `{key:path}` would match them as keys.
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
        """Conflicts, newest last."""
        where = query.model_dump(exclude={"cursor", "limit"}, exclude_none=True)
        return json_response(conflicts_document(self._queries, where, query.cursor, query.limit))

    def conflict(self, conflict_id: PathText) -> Response:
        """One conflict with its candidates."""
        return json_response(conflict_document(self._queries, conflict_id))

    def records(self, entity: PathText, query: Annotated[Paging, Query()]) -> Response:
        """The records of an entity, deleted ones included, in no guaranteed order."""
        return json_response(records_document(self._queries, entity, query.cursor, query.limit))

    def missing(self, entity: PathText, query: Annotated[MissingQuery, Query()]) -> Response:
        """Records missing at a source, of an entity with `on_missing: report`, in the order of keys."""
        return json_response(missing_document(self._queries, entity, query.source, query.cursor, query.limit))

    def record(self, entity: PathText, key: str, as_of: str = "") -> Response:
        """The merged record and every source's view, at `as_of` (a stamp or an ISO 8601 time) or now."""
        at = _as_of(as_of)
        return json_response(with_key(key, lambda key: record_document(self._queries, RecordKey(entity, key), at)))

    def history(self, entity: PathText, key: str, query: Annotated[HistoryPaging, Query()]) -> Response:
        """The changes of a record, in stamp order."""

        def document(key: str) -> Fields:
            return history_document(self._queries, RecordKey(entity, key), query.cursor, query.limit)

        return json_response(with_key(key, document))

    def explain(self, entity: PathText, key: str, field: Annotated[str, Query(min_length=1)]) -> Response:
        """Why a field has its value: every write, the writes that its writer had seen, and its outcome."""
        return json_response(with_key(key, lambda key: explain_document(self._queries, RecordKey(entity, key), field)))

    def sources(self) -> Response:
        """The sources and the merge progress of each."""
        return json_response(sources_document(self._queries, self._now_us()))

    def rules(self) -> Response:
        """The rules in the order of evaluation."""
        return json_response(rules_document(self._queries))


def json_response(document: Document) -> Response:
    return Response(json_text(document), media_type="application/json")


def with_key(raw_key: str, document: Callable[[str], Result]) -> Result:
    """The document of the decoded key, or else of the raw one; NotFound if neither exists."""
    try:
        return document(unquote(raw_key))
    except NotFound:
        if unquote(raw_key) == raw_key:
            raise
        return document(raw_key)


def _as_of(text: str) -> AsOf | None:
    try:
        return as_of_from_text(text)
    except ValueError as error:
        raise ProblemRaised(422, "as_of is neither a stamp nor a time.", hint=TIME_HINT) from error
