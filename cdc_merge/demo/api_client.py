"""A client of the sidecar's HTTP API (contract §4, §7). Documents are parsed JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from cdc_merge.errors import CdcMergeError
from cdc_merge.model import lsn_from_text

PAGE: Final = 500
TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1

Parsed = Mapping[str, Any]  # a JSON object of contract §7


class NotCaughtUp(CdcMergeError):
    """The sidecar had not caught up with all commits in time."""


class ApiClient:
    """The API of one sidecar. Network errors are OSError.

    `check_alive` raises the error that ended the sidecar, if any, so that no call waits for it in vain.
    """

    def __init__(self, address: str, check_alive: Callable[[], object]) -> None:
        self._address = address.rstrip("/")
        self._check_alive = check_alive

    def get(self, path: str, **query: str) -> Parsed:
        url = f"{self._address}{path}" + (f"?{urlencode(query)}" if query else "")
        with urlopen(url, timeout=TIMEOUT_S) as response:
            parsed: Parsed = json.load(response)
        return parsed

    def items(self, path: str, **query: str) -> Iterator[Parsed]:
        """All items of a list, page by page."""
        page = self.get(path, limit=str(PAGE), **query)
        yield from page["items"]
        while page["next_cursor"] is not None:
            page = self.get(path, limit=str(PAGE), cursor=page["next_cursor"], **query)
            yield from page["items"]

    def sources(self) -> list[Parsed]:
        self._check_alive()
        items: list[Parsed] = self.get("/api/v1/sources")["items"]
        return items

    def records(self, entity: str) -> Iterator[Parsed]:
        return self.items(f"/api/v1/records/{quote(entity, safe='')}")

    def conflicts(self, status: str = "") -> Iterator[Parsed]:
        return self.items("/api/v1/conflicts", **({"status": status} if status else {}))

    def wait_until_caught_up(self, passed: Mapping[str, int], timeout_s: float) -> None:
        """Wait until every source is durable up to its LSN and no conflict is settling; NotCaughtUp names what is left."""
        deadline = time.monotonic() + timeout_s
        while (missing := self._missing(passed)) is not None:
            if time.monotonic() > deadline:
                raise NotCaughtUp(f"after {timeout_s:.0f} s {missing}", hint="The comparison would be incomplete.")
            time.sleep(POLL_S)

    def _missing(self, passed: Mapping[str, int]) -> str | None:
        for source in self.sources():
            if lsn_from_text(source["durable_lsn"]) < passed[source["name"]]:
                return f"{source['name']} was durable only up to {source['durable_lsn']}"
        if next(self.conflicts("settling"), None) is not None:
            return "a conflict was still settling"
        return None
