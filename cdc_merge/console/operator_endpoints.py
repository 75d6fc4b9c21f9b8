"""The routes for operators and their tools: `/metrics`, health, readiness, reload, and the plain pages for people."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from cdc_merge.console.api.records_api import ConflictQuery, HistoryPaging, PathText, json_response, with_key
from cdc_merge.console.pages.history_page import history_page
from cdc_merge.console.pages.home_page import home_page
from cdc_merge.console.pages.layout import CONTENT_POLICY
from cdc_merge.console.pages.record_page import record_page
from cdc_merge.console.problem_documents import ProblemRaised
from cdc_merge.model import RecordKey
from cdc_merge.queries.port import QueryPort


class OperatorEndpoints:
    """The routes outside the API. `registry` holds the metrics."""

    def __init__(self, queries: QueryPort, registry: CollectorRegistry) -> None:
        self._queries = queries
        self._registry = registry

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/metrics", self.metrics, methods=["GET"], response_class=Response)
        router.add_api_route("/-/healthy", self.healthy, methods=["GET"])
        router.add_api_route("/-/ready", self.ready, methods=["GET"])
        router.add_api_route("/-/reload", self.reload, methods=["POST"])
        for path, shown in (
            ("/", self.home_page),
            ("/records/{entity}/{key:path}/history", self.history_page),
            ("/records/{entity}/{key:path}", self.record_page),
        ):
            router.add_api_route(path, shown, methods=["GET"], include_in_schema=False)
        return router

    def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics if the scraper accepts it."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": media_type})

    def healthy(self) -> Response:
        """200 while the sidecar merges or resumes by itself; 503 with the reason once merging has ended."""
        problem = self._queries.problem()
        if problem is not None:
            raise ProblemRaised(503, problem, hint="Restart the sidecar; check its log for the cause.")
        return json_response({"healthy": True})

    def ready(self) -> Response:
        """200 once every reachable source has streamed; until then 503 with the sources that have not."""
        is_ready, reason = self._queries.ready()
        if not is_ready:
            raise ProblemRaised(503, reason, headers={"Retry-After": "1"})
        return json_response({"ready": True, "reason": reason})

    def reload(self) -> Response:
        """Reload the configuration. An invalid file is answered with 422, and the previous one stays in force."""
        self._queries.reload()
        return json_response({"reloaded": True})

    def home_page(self, query: Annotated[ConflictQuery, Query()]) -> Response:
        where = query.model_dump(exclude={"cursor", "limit"}, exclude_none=True)
        return _page(home_page(self._queries, where))

    def record_page(self, entity: PathText, key: str) -> Response:
        return _page(with_key(key, lambda key: record_page(self._queries, RecordKey(entity, key))))

    def history_page(self, entity: PathText, key: str, query: Annotated[HistoryPaging, Query()]) -> Response:
        def shown(key: str) -> str:
            return history_page(self._queries, RecordKey(entity, key), query.cursor)

        return _page(with_key(key, shown))


def _page(html: str) -> Response:
    return Response(html, media_type="text/html", headers=CONTENT_POLICY)
