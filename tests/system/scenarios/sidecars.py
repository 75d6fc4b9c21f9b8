"""Sidecars that watch an incident: one in this process whose readers can be held back, one in a process that is killed.

Tests query both over HTTP only. `wait_until_settled` waits until every source is durable past a message that was
committed after the work, and no conflict is settling.
"""

from __future__ import annotations

import json
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config import load
from cdc_merge.model import Delivery, Position, SourceStatus, lsn_from_text
from cdc_merge.model.ports import Observer, Source
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.parent import ProcessSource
from tests.support.process_pool import ChildProcess, ProcessPool
from tests.system.scenarios.merged_state import Document, SidecarAnswers

LIMIT_S = 40.0  # far more than any of this takes; a loaded machine may need it
LOOK_EVERY_S = 0.02


def now_us() -> int:
    return time.time_ns() // 1000


class WatchingSidecar(Protocol):
    """A sidecar that watches an incident, whatever process it runs in."""

    name: str

    @property
    def address(self) -> str | None:
        """host:port; None while it does not listen."""
        ...

    def check(self) -> None:
        """Raise if it has ended by itself."""
        ...


def fetched_over_http(sidecar: WatchingSidecar, path: str) -> Document | None:
    """The document, or None while the sidecar does not answer."""
    address = sidecar.address
    if address is None:
        return None
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            document: Document = json.load(answer)
            return document
    except OSError:
        return None


def document(sidecar: WatchingSidecar, path: str) -> Document:
    answered = fetched_over_http(sidecar, path)
    assert answered is not None, f"{sidecar.name} does not answer {path}"
    return answered


def metric(sidecar: WatchingSidecar, series: str) -> float:
    """The value of one series of /metrics, labels sorted as they are written there."""
    with urllib.request.urlopen(f"http://{sidecar.address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.removeprefix(series) for line in lines if line.startswith(f"{series} ")]
    assert found, f"{series} is not among {[line for line in lines if line.startswith(series.partition('{')[0])]}"
    return float(found[0])


def items(sidecar: WatchingSidecar, path: str) -> list[Document]:
    """All pages of a list."""
    joint = "&" if "?" in path else "?"
    found: list[Document] = []
    cursor = ""
    while True:
        page = document(sidecar, f"{path}{joint}limit=500{cursor}")
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={urllib.parse.quote(page['next_cursor'])}"


def wait_for(sidecar: WatchingSidecar, fact: Callable[[], object], what: str) -> None:
    """Until the fact holds; AssertionError says what was waited for."""
    deadline = time.monotonic() + LIMIT_S
    while not fact():
        sidecar.check()
        assert time.monotonic() < deadline, f"{sidecar.name}: {what}"
        time.sleep(LOOK_EVERY_S)


def durable(sidecar: WatchingSidecar, lsns: Mapping[str, str]) -> bool:
    sources = fetched_over_http(sidecar, "/api/v1/sources")
    if sources is None:
        return False
    reached = {source["name"]: lsn_from_text(source["durable_lsn"]) for source in sources["items"]}
    return all(reached.get(name, 0) >= lsn_from_text(lsn) for name, lsn in lsns.items())


def _settled(sidecar: WatchingSidecar) -> bool:
    settling = fetched_over_http(sidecar, "/api/v1/conflicts?status=settling&limit=1")
    return settling is not None and not settling["items"]


def wait_until_settled(sidecar: WatchingSidecar, lsns: Mapping[str, str]) -> None:
    wait_for(sidecar, lambda: durable(sidecar, lsns), f"durable up to {dict(lsns)}")
    wait_for(sidecar, lambda: _settled(sidecar), "nothing settling")


def answers_of(sidecar: WatchingSidecar) -> SidecarAnswers:
    return SidecarAnswers(
        {record["key"]: record for record in items(sidecar, "/api/v1/records/customer")},
        items(sidecar, "/api/v1/conflicts?status=open"),
        items(sidecar, "/api/v1/conflicts?status=closed"),
    )


# ---------------------------------------------------------------- in this process, with readers that can be held back


class RecordedDelivery(NamedTuple):
    """A delivery and when it arrived by our own clock."""

    arrived_us: int
    delivery: Delivery


class PausableSource:
    """ports.Source: the real one; records its deliveries, and delivers none while `is_paused`."""

    def __init__(self, inner: Source) -> None:
        self.name = inner.name
        self.delivery_log: list[RecordedDelivery] = []
        self.is_paused = False
        self._inner = inner

    def start(self, position: Position | None) -> None:
        self._inner.start(position)

    def take(self, limit: int) -> Sequence[Delivery]:
        if self.is_paused:
            return []
        taken = self._inner.take(limit)
        self.delivery_log.extend(RecordedDelivery(now_us(), delivery) for delivery in taken)
        return taken

    def confirm(self, lsn: int) -> None:
        self._inner.confirm(lsn)

    def status(self) -> SourceStatus:
        return self._inner.status()

    def stop(self) -> None:
        self._inner.stop()


class SidecarInProcess(Sidecar):
    """The whole sidecar, merging in this process; its readers are child processes as in production."""

    name = "plain"

    def __init__(self, config: Path) -> None:
        self.held: dict[str, PausableSource] = {}
        self.settings = load(config, {})
        super().__init__(self.settings, make_source=self._held)

    def _held(self, reader: ReaderSettings, wake: Callable[[], None], observe: Observer) -> Source:
        self.held[reader.name] = PausableSource(ProcessSource(reader, wake, observe))
        return self.held[reader.name]

    def check(self) -> None:
        self.wait(0)


# ---------------------------------------------------------------- in a process that is killed


class SidecarProcess:
    """The sidecar as a process of its own, to be killed at any time."""

    name = "killed"

    def __init__(self, process_pool: ProcessPool, config: Path) -> None:
        self._process_pool = process_pool
        self._config = config
        self._log = config.with_suffix(".log")
        self._read = 0
        self._process: ChildProcess | None = None
        self._address: str | None = None

    def start(self) -> None:
        self._address = None
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._process_pool.start(["--config", str(self._config), "run"], self._log, self._log)

    @property
    def address(self) -> str | None:
        if self._address is None and self._log.exists():
            lines = self._log.read_bytes()[self._read :].decode().splitlines()
            listening = [line for line in lines if "cdc-merge listens on http://" in line]
            self._address = listening[0].partition("http://")[2].partition('"')[0] if listening else None
        return self._address

    def check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"the sidecar ended by itself: {self._log.read_text()[-2000:]}")

    def end(self, number: int) -> None:
        if self._process is not None:
            self._process.end(number)
            self._process = None
            self._address = None

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def kill_and_start(self) -> None:
        self.kill()
        self.start()
