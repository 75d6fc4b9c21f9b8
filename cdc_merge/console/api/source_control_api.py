"""`POST /api/v1/sources/{name}/pause`, `/resume`, `/resync`: commands for a source. `Guard` requires a token with a role.

A repeated command changes nothing. The response has all commands of the source that are in force.
"""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, ConfigDict

from cdc_merge.console.api.records_api import PathText, json_response
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.queries.source_documents import orders_json


class SourceControlPort(Protocol):
    """Commands for sources, implemented by worker/source_control.py. NotFound for an unknown source."""

    def pause(self, source: str) -> SourceOrders: ...
    def resume(self, source: str) -> SourceOrders: ...
    def resync(self, source: str, table: str | None, key: str | None) -> SourceOrders: ...


class ResyncRequest(BaseModel):
    """The scope of a resync: every mapped table when both are absent; `key` is a business key."""

    model_config = ConfigDict(extra="forbid")

    table: str | None = None
    key: str | None = None


class SourceRoutes:
    """The command routes over a SourceControlPort."""

    def __init__(self, control: SourceControlPort) -> None:
        self._control = control

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1/sources")
        for name, endpoint in (("pause", self.pause), ("resume", self.resume), ("resync", self.resync)):
            router.add_api_route(f"/{{source}}/{name}", endpoint, methods=["POST"], response_class=Response)
        return router

    def pause(self, source: PathText) -> Response:
        """Pause the source; its slot stays and retains WAL."""
        return json_response(orders_json(source, self._control.pause(source)))

    def resume(self, source: PathText) -> Response:
        """Resume the source at its durable position."""
        return json_response(orders_json(source, self._control.resume(source)))

    def resync(self, source: PathText, body: Annotated[ResyncRequest | None, Body()] = None) -> Response:
        """Read tables again (incremental snapshot) beside the stream; for a source with a lost position, a new initial snapshot."""
        scope = body or ResyncRequest()
        return json_response(orders_json(source, self._control.resync(source, scope.table, scope.key)))
