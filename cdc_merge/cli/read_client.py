"""The data of reading commands: the store, and the API of a running sidecar for its live state."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Final

from cdc_merge.cli.context import Invocation
from cdc_merge.config import Settings, load
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.port import QueryPort

TOKEN_VARIABLE: Final = "CDC_MERGE_TOKEN"  # noqa: S105 - a name
# A sidecar on the same machine answers at once or is not running.
ANSWER_LIMIT_S: Final = 2.0
LARGEST_BYTES: Final = 16 * 1024 * 1024
# "Every interface" is an address to listen on, not one to connect to.
REACHABLE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def load_settings(invocation: Invocation) -> Settings:
    return load(invocation.config, os.environ)


def open_queries(invocation: Invocation) -> QueryPort:
    """The read side of the store that the configuration names. ConfigError, NotFound or StoreUnavailable."""
    # Imported on use: the sources' and stores' packages would slow down `--help`.
    from cdc_merge.app import sidecar  # noqa: PLC0415

    return sidecar.open_queries(load_settings(invocation))


def fetch_sources(settings: Settings) -> Fields | None:
    """The sources document of the sidecar that runs here with these sources; None when there is none."""
    address = api_address(settings)
    document = _get_document(f"http://{address}/api/v1/sources") if address else None
    items = document.get("items") if document is not None else None
    if not isinstance(items, list):
        return None
    names = {item.get("name") for item in items if isinstance(item, dict)}
    return document if names == set(settings.sources) else None


def api_address(settings: Settings) -> str | None:
    """host:port of the API of a sidecar with this configuration; None when the port is chosen at start."""
    host = REACHABLE.get(settings.listen.host, settings.listen.host)
    netloc = f"[{host}]" if ":" in host else host
    return f"{netloc}:{settings.listen.port}" if settings.listen.port else None


def _get_document(url: str) -> Fields | None:
    token = os.environ.get(TOKEN_VARIABLE)
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310 - our own address
    # No proxy: the sidecar is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_LIMIT_S) as answer:
            document = json.loads(answer.read(LARGEST_BYTES))
    except (OSError, ValueError, urllib.error.URLError):
        return None
    return document if isinstance(document, dict) else None
