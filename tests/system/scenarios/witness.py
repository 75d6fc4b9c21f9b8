"""Sidecars that watch an incident: one in this process whose readers can be held back, one in a process that is killed.

Both are asked over HTTP only. `quiet` is the contract's picture of completeness: every source durable behind a message
that was committed after the work, and nothing settling.
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
from tests.support.process_pool import Forked, ProcessPool
from tests.system.scenarios.picture import Document, Said

LIMIT_S = 40.0  # far more than any of this takes; a loaded machine may need it
LOOK_EVERY_S = 0.02
ROOT = Path(__file__).parents[2]


def now_us() -> int:
    return time.time_ns() // 1000


class Witness(Protocol):
    name: str

    @property
    def address(self) -> str | None:
        """host:port, or None while nobody listens."""
        ...

    def check(self) -> None:
        """Raise if it has ended by itself."""
        ...


def fetched_over_http(witness: Witness, path: str) -> Document | None:
    """The document, or None while the sidecar does not answer."""
    address = witness.address
    if address is None:
        return None
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            document: Document = json.load(answer)
            return document
    except OSError:
        return None


def document(witness: Witness, path: str) -> Document:
    answered = fetched_over_http(witness, path)
    assert answered is not None, f"{witness.name} does not answer {path}"
    return answered


def metric(witness: Witness, series: str) -> float:
    """The value of one series of /metrics, labels sorted as they are written there."""
    with urllib.request.urlopen(f"http://{witness.address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line.removeprefix(series) for line in lines if line.startswith(f"{series} ")]
    assert found, f"{series} is not among {[line for line in lines if line.startswith(series.partition('{')[0])]}"
    return float(found[0])


def items(witness: Witness, path: str) -> list[Document]:
    """All pages of a list."""
    joint = "&" if "?" in path else "?"
    found: list[Document] = []
    cursor = ""
    while True:
        page = document(witness, f"{path}{joint}limit=500{cursor}")
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={urllib.parse.quote(page['next_cursor'])}"


def wait_for(witness: Witness, fact: Callable[[], object], what: str) -> None:
    """Until the fact holds; AssertionError says what was waited for."""
    deadline = time.monotonic() + LIMIT_S
    while not fact():
        witness.check()
        assert time.monotonic() < deadline, f"{witness.name}: {what}"
        time.sleep(LOOK_EVERY_S)


def durable(witness: Witness, lsns: Mapping[str, str]) -> bool:
    sources = fetched_over_http(witness, "/api/v1/sources")
    if sources is None:
        return False
    reached = {source["name"]: lsn_from_text(source["durable_lsn"]) for source in sources["items"]}
    return all(reached.get(name, 0) >= lsn_from_text(lsn) for name, lsn in lsns.items())


def _settled(witness: Witness) -> bool:
    settling = fetched_over_http(witness, "/api/v1/conflicts?status=settling&limit=1")
    return settling is not None and not settling["items"]


def quiet(witness: Witness, lsns: Mapping[str, str]) -> None:
    wait_for(witness, lambda: durable(witness, lsns), f"durable up to {dict(lsns)}")
    wait_for(witness, lambda: _settled(witness), "nothing settling")


def said(witness: Witness) -> Said:
    return Said(
        {record["key"]: record for record in items(witness, "/api/v1/records/customer")},
        items(witness, "/api/v1/conflicts?status=open"),
        items(witness, "/api/v1/conflicts?status=closed"),
    )


# ---------------------------------------------------------------- in this process, with readers that can be held back


class Played(NamedTuple):
    """A delivery and when it arrived by our own clock."""

    arrived_us: int
    delivery: Delivery


class HeldSource:
    """ports.Source: the real one, whose deliveries are held back on demand and remembered on the way."""

    def __init__(self, inner: Source) -> None:
        self.name = inner.name
        self.tape: list[Played] = []
        self.is_held = False
        self._inner = inner

    def start(self, position: Position | None) -> None:
        self._inner.start(position)

    def take(self, limit: int) -> Sequence[Delivery]:
        if self.is_held:
            return []
        taken = self._inner.take(limit)
        self.tape.extend(Played(now_us(), delivery) for delivery in taken)
        return taken

    def confirm(self, lsn: int) -> None:
        self._inner.confirm(lsn)

    def status(self) -> SourceStatus:
        return self._inner.status()

    def stop(self) -> None:
        self._inner.stop()


class PlainWitness(Sidecar):
    """The whole sidecar, merging in this process; its readers are as everywhere."""

    name = "plain"

    def __init__(self, config: Path) -> None:
        self.held: dict[str, HeldSource] = {}
        self.settings = load(config, {})
        super().__init__(self.settings, make_source=self._held)

    def _held(self, reader: ReaderSettings, wake: Callable[[], None], observe: Observer) -> Source:
        self.held[reader.name] = HeldSource(ProcessSource(reader, wake, observe))
        return self.held[reader.name]

    def check(self) -> None:
        self.wait(0)


# ---------------------------------------------------------------- in a process that is killed


class KilledWitness:
    """The sidecar as a process of its own, to be killed at any time."""

    name = "killed"

    def __init__(self, process_pool: ProcessPool, config: Path) -> None:
        self._process_pool = process_pool
        self._config = config
        self._log = config.with_suffix(".log")
        self._read = 0
        self._process: Forked | None = None
        self._address: str | None = None

    def start(self) -> None:
        self._address = None
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._process = self._process_pool.start(["--config", str(self._config), "run"], self._log, self._log)

    @property
    def address(self) -> str | None:
        if self._address is None and self._log.exists():
            lines = self._log.read_bytes()[self._read :].decode().splitlines()
            told = [line for line in lines if "cdc-merge listens on http://" in line]
            self._address = told[0].partition("http://")[2].partition('"')[0] if told else None
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
