"""What operators and their machines ask: `/metrics`, health, readiness, reload, and the plain pages for people."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from cdc_merge.console.api.records_api import ConflictQuery, HistoryPaging, Spelled, answered, of_spelling
from cdc_merge.console.auth import Access
from cdc_merge.console.pages.home_page import front_page
from cdc_merge.console.pages.layout import CONTENT_POLICY
from cdc_merge.console.pages.record_page import history_page, record_page
from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.model import RecordKey
from cdc_merge.queries.port import QueryPort


class OperatorEndpoints:
    """The routes outside the API. `registry` holds the metrics that observers keep."""

    def __init__(self, reading: QueryPort, registry: CollectorRegistry, access: Access) -> None:
        self._reading = reading
        self._registry = registry
        self._access = access

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/metrics", self.metrics, methods=["GET"], response_class=Response)
        router.add_api_route("/-/healthy", self.healthy, methods=["GET"])
        router.add_api_route("/-/ready", self.ready, methods=["GET"])
        router.add_api_route("/-/reload", self.reload, methods=["POST"])
        for path, shown in (
            ("/", self.front_page),
            ("/records/{entity}/{key:path}/history", self.history_page),
            ("/records/{entity}/{key:path}", self.record_page),
        ):
            router.add_api_route(path, shown, methods=["GET"], include_in_schema=False)
        return router

    def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics where the scraper asks for it."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": media_type})

    def healthy(self) -> Response:
        """200 while the process answers and merges, or will go on to by itself; else 503, saying why it will not."""
        problem = self._reading.problem()
        if problem is not None:
            raise ProblemRaised(503, problem, hint="Start the sidecar again; its log says what ended it.")
        return answered({"healthy": True})

    def ready(self) -> Response:
        """200 once every source that can be reached has streamed; until then 503, saying what is waited for."""
        is_ready, reason = self._reading.ready()
        if not is_ready:
            raise ProblemRaised(503, reason, headers={"Retry-After": "1"})
        return answered({"ready": True, "reason": reason})

    def reload(self, request: Request) -> Response:
        """Read the configuration again. A bad file keeps the old one in force and says so (422)."""
        self._access.permit_change(request.headers.get("authorization"))
        self._reading.reload()
        return answered({"reloaded": True})

    def front_page(self, query: Annotated[ConflictQuery, Query()]) -> Response:
        where = query.model_dump(exclude={"cursor", "limit"}, exclude_none=True)
        return _page(front_page(self._reading, where))

    def record_page(self, entity: Spelled, key: str) -> Response:
        return _page(of_spelling(key, lambda key: record_page(self._reading, RecordKey(entity, key))))

    def history_page(self, entity: Spelled, key: str, query: Annotated[HistoryPaging, Query()]) -> Response:
        def shown(key: str) -> str:
            return history_page(self._reading, RecordKey(entity, key), query.cursor)

        return _page(of_spelling(key, shown))


def _page(html: str) -> Response:
    return Response(html, media_type="text/html", headers=CONTENT_POLICY)
