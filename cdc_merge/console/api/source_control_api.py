"""`POST /api/v1/sources/{name}/pause`, `/resume`, `/resync`: a source is told something. Each needs a token with a role.

Telling a source again what it does already changes nothing. The answer says what it is told from now on.
"""

from __future__ import annotations

from typing import Annotated, Protocol
from urllib.parse import unquote

from fastapi import APIRouter, Body, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict

from cdc_merge.console.api.records_api import answered
from cdc_merge.console.auth import Access
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.queries.documents import orders_json

Spelled = Annotated[str, AfterValidator(unquote)]


class SourceControlPort(Protocol):
    """Whoever tells sources what to do. NotFound for a source that there is not."""

    def pause(self, source: str) -> SourceOrders: ...
    def resume(self, source: str) -> SourceOrders: ...
    def resync(self, source: str, table: str | None, key: str | None) -> SourceOrders: ...


class ResyncRequest(BaseModel):
    """What to read again: every mapped table when both are absent; `key` is a business key."""

    model_config = ConfigDict(extra="forbid")

    table: str | None = None
    key: str | None = None


class SourceRoutes:
    def __init__(self, steered: SourceControlPort, access: Access) -> None:
        self._steered = steered
        self._access = access

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api/v1/sources")
        for name, endpoint in (("pause", self.pause), ("resume", self.resume), ("resync", self.resync)):
            router.add_api_route(f"/{{source}}/{name}", endpoint, methods=["POST"], response_class=Response)
        return router

    def pause(self, request: Request, source: Spelled) -> Response:
        """Stop reading the source; its slot stays and keeps what comes."""
        self._permit(request)
        return answered(orders_json(source, self._steered.pause(source)))

    def resume(self, request: Request, source: Spelled) -> Response:
        """Go on behind what is merged and on disk."""
        self._permit(request)
        return answered(orders_json(source, self._steered.resume(source)))

    def resync(
        self, request: Request, source: Spelled, asked: Annotated[ResyncRequest | None, Body()] = None
    ) -> Response:
        """Read tables again while the stream goes on; of a source whose position was lost, take a new copy."""
        self._permit(request)
        wanted = asked or ResyncRequest()
        return answered(orders_json(source, self._steered.resync(source, wanted.table, wanted.key)))

    def _permit(self, request: Request) -> None:
        self._access.permit_change(request.headers.get("authorization"))
