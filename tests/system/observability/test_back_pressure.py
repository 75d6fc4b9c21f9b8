"""When merging stands still: the source is not read on and says so, its database goes on undisturbed, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import BatchMerged, Fact
from cdc_merge.model.ports import Observer, Source
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.process.parent import ProcessSource
from tests.support.alerting import fetched, wait_until
from tests.support.databases import drop_slots
from tests.support.shop import Shop, metric, shop

QUEUE_BYTES: Final = 256 << 10
# Beyond the queue and beyond the window of 16 MB between a reader's process and ours.
EDITS: Final = 300
EDIT_BYTES: Final = 100_000
# The server ends a connection that answers nothing for so long: blocking for longer shows that it is answered.
SENDER_TIMEOUT_S: Final = 3
BLOCKED_S: Final = 6.0


class Gate:
    """An observer that lets the merging thread through, or holds it behind a batch that is on disk."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.is_held = threading.Event()

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, BatchMerged) and not self._open.is_set():
            self.is_held.set()
            self._open.wait()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


class Scene(NamedTuple):
    place: Shop
    gate: Gate
    address: str

    def crm(self, name: str) -> float:
        return metric(self.address, f'cdc_merge_{name}{{source="crm"}}')


@pytest.fixture
def scene(new_server: Callable[..., DemoServer], tmp_path: Path) -> Iterator[Scene]:
    server = new_server(settings={"wal_sender_timeout": f"{SENDER_TIMEOUT_S}s"})
    gate = Gate()
    with shop(server, tmp_path) as place:
        # Readers are processes of their own, as `cdc-merge run` has them.
        sidecar = Sidecar(load(place.file, {}), [gate], make_source=with_a_short_queue)
        try:
            sidecar.start()
            address = f"http://{sidecar.address}"
            wait_until(lambda: are_streaming(address), "both sources stream")
            yield Scene(place, gate, address)
        finally:
            gate.open()
            sidecar.stop()
            for dsn in place.dsns.values():
                with psycopg.connect(dsn, autocommit=True) as connection:
                    drop_slots(connection, connection.info.dbname)


def with_a_short_queue(settings: ReaderSettings, wake: Callable[[], None], observe: Observer) -> Source:
    return ProcessSource(replace(settings, max_queued_bytes=QUEUE_BYTES), wake, observe)


def are_streaming(address: str) -> bool:
    sources = fetched(f"{address}/api/v1/sources")["items"]
    return all(source["up"] and source["snapshot"]["state"] == "done" for source in sources)


def edited(place: Shop) -> float:
    """Every edit is a transaction of its own; the longest that one took, in seconds."""
    longest_s = 0.0
    with psycopg.connect(place.dsns["crm"], autocommit=True) as connection:
        for number in range(EDITS):
            begun_s = time.monotonic()
            phone = f"{number} " + "x" * EDIT_BYTES
            connection.execute("update customer set phone = %s where no = %s", (phone, f"C{number % 9 + 1}"))
            longest_s = max(longest_s, time.monotonic() - begun_s)
    return longest_s


def sender(place: Shop) -> list[tuple[object, ...]]:
    """Who streams from the crm: the same one, as long as nobody had to connect again."""
    query = "select active_pid from pg_replication_slots where database = current_database() and active"
    with psycopg.connect(place.dsns["crm"], autocommit=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.timeout(180)
def test_a_source_waits_without_harm_while_merging_stands_still(scene: Scene) -> None:
    place, gate = scene.place, scene.gate
    streaming = sender(place)
    waited_s = scene.crm("source_backpressure_seconds_total")
    gate.close()
    place.execute("erp", "update customer set phone = 'held' where no = 'C9'")
    assert gate.is_held.wait(30), "the merging thread stands still"

    longest_s = edited(place)
    wait_until(lambda: scene.crm("backpressure_active") == 1, "the source waits")
    wait_until(
        lambda: scene.crm("source_backpressure_seconds_total") > waited_s + BLOCKED_S,
        "the time that it waits is counted",
    )
    assert longest_s < 1.0, "a writer of the database was held up"
    assert scene.crm("source_up") == 1
    assert scene.crm("source_queued_bytes") < 2 * scene.crm("source_queue_limit_bytes"), "what waits has a bound"
    assert sender(place) == streaming != [], "the server ended the connection"
    assert scene.crm("source_reconnects_total") == 0

    gate.open()
    wait_until(lambda: scene.crm("backpressure_active") == 0, "the source is read again")
    wait_until(lambda: merged(scene) == EDITS, "every edit is merged")
    wait_until(lambda: scene.crm("source_lag_bytes") == 0, "nothing is left behind")
    record = fetched(f"{scene.address}/api/v1/records/customer/C{(EDITS - 1) % 9 + 1}")
    assert record["sources"]["crm"]["values"]["phone"].startswith(f"{EDITS - 1} xxx")
    assert sender(place) == streaming
    # A reader tells its figures when something happens: the first of these edits brings what it counted last.
    waited: list[float] = []
    for number in (1, 2, 3):
        place.execute("crm", f"update customer set phone = 'short {number}' where no = 'C1'")
        wait_until(lambda wanted=EDITS + number: merged(scene) == wanted, "the next edit is merged")  # type: ignore[misc]
        waited.append(scene.crm("source_backpressure_seconds_total"))
    assert waited[1] == waited[2], "nobody waits any more"


def merged(scene: Scene) -> float:
    return metric(scene.address, 'cdc_merge_changes_total{entity="customer",operation="update",source="crm"}')
