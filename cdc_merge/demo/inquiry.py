"""Asks the sidecar what any program could ask: its HTTP API (contract §4, §7). Documents come as parsed JSON."""

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
ASK_AGAIN_S: Final = 0.1

Parsed = Mapping[str, Any]  # a JSON object of contract §7


class NotQuiet(CdcMergeError):
    """The sidecar had not caught up with everything that was committed when the time was over."""


class Inquiry:
    """The API of one sidecar. Network errors are OSError.

    `still_works` raises what has ended the sidecar, if something has: nobody waits for a picture that will never come.
    """

    def __init__(self, address: str, still_works: Callable[[], object]) -> None:
        self._address = address.rstrip("/")
        self._still_works = still_works

    def get(self, path: str, **query: str) -> Parsed:
        url = f"{self._address}{path}" + (f"?{urlencode(query)}" if query else "")
        with urlopen(url, timeout=TIMEOUT_S) as answer:
            parsed: Parsed = json.load(answer)
        return parsed

    def items(self, path: str, **query: str) -> Iterator[Parsed]:
        """All items of a list, page by page."""
        page = self.get(path, limit=str(PAGE), **query)
        yield from page["items"]
        while page["next_cursor"] is not None:
            page = self.get(path, limit=str(PAGE), cursor=page["next_cursor"], **query)
            yield from page["items"]

    def sources(self) -> list[Parsed]:
        self._still_works()
        items: list[Parsed] = self.get("/api/v1/sources")["items"]
        return items

    def records(self, entity: str) -> Iterator[Parsed]:
        return self.items(f"/api/v1/records/{quote(entity, safe='')}")

    def conflicts(self, status: str = "") -> Iterator[Parsed]:
        return self.items("/api/v1/conflicts", **({"status": status} if status else {}))

    def wait_until_quiet(self, passed: Mapping[str, int], timeout_s: float) -> None:
        """Until every source is durable up to its LSN and no conflict is settling; NotQuiet says what was missing."""
        deadline = time.monotonic() + timeout_s
        while (missing := self._missing(passed)) is not None:
            if time.monotonic() > deadline:
                raise NotQuiet(f"after {timeout_s:.0f} s {missing}", hint="The summary would compare half a picture.")
            time.sleep(ASK_AGAIN_S)

    def _missing(self, passed: Mapping[str, int]) -> str | None:
        for source in self.sources():
            if lsn_from_text(source["durable_lsn"]) < passed[source["name"]]:
                return f"{source['name']} was durable only up to {source['durable_lsn']}"
        if next(self.conflicts("settling"), None) is not None:
            return "a conflict was still settling"
        return None
