"""What operators and their machines ask: `/metrics`, health, readiness, reload, and one plain page for people."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from cdc_merge.console.access import Access
from cdc_merge.console.api import answered
from cdc_merge.console.front_page import CONTENT_POLICY, front_page
from cdc_merge.console.problems import ProblemRaised
from cdc_merge.console.reading import Reading


class Operations:
    """The routes outside the API. `registry` holds the metrics that observers keep."""

    def __init__(self, reading: Reading, registry: CollectorRegistry, access: Access) -> None:
        self._reading = reading
        self._registry = registry
        self._access = access

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/metrics", self.metrics, methods=["GET"], response_class=Response)
        router.add_api_route("/-/healthy", self.healthy, methods=["GET"])
        router.add_api_route("/-/ready", self.ready, methods=["GET"])
        router.add_api_route("/-/reload", self.reload, methods=["POST"])
        router.add_api_route("/", self.front_page, methods=["GET"], include_in_schema=False)
        return router

    def metrics(self, request: Request) -> Response:
        """Prometheus text, or OpenMetrics where the scraper asks for it."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": media_type})

    def healthy(self) -> Response:
        """The process answers."""
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

    def front_page(self) -> Response:
        return Response(front_page(self._reading), media_type="text/html", headers=CONTENT_POLICY)
